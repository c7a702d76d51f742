"""A small real LLM engine on a CPU: in-flight batching over a paged KV cache, in NumPy.

Set OPENBLAS_NUM_THREADS=1 (and OMP_NUM_THREADS=1) before importing NumPy; see `engine.py`.
"""

from emulator.engine.api import (
    EngineLimits,
    EngineOutput,
    EngineRequest,
    EngineStats,
    FinishReason,
    Guide,
    LoraTask,
    PerfMetrics,
    SamplingParams,
    SchedulerPolicy,
)
from emulator.engine.engine import Engine
from emulator.engine.errors import (
    EngineClosedError,
    EngineError,
    GuideError,
    InjectedFaultError,
    InvalidRequestError,
    LoraCacheFullError,
    LoraNotCachedError,
    QueueFullError,
    RejectedRequestError,
    RequestTooLongError,
)
from emulator.engine.faults import Fault, FaultSwitch
from emulator.engine.pacing import Pacing, StepLoad
from emulator.engine.weights import ModelConfig, Weights

__all__ = [
    "Engine",
    "EngineClosedError",
    "EngineError",
    "EngineLimits",
    "EngineOutput",
    "EngineRequest",
    "EngineStats",
    "Fault",
    "FaultSwitch",
    "FinishReason",
    "Guide",
    "GuideError",
    "InjectedFaultError",
    "InvalidRequestError",
    "LoraCacheFullError",
    "LoraNotCachedError",
    "LoraTask",
    "ModelConfig",
    "Pacing",
    "PerfMetrics",
    "QueueFullError",
    "RejectedRequestError",
    "RequestTooLongError",
    "SamplingParams",
    "SchedulerPolicy",
    "StepLoad",
    "Weights",
]
