"""Names of spans and attributes, of one pinned version of the OpenTelemetry semantic conventions.

The `gen_ai.*` names are written out: the Python package marks them as moved to a repository of their own
and may drop them with any release, while traces already stored keep their names. A test compares them with
the installed package.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.semconv.schemas import Schemas

SEMCONV_VERSION: Final = "1.40.0"
SCHEMA_URL: Final = Schemas.V1_40_0.value

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"

CONTENT_ATTRIBUTES: Final = frozenset({INPUT_MESSAGES, OUTPUT_MESSAGES, SYSTEM_INSTRUCTIONS})
"""Carry what clients wrote or models answered; dropped unless content capture is on."""

ERROR_TYPE: Final = error_attributes.ERROR_TYPE
HTTP_REQUEST_METHOD: Final = http_attributes.HTTP_REQUEST_METHOD
HTTP_RESPONSE_STATUS_CODE: Final = http_attributes.HTTP_RESPONSE_STATUS_CODE
HTTP_ROUTE: Final = http_attributes.HTTP_ROUTE

REQUEST_ID: Final = "enginehouse.request.id"
TENANT: Final = "enginehouse.tenant"
PROFILE: Final = "enginehouse.profile"
ADAPTER: Final = "enginehouse.adapter"
DEPLOYMENT: Final = "enginehouse.deployment"
ENDPOINT: Final = "enginehouse.endpoint"
LANE: Final = "enginehouse.lane"
TARGET: Final = "enginehouse.target"
ENGINE_QUEUE_S: Final = "enginehouse.engine.queue_s"
"""Of an attempt, by its engine's own clock: from its arrival until it was first scheduled."""
ENGINE_PREFILL_S: Final = "enginehouse.engine.prefill_s"
"""From then to its first token."""
ENGINE_DECODE_S: Final = "enginehouse.engine.decode_s"
"""From that to its last."""
ATTEMPTS: Final = "enginehouse.attempts"
MIGRATED: Final = "enginehouse.migrated"
COLD: Final = "enginehouse.cold"
"""It was held until its model was up; `held_ms` of its route says how long."""
CANCELLED_BY: Final = "enginehouse.cancelled_by"
KEPT_BECAUSE: Final = "enginehouse.kept_because"
"""`sampled`, `error` or `slow`."""

ROUTE_SPAN: Final = "route"
ATTEMPT_SPAN: Final = "attempt"
FIRST_TOKEN_SPAN: Final = "first token"  # noqa: S105 - a span's name
FINISH_SPAN: Final = "finish"
ANSWERED_EVENT: Final = "response headers"
