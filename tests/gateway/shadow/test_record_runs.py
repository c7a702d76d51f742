"""What a worker counted is of one run of a rollout."""

from __future__ import annotations

from typing import cast

from gateway.shadow.records import Records
from model_registry.rolling import Rolling
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.rollouts import RolloutStatus
from model_registry.snapshot import Snapshot


def rolling(epoch: int) -> Rolling:
    status = RolloutStatus(name="r", model="m", stable="a", candidate="b", phase="shadow", epoch=epoch)
    return Rolling(status, "balanced", (), ())


def test_a_request_of_an_earlier_run_takes_nothing_from_the_present_one() -> None:
    records = Records(cast("EvidenceStore", None), Snapshot, "w")
    records.skipped(rolling(2), "no_room")
    records.skipped(rolling(1), "no_room")
    assert records.of(rolling(2)).skipped == {"no_room": 1}
    records.skipped(rolling(3), "concurrency")
    assert records.of(rolling(3)).skipped == {"concurrency": 1}
