"""Messages and methods of `externalscaler.ExternalScaler`, as KEDA's documentation has them.

Source of names and numbers: `externalscaler.proto` on `keda.sh/docs/latest/concepts/external-scalers`. They
are declared here and built on import: seven messages need neither a compiler at set-up nor generated code in
the repository. `StreamMetricSpec`, which newer releases ask for, is optional: our target never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "externalscaler"
SERVICE = f"{PACKAGE}.ExternalScaler"
_Field = descriptor_pb2.FieldDescriptorProto
_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ScaledObjectRef": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "scalerMetadata": (3, "*ScaledObjectRef.ScalerMetadataEntry"),
    },
    "IsActiveResponse": {"result": (1, "bool")},
    "MetricSpec": {
        "metricName": (1, "string"),
        "targetSize": (2, "int64"),
        "targetSizeFloat": (3, "double"),
    },
    "GetMetricSpecResponse": {"metricSpecs": (1, "*MetricSpec")},
    "GetMetricsRequest": {"scaledObjectRef": (1, "ScaledObjectRef"), "metricName": (2, "string")},
    "MetricValue": {
        "metricName": (1, "string"),
        "metricValue": (2, "int64"),
        "metricValueFloat": (3, "double"),
    },
    "GetMetricsResponse": {"metricValues": (1, "*MetricValue")},
}
"""message -> field -> number, type; `*`: repeated."""


class Method(NamedTuple):
    """One call of the service."""

    request: Any
    response: Any
    streams: bool = False


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        added = file.message_type.add(name=message)
        if message == "ScaledObjectRef":
            entry = added.nested_type.add(name="ScalerMetadataEntry")
            entry.options.map_entry = True
            for number, name in enumerate(("key", "value"), 1):
                entry.field.add(
                    name=name, number=number, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
                )
        for field, (number, kind) in fields.items():
            described = added.field.add(name=field, number=number)
            described.label = _Field.LABEL_REPEATED if kind.startswith("*") else _Field.LABEL_OPTIONAL
            if kind[0] == "*" or kind in _FIELDS:
                described.type, described.type_name = (
                    _Field.TYPE_MESSAGE,
                    f".{PACKAGE}.{kind.removeprefix('*')}",
                )
            else:
                described.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """The class of one message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


ScaledObjectRef: Any = message("ScaledObjectRef")
IsActiveResponse: Any = message("IsActiveResponse")
GetMetricSpecResponse: Any = message("GetMetricSpecResponse")
GetMetricsRequest: Any = message("GetMetricsRequest")
GetMetricsResponse: Any = message("GetMetricsResponse")

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "IsActive": Method(ScaledObjectRef, IsActiveResponse),
        "StreamIsActive": Method(ScaledObjectRef, IsActiveResponse, streams=True),
        "GetMetricSpec": Method(ScaledObjectRef, GetMetricSpecResponse),
        "GetMetrics": Method(GetMetricsRequest, GetMetricsResponse),
    }
)
