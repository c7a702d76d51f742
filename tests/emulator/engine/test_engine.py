"""What callers of the engine can rely on: batching, limits, endings, statistics."""

from __future__ import annotations

import random

import numpy as np
import pytest

from emulator.engine import (
    EngineClosedError,
    EngineRequest,
    InvalidRequestError,
    QueueFullError,
    RequestTooLongError,
    SamplingParams,
)
from emulator.engine.generation import Generation
from emulator.engine.mailbox import Mailbox

from .conftest import VOCAB, Client, MakeClient, poll, prompt


def test_an_answer_is_max_tokens_long_and_ends_by_length(client: Client) -> None:
    client.send("r", prompt(1, 10), max_tokens=5)
    (tokens,) = client.finish("r")
    assert len(tokens) == 5
    assert client.last("r").finish_reason == "length"
    assert len(client.finals("r")) == 1
    assert [len(output.token_ids) for output in client.outputs["r"]] == [1] * 5


def test_the_same_request_alone_and_in_company_gives_the_same_tokens(client: Client) -> None:
    """Greedy and seeded answers do not depend on who else is in the batch."""
    for sampling in (SamplingParams(temperature=0), SamplingParams(temperature=0.9, top_p=0.95, seed=11)):
        alone = client.ask(prompt(1, 21), 30, sampling=sampling)
        names = [f"{sampling.temperature}-{n}" for n in range(16)]
        for n, name in enumerate(names):
            client.send(name, prompt(1 + n, 21 + n), 30, sampling=sampling)
        assert client.finish(*names)[0] == alone


def test_requests_join_and_leave_a_running_batch(client: Client) -> None:
    """A short request that arrives later ends earlier than the long one it joined."""
    client.send("long", prompt(1, 8), max_tokens=200)
    client.wait_for_tokens("long", 3)
    client.send("short", prompt(2, 8), max_tokens=3)
    client.finish("short")
    assert not client.finals("long")
    client.engine.cancel("long")
    client.finish("long")


def test_no_more_than_max_batch_size_run_at_once(make_client: MakeClient) -> None:
    client = make_client(max_batch_size=2)
    seen = set()
    for n in range(6):
        client.send(f"r{n}", prompt(n, 6), max_tokens=20)
    while len([name for name in client.outputs if client.finals(name)]) < 6:
        seen.add(client.engine.stats().scheduled_requests)
    assert max(seen) <= 2


def test_waiting_requests_start_in_order(make_client: MakeClient) -> None:
    client = make_client(max_batch_size=1)
    for n in range(4):
        client.send(f"r{n}", prompt(n, 6), max_tokens=3)
    client.finish()
    starts = [client.last(f"r{n}").perf.first_scheduled_time_ns for n in range(4)]  # type: ignore[union-attr]
    assert starts == sorted(starts)


def test_a_chunked_prompt_gives_the_same_answer_as_a_whole_one(make_client: MakeClient) -> None:
    whole = make_client(max_num_tokens=256, enable_kv_cache_reuse=False)
    chunked = make_client(max_num_tokens=16, enable_kv_cache_reuse=False)
    for seed in range(4):
        assert whole.ask(prompt(seed, 90), 20) == chunked.ask(prompt(seed, 90), 20)
    assert chunked.engine.stats().iteration_counter > whole.engine.stats().iteration_counter


def test_decoding_goes_on_while_a_long_prompt_is_chunked(make_client: MakeClient) -> None:
    client = make_client(max_num_tokens=16)
    client.send("early", prompt(1, 4), max_tokens=100)
    client.wait_for_tokens("early", 2)
    before = len(client.tokens("early"))
    client.send("late", prompt(2, 160), max_tokens=1)
    client.finish("late")
    assert len(client.tokens("early")) - before >= 10
    client.finish("early")


def test_without_chunked_context_a_prompt_is_computed_in_one_step(make_client: MakeClient) -> None:
    client = make_client(enable_chunked_context=False, max_num_tokens=64)
    assert client.engine.max_input_len == 64
    client.ask(prompt(1, 64), max_tokens=1)
    assert client.engine.stats().iteration_counter == 1


def test_a_repeated_prompt_reuses_blocks_and_answers_alike(make_client: MakeClient) -> None:
    client, without = make_client(), make_client(enable_kv_cache_reuse=False)
    shared = prompt(3, 41)
    expected = without.ask(shared, 12)
    assert client.ask(shared, 12) == expected
    client.send("again", shared, 12)
    assert client.finish("again")[0] == expected
    perf = client.last("again").perf
    assert perf is not None
    assert perf.kv_cache_reused_blocks == 10
    assert perf.kv_cache_alloc_total_blocks == perf.kv_cache_reused_blocks + perf.kv_cache_alloc_new_blocks
    assert without.engine.stats().kv_reused_blocks == 0


