"""The API takes the manifests of deploy/kubernetes, by its own schemas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.deploy.api_schema import mistakes, wrong
from tests.deploy.crds import PARTS, SCHEMAS
from tests.deploy.manifests import FILES, FOLDER, containers, documents, named, of_kind


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_api_takes_every_object(path: Path) -> None:
    assert documents(path)
    for document in documents(path):
        key = f"{document['apiVersion']} {document['kind']}"
        if key not in SCHEMAS:
            assert mistakes(document) == []
            continue
        spec = copy.deepcopy(document["spec"])
        jsonschema.validate(spec, SCHEMAS[key], jsonschema.Draft202012Validator)
        for place, kind in PARTS[key].items():
            part = spec
            for step in place.split("."):
                part = part[step]
            assert list(wrong(kind, part, place)) == []
        assert list(wrong("V1ObjectMeta", document["metadata"], "metadata")) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda spec: spec.update(replica=3), "spec.replica: unknown field"),
        (lambda spec: spec.pop("selector"), "`selector`, must not be `None`"),
        (lambda spec: spec.update(replicas="3"), "'3' is no int"),
        (lambda spec: spec["template"]["spec"]["containers"][0].pop("name"), "`name`, must not be `None`"),
        (lambda spec: spec["template"]["spec"]["containers"][0].update(args="x"), "args: no list"),
        (
            lambda spec: spec["template"]["metadata"]["annotations"].update(a=True),
            "annotations.a: True is no str",
        ),
    ],
)
def test_the_schemas_do_tell_mistakes(change: Any, told: str) -> None:
    document = copy.deepcopy(named("Deployment", "enginehouse", "gateway"))
    change(document["spec"])
    assert [one for one in mistakes(document) if told in one]


def test_the_schemas_written_down_here_do_tell_mistakes() -> None:
    for kind, field in (("ScaledObject", "triggers"), ("LeaderWorkerSet", "leaderWorkerTemplate")):
        (document,) = of_kind(kind)
        schema = SCHEMAS[f"{document['apiVersion']} {kind}"]
        for spec in ({**document["spec"], "x": 1}, {k: v for k, v in document["spec"].items() if k != field}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(spec, schema)


def test_kustomizations_name_every_file_and_image() -> None:
    for path in FOLDER.glob("*/kustomization.yaml"):
        (kustomization,) = documents(path)
        there = {one.name for one in FILES if one.parent == path.parent}
        assert set(kustomization["resources"]) == there, path
        images = {container["image"] for _, container in containers() if ":" not in container["image"]}
        assert {image["name"] for image in kustomization.get("images", ())} <= images
    assert {path.parent.name for path in FILES} == {
        path.parent.name for path in FOLDER.glob("*/kustomization.yaml")
    }
