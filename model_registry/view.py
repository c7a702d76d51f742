"""View: what one process believes the registry holds, and when it believes an answer of Redis. Pure.

Redis may come back with less than it had: emptied, restarted without its data, or from an older copy. Then

- an *empty* registry is not believed, unless recorded deletions led there: the last snapshot stays in
  service, `held_back` says why, and the view waits until something is applied;
- a registry with objects is believed, but endpoints it does not know (yet) are carried over for `carry_s`
  where their deployment still exists, since controllers register them again only moments later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_registry.changes import NOWHERE, ChangeRecord, Contents, Position
from model_registry.entities import Endpoint
from model_registry.kinds import DECLARED, Ref
from model_registry.snapshot import Snapshot, Stored


class View:
    """Follows a history, record by record; begins empty or with what a cache held."""

    def __init__(
        self,
        basis: Position = NOWHERE,
        objects: Mapping[Ref, Stored] | None = None,
        *,
        carry_s: float = 10.0,
    ) -> None:
        self.objects = dict(objects or {})
        self.basis = basis
        """Where in the history the served objects stand."""
        self.position = basis
        """Where in the history the registry stands; apart from `basis` only while held back."""
        self.held_back: str | None = None
        """Why the registry's present content is not served."""
        self.snapshot = Snapshot.of(basis.version, self.objects.values(), stale=objects is None)
        self._carry_s = carry_s
        self._carried: dict[Ref, Endpoint] = {}
        self._carried_until_s = 0.0

    def follow(self, records: Sequence[ChangeRecord]) -> bool:
        """Apply records; False when one does not continue this history and everything must be read anew."""
        if self.held_back is not None:
            return False
        objects, position = dict(self.objects), self.basis
        for record in records:
            if not _continues(record, position):
                return False
            for ref, item in record.changes:
                if item is None:
                    objects.pop(ref, None)
                else:
                    objects[ref] = item
            position = record.position
        self._serve(objects, position)
        return True

    def adopt(self, contents: Contents, now_s: float) -> None:
        """Take over everything that was read, or hold it back."""
        lost = self._lost_data(contents.position)
        if (lost or contents.position == self.basis) and self._emptied(contents):
            self.position = contents.position
            self.held_back = (
                f"the registry was emptied without a deletion; version {self.basis.version} is served "
                "until something is applied"
            )
            return
        if lost:
            self._carried = {ref: item for ref, item in self.objects.items() if isinstance(item, Endpoint)}
            self._carried_until_s = now_s + self._carry_s
        self._serve(dict(contents.objects), contents.position)

    def tick(self, now_s: float) -> None:
        """Let go of carried endpoints when their time is up."""
        if self._carried and now_s >= self._carried_until_s:
            self._carried = {}
            self._publish()

    def _serve(self, objects: dict[Ref, Stored], position: Position) -> None:
        same = position == self.basis and objects == self.objects and not self.snapshot.stale
        self.held_back = None
        self.objects = objects
        self.basis = self.position = position
        if not same:
            self._publish()

    def _publish(self) -> None:
        carried = {
            ref: item
            for ref, item in self._carried.items()
            if ("Deployment", item.deployment) in self.objects
        }
        self.snapshot = Snapshot.of(self.basis.version, {**carried, **self.objects}.values())

    def _lost_data(self, position: Position) -> bool:
        if self.basis == NOWHERE:
            return False
        return position.lineage != self.basis.lineage or position.version < self.basis.version

    def _emptied(self, contents: Contents) -> bool:
        return _has_declared(self.objects) and not _has_declared(contents.objects)


def _has_declared(objects: Mapping[Ref, Stored]) -> bool:
    return any(kind in DECLARED for kind, _ in objects)


def _continues(record: ChangeRecord, position: Position) -> bool:
    lineage = position.lineage or record.position.lineage
    return (
        record.position.lineage == lineage
        and record.position.version == position.version + 1
        and record.previous == position.last
    )
