"""Lint: every look at files, in an order in which the first finding is usually the cause of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine_builder.package.signing import Trust
from engine_builder.package.verify import Progress
from engine_builder.preflight import (
    configs,
    engine_files,
    ensembles,
    llm_settings,
    packages,
    parameters,
    tensors,
    tokenizers,
)
from engine_builder.preflight.problems import checked
from engine_builder.preflight.subject import Subject
from model_registry.engines import Check

LOOKS = (
    *packages.LOOKS,
    *configs.LOOKS,
    *parameters.LOOKS,
    *tensors.LOOKS,
    *ensembles.LOOKS,
    *llm_settings.LOOKS,
    *engine_files.LOOKS,
    *tokenizers.LOOKS,
)

OnCheck = Callable[[Check], None]


def lint(
    subject: Subject,
    trust: Trust | None = None,
    on_check: OnCheck = lambda _: None,
    progress: Progress | None = None,
) -> list[Check]:
    """The checks of a subject, each told as it is done. `trust` None: signatures are not looked at.

    `progress` is told of the bytes whose digests are compared, which is what takes time.
    """
    found = []
    for check in _checks(subject, trust, progress):
        on_check(check)
        found.append(check)
    return found


def _checks(subject: Subject, trust: Trust | None, progress: Progress | None) -> Iterator[Check]:
    if trust is not None and subject.package is not None:
        yield checked("signature", packages.signature(subject, trust, progress))
    for look in LOOKS:
        yield checked(look.name, look.find(subject))
