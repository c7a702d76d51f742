"""The bare `tensorrt_llm` model in a real Triton: what a client of the C++ model may rely on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_client
from tritonclient.utils import InferenceServerException

from tests.emulator.triton.server import Server, bare_body, events, tokens_of


async def test_a_stream_carries_new_tokens_only_and_exactly_as_many_as_asked(server: Server) -> None:
    status, seen = await server.stream("tensorrt_llm", bare_body(6, min_tokens=6))
    assert status == 200
    assert [tokens_of(event) for event in seen] == [[token] for event in seen for token in tokens_of(event)]
    assert len(seen) == 6


async def test_whole_answers_repeat_the_prompt_unless_told_otherwise(server: Server) -> None:
    body = bare_body(4, streaming=False, min_tokens=4, runtime_top_k=1)
    _, echoed = await server.generate("tensorrt_llm", body)
    _, plain = await server.generate("tensorrt_llm", {**body, "exclude_input_in_output": True})
    assert echoed["output_ids"] == [5, 6, 7, *plain["output_ids"]]
    assert (echoed["sequence_length"], plain["sequence_length"]) == (7, 4)


async def test_a_seed_repeats_an_answer_in_both_dialects(server: Server) -> None:
    body = bare_body(8, streaming=False, exclude_input_in_output=True)
    _, first = await server.generate("tensorrt_llm", {**body, "seed": 11})
    _, older = await server.generate("old", {**body, "random_seed": 11})
    _, other = await server.generate("tensorrt_llm", {**body, "seed": 12})
    assert first["output_ids"] == older["output_ids"] != other["output_ids"]


async def test_extra_outputs_come_only_when_asked_for(server: Server) -> None:
    plain = await server.stream("tensorrt_llm", bare_body(2, min_tokens=2))
    assert set(plain[1][0]) == {"model_name", "model_version", "output_ids", "sequence_length"}
    flags = ("return_log_probs", "return_perf_metrics", "return_num_input_tokens", "return_num_output_tokens")
    _, seen = await server.stream("tensorrt_llm", bare_body(2, min_tokens=2, **dict.fromkeys(flags, True)))
    assert seen[-1]["cum_log_probs"] == pytest.approx(sum(event["output_log_probs"] for event in seen))
    assert (seen[-1]["num_input_tokens"], sum(event["num_output_tokens"] for event in seen)) == (3, 2)
    assert "kv_cache_alloc_total_blocks" not in seen[0]
    assert (
        0 < seen[-1]["arrival_time_ns"] <= seen[-1]["first_token_time_ns"] <= seen[-1]["last_token_time_ns"]
    )


async def test_several_sequences_of_one_prompt_are_told_apart(server: Server) -> None:
    body = bare_body(3, streaming=False, num_return_sequences=2, exclude_input_in_output=True, seed=5)
    status, seen = await server.stream("tensorrt_llm", body)
    assert status == 200
    assert {event["sequence_index"] for event in seen} == {0, 1}
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam_width": 2}, "Requested beam width 2"),
        ({"request_output_len": 0}, "Executor failed process requestId"),
        ({"input_ids": [5] * 201, "input_lengths": 201}, "exceeds maximum input length (200)"),
        ({"input_lengths": 4}, "input_lengths says 4, input_ids holds 3"),
        ({"return_context_logits": True}, "need to build engine with gather_context_logits"),
        ({"return_generation_logits": True}, "gather_generation_logits must be enabled in ExecutorConfig"),
        ({"fault": "error_before"}, "due to the following error: injected fault"),
    ],
)
async def test_errors_have_the_words_of_the_executor(
    server: Server, change: dict[str, object], message: str
) -> None:
    _, seen = await server.stream("tensorrt_llm", bare_body(2) | change)
    assert len(seen) == 1
    assert message in seen[0]["error"]


async def test_a_later_error_is_an_event_under_status_200(server: Server) -> None:
    status, seen = await server.stream("tensorrt_llm", bare_body(9, min_tokens=9, fault="error"))
    assert status == 200
    assert "output_ids" in seen[0]
    assert "Executor failed process requestId" in seen[-1]["error"]


async def test_streaming_needs_a_decoupled_model(server: Server) -> None:
    _, seen = await server.stream("whole", bare_body(2))
    assert seen[0]["error"] == "Streaming is only supported if model is deployed using decoupled mode."
    status, answer = await server.generate("whole", bare_body(2, streaming=False))
    assert (status, len(answer["output_ids"])) == (200, 5)


async def test_stop_ends_the_request_of_the_same_id(server: Server) -> None:
    body = bare_body(900, min_tokens=900, fault="slow:10", id="to-stop")
    async with server.open_stream("tensorrt_llm", body) as response:
        stream = events(response)
        await anext(stream)
        assert await server.generate("tensorrt_llm", bare_body(1, stop=True, id="to-stop")) == (
            200,
            {"id": "to-stop", "model_name": "tensorrt_llm", "model_version": "1"},
        )
        rest = [event async for event in stream]
    assert len(rest) < 300
    assert tokens_of(rest[-1]) == []


async def test_stop_needs_an_id_and_forgives_an_unknown_one(server: Server) -> None:
    _, refused = await server.generate("tensorrt_llm", bare_body(1, stop=True))
    assert refused["error"] == "Trying to stop a request but request ID is not provided"
    status, _ = await server.generate("tensorrt_llm", bare_body(1, stop=True, id="long gone"))
    assert status == 200


async def test_a_client_that_leaves_frees_its_slot_within_the_poll_period(server: Server) -> None:
    """Poll period 100 ms, another 100 ms for the gauge to be refreshed, and 100 ms of grace."""
    body = bare_body(900, min_tokens=900, fault="slow:10")
    async with server.open_stream("tensorrt_llm", body) as response:
        await anext(events(response))
        await server.until_active("tensorrt_llm", lambda active: active == 1)
        response.close()
    assert await server.until_active("tensorrt_llm", lambda active: active == 0) < 0.3


async def test_a_hundred_streams_at_once_all_complete(server: Server) -> None:
    answers = await asyncio.gather(
        *(server.stream("tensorrt_llm", bare_body(10, min_tokens=10)) for _ in range(100))
    )
    assert {(status, len(seen)) for status, seen in answers} == {(200, 10)}


async def test_many_streams_that_are_left_at_the_same_time_leave_nothing_behind(server: Server) -> None:
    async def leave() -> None:
        async with server.open_stream("tensorrt_llm", bare_body(900, min_tokens=900)) as response:
            await anext(events(response))
            response.close()

    await asyncio.gather(*(leave() for _ in range(50)))
    await server.until_active("tensorrt_llm", lambda active: active == 0)
    status, seen = await server.stream("tensorrt_llm", bare_body(2, min_tokens=2))
    assert (status, len(seen)) == (200, 2)


async def test_a_wrong_tensor_comes_out_wrong(server: Server) -> None:
    _, seen = await server.stream("tensorrt_llm", bare_body(1, fault="wrong_tensor"))
    assert seen[0]["output_ids"] == [0.5, 0.5, 0.5]


async def test_nonsense_that_nobody_foresaw_is_answered_and_forgotten(server: Server) -> None:
    """A parameter of a type that the engine does not expect ends its own request and nothing else."""
    for _ in range(3):
        _, seen = await server.stream("tensorrt_llm", bare_body(1, fault=5))
        assert "Executor failed process requestId" in seen[0]["error"]
    assert await server.until_active("tensorrt_llm", lambda active: active == 0) < 1
    status, seen = await server.stream("tensorrt_llm", bare_body(30, min_tokens=30, fault="slow:10"))
    assert (status, len(seen)) == (200, 30)


async def test_the_core_refuses_inputs_that_are_not_declared(server: Server) -> None:
    with pytest.raises(InferenceServerException, match="unexpected inference input 'nope'"):
        await _grpc_stream(server, {"nope": np.ones((1, 1), np.int32)})


async def test_grpc_streams_mark_the_last_response(server: Server) -> None:
    finals = await _grpc_stream(server, {})
    assert finals == [False, False, True]


async def _grpc_stream(server: Server, more: dict[str, np.ndarray]) -> list[bool]:
    """The final flags of a stream of three tokens."""
    arrays = {
        "input_ids": np.array([[5, 6, 7]], np.int32),
        "input_lengths": np.array([[3]], np.int32),
        "request_output_len": np.array([[3]], np.int32),
        "min_tokens": np.array([[3]], np.int32),
        "streaming": np.array([[True]]),
        **more,
    }
    inputs = []
    for name, array in arrays.items():
        tensor = grpc_client.InferInput(name, array.shape, "BOOL" if array.dtype == bool else "INT32")
        inputs.append(tensor.set_data_from_numpy(array))

    async def requests():  # type: ignore[no-untyped-def]
        yield {"model_name": "tensorrt_llm", "inputs": inputs, "enable_empty_final_response": True}

    finals = []
    async with grpc_client.InferenceServerClient(server.process.grpc_url) as client:
        async for result, error in client.stream_infer(requests()):
            if error is not None:
                raise error
            finals.append(result.get_response().parameters["triton_final_response"].bool_param)
            if finals[-1]:
                break
    return finals
