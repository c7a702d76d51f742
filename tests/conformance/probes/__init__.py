"""Probes of every feature, in the order of the page."""

from tests.conformance.probes import answers, embeddings, forms, sampling, tokens
from tests.conformance.probes.probe import Probe

__all__ = ["EMBEDDING", "GENERATING", "Probe"]

GENERATING = [*answers.PROBES, *sampling.PROBES, *forms.PROBES, *tokens.PROBES]
EMBEDDING = embeddings.PROBES
