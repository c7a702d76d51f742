"""Text to ids and back over HTTP, for those who may use the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.app import guarded
from gateway.config import GatewayConfig
from gateway.tokenization import Tokenization
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Adapter, Model
from model_registry.snapshot import Snapshot
from model_registry.tenants import ApiKey, Tenant
from tests.openai_schema import validate

FOLDER = Path(__file__).parents[2] / "emulator" / "models" / "house-chat"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "東京 🚂"}]
CONFIG = GatewayConfig.model_validate({"limits": {"max_body_bytes": 100_000}})
NAMED = [
    {"name": "default", "template": "plain"},
    {"name": "tool_use", "template": "{{ tools[0].function.name }}"},
]


def snapshot(tools_folder: Path) -> Snapshot:
    def key(name: str, tenant: str) -> ApiKey:
        return ApiKey(name=name, tenant=tenant, sha256=hashlib.sha256(f"eh-{name}".encode()).hexdigest())

    return Snapshot.of(
        1,
        [
            Model(name="house", context_length=400, tokenizer=str(FOLDER), aliases=("home",)),
            Model(name="tools", context_length=400, tokenizer=str(tools_folder)),
            Model(name="remote", context_length=400),
            Model(name="broken", context_length=400, tokenizer=str(tools_folder / "nowhere")),
            Tenant(name="all"),
            Adapter(name="tuned", model="house", aliases=("own",)),
            Adapter(name="secret", model="house", restricted=True),
            Tenant(name="few", allowed_models=("remote", "house+tuned")),
            key("all", "all"),
            key("few", "few"),
        ],
    )


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A server with just these paths, on a socket of its own."""
    (tmp_path / "tokenizer.json").write_bytes((FOLDER / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": NAMED}))
    tokenizers = Tokenizers()
    current = snapshot(tmp_path)
    app = web.Application(client_max_size=CONFIG.limits.max_body_bytes)
    app.add_routes(guarded(Tokenization(CONFIG, lambda: current, tokenizers).routes()))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    headers = {"Authorization": "Bearer eh-all"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        yield session
    await runner.cleanup()
    tokenizers.close()


async def ask(
    http: aiohttp.ClientSession, path: str, body: Any, status: int = 200, **headers: str
) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post(path, data=data, headers=headers) as answer:
        got: dict[str, Any] = await answer.json()
        assert answer.status == status, got
    if status >= 400:
        validate("ErrorResponse", got)
    return got


@pytest.fixture(scope="module")
def tokenizer() -> ModelTokenizer:
    return ModelTokenizer.load(FOLDER)


@pytest.mark.parametrize(
    "name", ["house", "home", "house:throughput", "house+tuned", "house+tuned:throughput", "own"]
)
async def test_a_chat_has_the_ids_that_are_served(
    http: aiohttp.ClientSession, tokenizer: ModelTokenizer, name: str
) -> None:
    ids = tokenizer.encode_chat(CHAT)[1]
    got = await ask(http, "/tokenize", {"model": name, "messages": CHAT})
    assert got == {"count": len(ids), "max_model_len": 400, "tokens": ids, "token_strs": None}
    body = {"model": name, "messages": CHAT, "add_generation_prompt": False}
    closed = tokenizer.encode_rendered(tokenizer.render(CHAT, add_generation_prompt=False))
    assert (await ask(http, "/tokenize", body))["tokens"] == closed != ids


@pytest.mark.parametrize("add", [True, False, None])
async def test_a_text_and_back(
    http: aiohttp.ClientSession, tokenizer: ModelTokenizer, add: bool | None
) -> None:
    """With special tokens unless told otherwise; their texts come back too."""
    body = {"model": "house", "prompt": "東京 🚂 the", "add_special_tokens": add, "return_token_strs": True}
    got = await ask(http, "/tokenize", body)
    assert got["tokens"] == tokenizer.encode("東京 🚂 the", add_special_tokens=add is not False)
    assert got["token_strs"] == [tokenizer.tokenizer.id_to_token(each) for each in got["tokens"]]
    back = await ask(http, "/detokenize", {"model": "house", "tokens": got["tokens"]})
    assert back == {"prompt": "東京 🚂 the" if add is False else "<s>東京 🚂 the"}


async def test_nothing_is_nothing(http: aiohttp.ClientSession) -> None:
    body = {"model": "house", "prompt": "", "add_special_tokens": False}
    assert (await ask(http, "/tokenize", body))["count"] == 0
    assert await ask(http, "/detokenize", {"model": "house", "tokens": []}) == {"prompt": ""}


async def test_tools_choose_their_template(http: aiohttp.ClientSession) -> None:
    tools = [{"type": "function", "function": {"name": "clock"}}]
    for given, text in [(tools, "clock"), ([], "plain"), (None, "plain")]:
        got = await ask(http, "/tokenize", {"model": "tools", "messages": CHAT, "tools": given})
        back = await ask(http, "/detokenize", {"model": "tools", "tokens": got["tokens"]})
        assert back["prompt"].endswith(text)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/tokenize", {"model": "house"}, 400, "invalid_value", "prompt"),
        ("/tokenize", {"model": "house", "prompt": "a", "messages": CHAT}, 400, "invalid_value", "prompt"),
        ("/tokenize", {"prompt": "a"}, 400, "missing_required_parameter", "model"),
        ("/tokenize", {"model": "house", "prompt": ["a"]}, 400, "invalid_type", "prompt"),
        ("/tokenize", {"model": "house", "prompt": None}, 400, "invalid_type", "prompt"),
        ("/tokenize", {"model": "house", "prompt": "a", "suffix": 1}, 400, "unknown_parameter", "suffix"),
        ("/tokenize", {"model": "house", "messages": []}, 400, "invalid_value", "messages"),
        (
            "/tokenize",
            {"model": "house", "messages": [{"role": "x"}]},
            400,
            "invalid_value",
            "messages[0].role",
        ),
        ("/tokenize", {"model": "nobody", "prompt": "a"}, 404, "model_not_found", "model"),
        ("/tokenize", {"model": "remote", "prompt": "a"}, 400, "no_tokenizer", "model"),
        ("/tokenize", {"model": "broken", "prompt": "a"}, 503, "model_misconfigured", None),
        ("/tokenize", {"model": "house", "prompt": "a" * 50_000}, 400, "context_length_exceeded", "prompt"),
        ("/tokenize", {"model": "house", "prompt": "a" * 200_000}, 413, "request_too_large", None),
        ("/tokenize", b"{", 400, "invalid_json", None),
        ("/detokenize", {"model": "house"}, 400, "missing_required_parameter", "tokens"),
        ("/detokenize", {"model": "house", "tokens": [-1]}, 400, "invalid_value", "tokens[0]"),
        ("/detokenize", {"model": "house", "tokens": ["a"]}, 400, "invalid_type", "tokens[0]"),
        ("/detokenize", {"model": "house", "tokens": [2**31 - 1]}, 400, "invalid_value", "tokens"),
        ("/detokenize", {"model": "house", "tokens": [1] * 401}, 400, "context_length_exceeded", "tokens"),
        ("/detokenize", {"model": "remote", "tokens": [1]}, 400, "no_tokenizer", "model"),
    ],
)
async def test_what_is_wrong_is_named(
    http: aiohttp.ClientSession, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    error = (await ask(http, path, body, status))["error"]
    assert error["code"] == code
    assert error["param"] is None if param is None else error["param"].startswith(param.partition("[")[0])


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("", 401, "invalid_api_key"),
        ("Bearer eh-none", 401, "invalid_api_key"),
        ("Bearer eh-few", 403, "model_not_allowed"),
    ],
)
@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_only_for_those_who_may_use_the_model(
    http: aiohttp.ClientSession, path: str, authorization: str, status: int, code: str
) -> None:
    body = {"model": "house", **({"prompt": "a"} if path == "/tokenize" else {"tokens": [1]})}
    error = (await ask(http, path, body, status, Authorization=authorization))["error"]
    assert error["code"] == code


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_an_adapter_is_allowed_by_its_own_name(http: aiohttp.ClientSession, path: str) -> None:
    body = {"prompt": "a"} if path == "/tokenize" else {"tokens": [1]}
    few = {"Authorization": "Bearer eh-few"}
    await ask(http, path, {"model": "house+tuned", **body}, **few)
    for name, status in [("house+secret", 403), ("house", 403), ("house+nobody", 404)]:
        await ask(http, path, {"model": name, **body}, status, **few)
    await ask(http, path, {"model": "house+secret", **body})
