"""Schemas of what others' controllers define, written down from their definitions: the fields that we use.

KEDA: `apis/keda/v1alpha1` of kedacore/keda (v2), its `scaledobject_types.go` and `withtriggers_types.go`, and
the page `keda.sh/docs/latest/reference/scaledobject-spec`. LeaderWorkerSet: `leaderworkerset_types.go` of
kubernetes-sigs/lws, in `api/leaderworkerset/v1`. Parts that are the API's own, as pod templates, are named
in `PARTS` and judged by its schema.
"""

from __future__ import annotations

from typing import Any

COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
TEXT = {"type": "string", "minLength": 1}
ANY = {"type": "object"}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_INT_OR_PERCENT = {"oneOf": [COUNT, {"type": "string", "pattern": "^[0-9]+%$"}]}

SCHEMAS: dict[str, dict[str, Any]] = {
    "keda.sh/v1alpha1 ScaledObject": _object(
        "scaleTargetRef triggers",
        scaleTargetRef=_object("name", name=TEXT, apiVersion=TEXT, kind=TEXT, envSourceContainerName=TEXT),
        pollingInterval=COUNT,
        initialCooldownPeriod=COUNT,
        cooldownPeriod=COUNT,
        idleReplicaCount=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        fallback=_object(
            "failureThreshold replicas",
            failureThreshold=COUNT,
            replicas=COUNT,
            behavior={
                "enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]
            },
        ),
        advanced=_object(
            restoreToOriginalReplicaCount={"type": "boolean"},
            horizontalPodAutoscalerConfig=_object(name=TEXT, behavior=ANY),
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _object(
                "type metadata",
                type=TEXT,
                name=TEXT,
                useCachedMetrics={"type": "boolean"},
                metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                metadata={"type": "object", "additionalProperties": {"type": "string"}},
                authenticationRef=_object("name", name=TEXT, kind=TEXT),
            ),
        },
    ),
    "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet": _object(
        "leaderWorkerTemplate",
        replicas=COUNT,
        startupPolicy={"enum": ["LeaderCreated", "LeaderReady"]},
        networkConfig=_object("subdomainPolicy", subdomainPolicy={"enum": ["Shared", "UniquePerReplica"]}),
        rolloutStrategy=_object(
            "type",
            type={"enum": ["RollingUpdate"]},
            rollingUpdateConfiguration=_object(
                partition=COUNT, maxUnavailable=_INT_OR_PERCENT, maxSurge=_INT_OR_PERCENT
            ),
        ),
        leaderWorkerTemplate=_object(
            "workerTemplate",
            leaderTemplate=ANY,
            workerTemplate=ANY,
            size={"type": "integer", "minimum": 1},
            restartPolicy={"enum": ["RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]},
        ),
    ),
}
"""Of `spec`, by apiVersion and kind."""

PARTS = {
    "keda.sh/v1alpha1 ScaledObject": {
        "advanced.horizontalPodAutoscalerConfig.behavior": "V2HorizontalPodAutoscalerBehavior"
    },
    "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet": {
        "leaderWorkerTemplate.leaderTemplate": "V1PodTemplateSpec",
        "leaderWorkerTemplate.workerTemplate": "V1PodTemplateSpec",
    },
}
"""By path below `spec`: the API's own types."""
