"""Makes `schemas.json`: the part of OpenAI's description that the gateway speaks, as plain JSON Schema.

    python tests/data/openai/trim.py openapi.json.gz

`nullable` of OpenAPI 3.0, which the 3.1 document still uses, becomes a union with null; prose goes.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

ROOTS = (
    "CreateChatCompletionRequest",
    "CreateChatCompletionResponse",
    "CreateChatCompletionStreamResponse",
    "CreateCompletionRequest",
    "CreateCompletionResponse",
    "CreateEmbeddingRequest",
    "CreateEmbeddingResponse",
    "CreateResponse",
    "ListModelsResponse",
    "Model",
    "ErrorResponse",
    "Response",
    "ResponseCompletedEvent",
    "ResponseContentPartAddedEvent",
    "ResponseContentPartDoneEvent",
    "ResponseCreatedEvent",
    "ResponseErrorEvent",
    "ResponseFailedEvent",
    "ResponseFunctionCallArgumentsDeltaEvent",
    "ResponseFunctionCallArgumentsDoneEvent",
    "ResponseIncompleteEvent",
    "ResponseInProgressEvent",
    "ResponseOutputItemAddedEvent",
    "ResponseOutputItemDoneEvent",
    "ResponseReasoningTextDeltaEvent",
    "ResponseReasoningTextDoneEvent",
    "ResponseTextDeltaEvent",
    "ResponseTextDoneEvent",
    "Batch",
    "OpenAIFile",
    "ListFilesResponse",
    "ListBatchesResponse",
)
PROSE = frozenset({"description", "title", "example", "examples", "deprecated", "discriminator", "default"})
REF = "#/components/schemas/"
NAMES = frozenset({"properties", "$defs"})
"""Keys whose members are named by the author, not by JSON Schema."""


def main() -> None:
    source = json.loads(gzip.decompress(Path(sys.argv[1]).read_bytes()))
    schemas = source["components"]["schemas"]
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {name: plain(schemas[name]) for name in sorted(closure(schemas))},
    }
    target = Path(__file__).with_name("schemas.json")
    target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def closure(schemas: dict[str, Any]) -> set[str]:
    """The roots and everything they refer to."""
    found: set[str] = set()
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(references(schemas[name]))
    return found


def references(schema: Any) -> list[str]:
    """Names of the schemas that `schema` refers to."""
    if isinstance(schema, list):
        return [name for item in schema for name in references(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"].removeprefix(REF)] if "$ref" in schema else []
    return own + [name for key, item in schema.items() if key != "discriminator" for name in references(item)]


def plain(schema: Any) -> Any:
    """`schema` without prose and extensions, with `nullable` spelled out."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {
        key: {name: plain(item) for name, item in value.items()} if key in NAMES else plain(value)
        for key, value in schema.items()
        if key not in PROSE and not key.startswith("x-") and key != "nullable"
    }
    if "$ref" in kept:
        kept["$ref"] = "#/$defs/" + kept["$ref"].removeprefix(REF)
    return {"anyOf": [kept, {"type": "null"}]} if schema.get("nullable") else kept


if __name__ == "__main__":
    main()