def test_a_conversation_reuses_the_blocks_of_its_answers(client: Client) -> None:
    """Generated tokens are cached too: the next turn finds prompt and answer."""
    first = prompt(4, 16)
    answer = client.ask(first, 17)
    client.send("next", [*first, *answer, *prompt(5, 4)], 2)
    client.finish("next")
    perf = client.last("next").perf
    assert perf is not None
    assert perf.kv_cache_reused_blocks == 32 // 4


def test_old_cached_blocks_make_room(make_client: MakeClient) -> None:
    client = make_client(kv_blocks=24, max_seq_len=96)
    for seed in range(12):
        client.ask(prompt(seed, 40), 4)
    client.send("newest", prompt(11, 40), 4)
    client.send("oldest", prompt(0, 40), 4)
    client.finish()
    assert client.last("newest").perf.kv_cache_reused_blocks > 0  # type: ignore[union-attr]
    assert client.last("oldest").perf.kv_cache_reused_blocks == 0  # type: ignore[union-attr]


def test_guaranteed_no_evict_starts_only_what_can_finish(make_client: MakeClient) -> None:
    """Two requests whose longest answers do not fit together run one after the other."""
    client = make_client(kv_blocks=20, max_seq_len=80, enable_kv_cache_reuse=False)
    client.send("a", prompt(1, 8), max_tokens=60)
    client.wait_for_tokens("a", 1)
    client.send("b", prompt(2, 8), max_tokens=60)
    client.finish("a", "b")
    a, b = client.last("a").perf, client.last("b").perf
    assert a is not None
    assert b is not None
    assert b.first_scheduled_time_ns >= a.last_token_time_ns


def test_max_utilization_pauses_the_youngest_and_resumes_it(make_client: MakeClient) -> None:
    """Packing too much costs time, never tokens."""
    alone = make_client(enable_kv_cache_reuse=False)
    packed = make_client(
        kv_blocks=30, max_seq_len=120, batch_scheduler_policy="max_utilization", enable_kv_cache_reuse=False
    )
    expected = [alone.ask(prompt(n, 12), 50) for n in range(4)]
    paused = 0
    for n in range(4):
        packed.send(f"r{n}", prompt(n, 12), 50)
    while not all(packed.finals(f"r{n}") for n in range(4)):
        paused = max(paused, packed.engine.stats().paused_requests)
    assert [packed.tokens(f"r{n}") for n in range(4)] == expected
    assert paused > 0
    first, last = packed.last("r0").perf, packed.last("r3").perf
    assert first is not None
    assert last is not None
    assert first.kv_cache_alloc_new_blocks < last.kv_cache_alloc_new_blocks


def test_cancelling_frees_the_blocks_and_ends_once(client: Client) -> None:
    client.send("r", prompt(1, 20), max_tokens=200)
    client.wait_for_tokens("r", 2)
    client.engine.cancel("r")
    client.finish("r")
    assert client.engine.stats().kv_used_blocks == 0
    last = client.last("r")
    assert (last.finish_reason, last.token_ids) == ("cancelled", [])
    client.engine.cancel("r")
    client.engine.cancel("never seen")
    assert client.ask(prompt(2, 5), 2)
    assert len(client.finals("r")) == 1
    assert client.engine.stats().total_cancelled == 1


def test_a_cancel_takes_effect_within_one_step(make_client: MakeClient) -> None:
    """After `cancel` returned, at most the step under way still delivers."""
    client = make_client()
    client.send("r", prompt(1, 8), max_tokens=240)
    client.wait_for_tokens("r", 2)
    client.engine.cancel("r")
    steps = client.engine.stats().iteration_counter
    client.finish("r")
    assert client.engine.stats().iteration_counter - steps <= 1


def test_a_waiting_request_can_be_cancelled(make_client: MakeClient) -> None:
    client = make_client(max_batch_size=1)
    client.send("running", prompt(1, 8), max_tokens=100)
    client.send("waiting", prompt(2, 8), max_tokens=100)
    client.engine.cancel("waiting")
    client.finish("waiting")
    assert client.tokens("waiting") == []
    client.engine.cancel("running")
    client.finish()


def test_max_tokens_is_cut_to_the_longest_sequence(make_client: MakeClient) -> None:
    client = make_client(max_seq_len=32)
    assert len(client.ask(prompt(1, 20), 500)) == 12


