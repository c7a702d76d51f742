"""Load is sent when it is due, times count from then, and aiperf's records mean the same as ours."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import Result
from typer.testing import CliRunner

from engine_builder.loadtest.plan import Planned
from enginehouse import aiperf
from enginehouse.cli import app
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.load_client import LoadClient
from enginehouse.targets import Target, target

RECORDS = Path(__file__).parents[1] / "data" / "aiperf" / "profile_export.jsonl"


class Streams:
    """Speaks OpenAI's streamed chat; from `hold` on, requests wait until `released` is set."""

    def __init__(self) -> None:
        self.hold = False
        self.released = asyncio.Event()
        self.arrived = 0
        self.takes_s = self.gap_s = 0.0
        self.refuses = False
        self.answers = 1_000_000
        """Requests beyond so many are refused."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.arrived += 1
        if self.refuses or self.arrived > self.answers:
            return web.json_response({"error": {"message": "full"}}, status=503)
        if self.hold:
            await self.released.wait()
        await asyncio.sleep(self.takes_s)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        tokens, words = body["max_tokens"], len(body["messages"][0]["content"].split())
        for text in ("", *["x"] * tokens):
            await asyncio.sleep(self.gap_s)
            await self._send(response, {"choices": [{"delta": {"content": text}}]})
        usage = {"prompt_tokens": words, "completion_tokens": tokens}
        await self._send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _send(self, response: web.StreamResponse, event: object) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Target]:
        server = web.Application()
        server.router.add_post("/v1/chat/completions", self.chat)
        async with TestServer(server) as running:
            yield target(f"http://127.0.0.1:{running.port}#m", "--model", environment={})


def silent(*_: object) -> None:
    return


async def test_requests_are_sent_though_none_is_answered() -> None:
    streams = Streams()
    async with streams.serving() as of, LoadClient(of, 100) as client:
        await client.calibrate()
        streams.hold, before = True, streams.arrived
        plan = [Planned(0.01 * number, 20, 4) for number in range(12)]

        def told(sent: int, under_way: int, _errors: int) -> None:
            if sent == len(plan):
                assert under_way == len(plan)
                asyncio.get_running_loop().call_later(0.3, streams.released.set)

        found = await client.run(plan, 0.12, told)
    assert streams.arrived - before == len(plan)
    assert [one.error for one in found.outcomes] == [None] * len(plan)
    assert {(one.prompt_tokens, one.output_tokens) for one in found.outcomes} == {(20, 4)}
    assert all(one.ttft_s >= 0.25 for one in found.outcomes)
    assert all(one.late_s < 0.2 for one in found.outcomes)


async def test_a_client_that_may_not_send_more_counts_the_wait() -> None:
    streams = Streams()
    async with streams.serving() as of, LoadClient(of, 1) as client:
        await client.calibrate()
        streams.takes_s = 0.1
        found = await client.run([Planned(0.0, 20, 4)] * 4, 0.1, silent)
    assert [round(one.late_s, 1) for one in found.outcomes] == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.1)
    last = found.outcomes[-1]
    assert last.ttft_s == pytest.approx(last.late_s + 0.1, abs=0.09)


async def test_refusals_are_errors_with_their_words() -> None:
    streams = Streams()
    async with streams.serving() as of, LoadClient(of, 10) as client:
        await client.calibrate()
        streams.refuses = True
        found = await client.run([Planned(0.0, 20, 4)] * 3, 0.1, silent)
    assert [one.error for one in found.outcomes] == ["full (HTTP 503)"] * 3


async def invoke(*arguments: str) -> Result:
    environment = {"COLUMNS": "200", "OPENAI_API_KEY": ""}
    return await asyncio.to_thread(CliRunner().invoke, app, ["loadtest", *arguments], env=environment)


QUICK = (
    "--rate", "40", "--seconds", "2", "--prompt-tokens", "20-40", "--driver", "own", "--output-tokens", "4",
)  # fmt: skip


async def test_a_run_without_one_answer_has_failed(tmp_path: Path) -> None:
    """And one whose result could not be written does not begin."""
    streams = Streams()
    async with streams.serving() as of:
        nowhere = await invoke("-m", of.name, *QUICK, "-o", str(tmp_path))
        assert "is a folder" in str(nowhere.exception)
        assert (await invoke("-m", of.name, *QUICK, "--rate", "inf")).exit_code == 2
        assert streams.arrived == 0
        async with LoadClient(of, 10) as client:
            await client.calibrate()
        streams.answers, streams.arrived = streams.arrived, 0
        full = await invoke("-m", of.name, *QUICK)
        assert "x full (HTTP 503)" in full.output
        assert "no request was answered" in str(full.exception)


async def test_two_targets_in_turns_and_a_kept_result(tmp_path: Path) -> None:
    slow, fast, kept, picture = Streams(), Streams(), tmp_path / "kept.json", tmp_path / "times.svg"
    slow.takes_s = 0.3
    slow.gap_s = fast.gap_s = 0.05
    async with slow.serving() as one, fast.serving() as other:
        both = await invoke(
            "-m", one.name, "--against", other.name, *QUICK, "-o", str(kept), "--picture", str(picture)
        )
        assert both.exit_code == 0, both.output
        told = json.loads(kept.read_text())
        ttft, other_ttft = (
            told[side]["levels"][0]["figures"]["ttft_p50_s"][0] for side in ("result", "against")
        )
        assert ttft > max(slow.takes_s, other_ttft)
        assert slow.arrived == fast.arrived, "both got the same requests"
        assert "second ÷ first" in both.stdout
        assert picture.read_text().count("<polyline") == 2

        baseline = ("--baseline", str(kept), "--max-regression", "400%")  # a busy machine is no regression
        same = await invoke("-m", one.name, *QUICK, *baseline)
        assert same.exit_code == 0, same.output
        slow.takes_s = 3.0
        worse = await invoke("-m", one.name, *QUICK, *baseline)
        assert worse.exit_code == 1
        assert "TTFT p50" in worse.stdout
        elsewhere = await invoke("-m", one.name, *QUICK[:-1], "5", "--baseline", str(kept))
        assert "with other requests" in str(elsewhere.exception)


def test_a_target_by_url_gets_no_key_of_the_gateway() -> None:
    keys = {"ENGINEHOUSE_API_KEY": "ours", "OPENAI_API_KEY": "theirs"}
    found = target("https://host/v1#a/b", "-m", environment=keys)
    assert found.connection == Connection("https://host", "theirs", None)
    assert (found.model, found.through_gateway) == ("a/b", False)
    with pytest.raises(CommandError, match="which model") as raised:
        target("http://host", "--against")
    assert raised.value.remedy == "write --against http://host#MODEL"


def test_what_aiperf_wrote_is_read() -> None:
    """Recorded with 0.13.0: three answers, and a prompt that was too long."""
    found = aiperf.outcomes(RECORDS.read_text())
    assert [(one.prompt_tokens, one.output_tokens) for one in found[:3]] == [(51, 10), (75, 13), (60, 7)]
    first = found[0]
    assert first.at_s == 0
    assert first.late_s == pytest.approx(0.001713945)
    assert first.ttft_s == pytest.approx(0.001713945 + 0.025203147)
    assert first.itl_s == pytest.approx(0.0062076784444)
    assert found[3].error is not None
    assert found[3].error.startswith("400 ")
    with pytest.raises(CommandError, match="is not understood"):
        aiperf.outcomes('{"metadata": {}}\n')


async def test_aiperf_is_given_the_plan_and_its_records_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program that checks what it gets, and leaves what the real one did."""
    program = tmp_path / "aiperf"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, shutil, sys\n"
        "given = dict(zip(sys.argv[1:], sys.argv[2:]))\n"
        "plan = [json.loads(line) for line in open(given['--input-file'])]\n"
        "if plan[0]['output_length'] == 1: sys.exit('it went wrong')\n"
        "assert plan == [{'timestamp': 250, 'input_length': 7, 'output_length': 3}], plan\n"
        "assert given['--custom-dataset-type'] == 'mooncake_trace' and given['--tokenizer'] == 'words'\n"
        "out = pathlib.Path(given['--output-artifact-dir']); out.mkdir(parents=True)\n"
        f"shutil.copy({str(RECORDS)!r}, out)\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(aiperf.importlib.util, "find_spec", lambda _: None)
    of = Target("m", Connection("http://127.0.0.1:1", None, None), "m", through_gateway=False)
    found = await aiperf.run(of, [Planned(0.25, 7, 3)], 1.0, "words", silent)
    assert len(found.outcomes) == 4
    began_s = time.monotonic()
    with pytest.raises(CommandError, match="it went wrong"):
        await aiperf.run(of, [Planned(0.25, 7, 1)], 1.0, "words", silent)
    assert time.monotonic() - began_s < 60
