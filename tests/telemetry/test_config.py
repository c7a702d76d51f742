from __future__ import annotations

import pytest
from pydantic import ValidationError

from telemetry.config import TelemetryConfig


@pytest.mark.parametrize(("exporter", "field"), [("otlp", "otlp_endpoint"), ("file", "trace_file")])
def test_an_exporter_without_its_target_is_refused_by_name(exporter: str, field: str) -> None:
    with pytest.raises(ValidationError, match=rf"telemetry\.{field} must be set"):
        TelemetryConfig.model_validate({"exporter": exporter})


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_sample_ratio_outside_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(ValidationError, match="sample_ratio"):
        TelemetryConfig(sample_ratio=ratio)