def test_a_prompt_that_is_too_long_is_refused(client: Client) -> None:
    with pytest.raises(
        RequestTooLongError, match=r"Prompt length \(201\) exceeds maximum input length \(200\)"
    ):
        client.send("r", prompt(1, 201))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": []}, "input_ids"),
        ({"prompt": [VOCAB]}, "input_ids"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_words": ((),)}, "stop_words"),
        ({"bad_words": ((-1,),)}, "bad_words"),
        ({"embedding_bias": np.zeros(3, dtype=np.float32)}, "embedding_bias"),
        ({"sampling": SamplingParams(temperature=float("nan"))}, "temperature"),
        ({"sampling": SamplingParams(top_k=-1)}, "top_k"),
        ({"sampling": SamplingParams(repetition_penalty=0)}, "repetition_penalty"),
        ({"fault": "sleepy"}, "fault"),
    ],
)
def test_a_wrong_field_is_named(client: Client, fields: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        client.send("r", **{"prompt": [1], **fields})  # type: ignore[arg-type]


def test_a_full_queue_refuses(make_client: MakeClient) -> None:
    client = make_client(max_batch_size=1, max_queue_size=2)
    client.send("running", prompt(1, 8), max_tokens=240, fault="slow:5")
    client.wait_for_tokens("running", 1)
    client.send("q1", prompt(2, 8), max_tokens=2)
    client.send("q2", prompt(3, 8), max_tokens=2)
    with pytest.raises(QueueFullError):
        client.send("q3", prompt(4, 8), max_tokens=2)
    del client.outputs["q3"]
    client.engine.cancel("running")
    client.finish()


def test_an_id_in_flight_cannot_be_used_twice(client: Client) -> None:
    client.send("r", prompt(1, 8), max_tokens=200, fault="slow:5")
    with pytest.raises(InvalidRequestError, match="request_id"):
        client.engine.submit(_copy_of(client), lambda _: None)
    client.engine.cancel("r")
    client.finish("r")


def _copy_of(client: Client):  # type: ignore[no-untyped-def]
    assert client.outputs
    return EngineRequest("r", (1,), 1)


def test_closing_ends_what_is_in_flight(make_client: MakeClient) -> None:
    client = make_client(max_batch_size=1)
    client.send("running", prompt(1, 8), max_tokens=240, fault="slow:5")
    client.send("waiting", prompt(2, 8), max_tokens=240)
    client.engine.close()
    for name in ("running", "waiting"):
        assert isinstance(client.last(name).error, EngineClosedError)
        assert len(client.finals(name)) == 1
    with pytest.raises(EngineClosedError):
        client.send("late", prompt(1, 8))


def test_an_engine_that_was_closed_before_its_start_takes_nothing() -> None:
    box = Mailbox(most_queued=None)
    box.close()
    box.open()
    with pytest.raises(EngineClosedError):
        box.put(Generation(EngineRequest("r", (1,), 1), lambda _: None, 2, 0))
    assert box.counts() == (0, 0, 0)


def test_a_callback_that_raises_harms_only_its_own_request(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(output: object) -> None:
        raise RuntimeError("the caller is broken")

    client.engine.submit(EngineRequest("broken", (1, 2), 200), broken)
    assert len(client.ask(prompt(1, 8), 5)) == 5
    poll(lambda: client.engine.stats().active_requests == 0)
    assert "on_output failed" in caplog.text


def test_counters_add_up(client: Client) -> None:
    for n in range(5):
        client.send(f"r{n}", prompt(n, 7), max_tokens=4)
    client.finish()
    stats = client.engine.stats()
    assert (stats.total_requests, stats.total_input_tokens, stats.total_output_tokens) == (5, 35, 20)
    assert stats.kv_free_blocks == stats.kv_max_blocks
    assert stats.waiting_requests == stats.scheduled_requests == 0
    perf = client.last("r0").perf
    assert perf is not None
    assert (perf.num_input_tokens, perf.num_output_tokens) == (7, 4)
    instants = (perf.arrival_time_ns, perf.first_scheduled_time_ns, perf.first_token_time_ns)
    assert list(instants) == sorted(instants)
    assert perf.first_token_time_ns <= perf.last_token_time_ns


@pytest.mark.parametrize("policy", ["guaranteed_no_evict", "max_utilization"])
def test_a_random_workload_returns_every_block(make_client: MakeClient, policy: str) -> None:
    """Shared prefixes, cancellations and a tight pool: everybody ends once, nothing stays held."""
    client = make_client(kv_blocks=48, max_seq_len=128, batch_scheduler_policy=policy)
    dice = random.Random(policy)
    for n in range(80):
        shared = prompt(n % 5, dice.randrange(4, 40))
        client.send(f"r{n}", shared + prompt(n, dice.randrange(1, 8)), dice.randrange(1, 40))
        if dice.random() < 0.3:
            client.engine.cancel(f"r{dice.randrange(n + 1)}")
    client.finish()
    assert all(len(client.finals(f"r{n}")) == 1 for n in range(80))
    stats = client.engine.stats()
    assert stats.kv_used_blocks == 0
    assert stats.kv_reused_blocks > 0
    assert stats.total_output_tokens == sum(len(client.tokens(f"r{n}")) for n in range(80))
