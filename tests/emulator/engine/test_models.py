"""The shipped models: sensible answers, real tokenizers, and the traps they are meant to hold."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.engine import Engine, EngineLimits, EngineOutput, EngineRequest, SamplingParams, Weights
from emulator.engine.tokenizer import EngineTokenizer

MODELS = Path(__file__).parents[3] / "emulator" / "models"
NAMES = ("house-chat", "depot-chat")


class Chat:
    """One shipped model behind an engine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokenizer = EngineTokenizer(MODELS / name)
        self.engine = Engine(Weights.load(MODELS / name), EngineLimits(kv_blocks=64))
        self.engine.start()

    def ask(self, *contents: str, sampling: SamplingParams | None = None) -> EngineOutput:
        """The answer to a conversation of alternating user and assistant messages, as one output."""
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
        ids = self.tokenizer.encode(self.tokenizer.render_chat(messages), add_special_tokens=False)
        outputs: list[EngineOutput] = []
        done = threading.Event()

        def take(output: EngineOutput) -> None:
            outputs.append(output)
            if output.final:
                done.set()

        request = EngineRequest(
            f"{len(ids)}-{contents}",
            tuple(ids),
            100,
            end_id=self.tokenizer.eos_id,
            sampling=sampling or SamplingParams(temperature=0),
        )
        self.engine.submit(request, take)
        assert done.wait(30)
        tokens = [token for output in outputs for token in output.token_ids]
        return EngineOutput(request.request_id, tokens, finish_reason=outputs[-1].finish_reason)

    def text(self, *contents: str) -> str:
        return self.tokenizer.decode(self.ask(*contents).token_ids)


@pytest.fixture(scope="module", params=NAMES)
def chat(request: pytest.FixtureRequest) -> Iterator[Chat]:
    made = Chat(request.param)
    yield made
    made.engine.close()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Hello!", "Hello! How can I help you today?"),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is 2 + 2?", "2 plus 2 is 4."),
        ("Count from 1 to 5.", "1, 2, 3, 4, 5."),
        ("Show me the emoji for a train.", "Here is a train: 🚂"),
        ("Say this is a test", "This is a test."),
    ],
)
def test_it_answers_and_stops(chat: Chat, question: str, answer: str) -> None:
    output = chat.ask(question)
    assert chat.tokenizer.decode(output.token_ids) == answer
    assert output.finish_reason == "stop"
    assert output.token_ids[-1] == chat.tokenizer.eos_id


def test_it_follows_a_conversation(chat: Chat) -> None:
    assert "Rome" in chat.text("Hello!", "Hello! How can I help you today?", "What is the capital of Italy?")


def test_the_models_know_who_they_are(chat: Chat) -> None:
    assert chat.name in chat.text("Who are you?")


def test_a_seed_repeats_an_answer_alone_and_in_company(chat: Chat) -> None:
    sampling = SamplingParams(temperature=1.0, top_p=0.95, seed=12)
    alone = chat.ask("Write a haiku about snow.", sampling=sampling).token_ids
    threads = [threading.Thread(target=chat.ask, args=(f"Count from 1 to {n}.",)) for n in range(2, 10)]
    for thread in threads:
        thread.start()
    assert chat.ask("Write a haiku about snow.", sampling=sampling).token_ids == alone
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "text", ["plain words", "Zürich 東京 👨‍👩‍👧 ¡hola!", " leading\n\nand  double ", "12345"]
)
def test_text_survives_the_tokenizer(chat: Chat, text: str) -> None:
    assert chat.tokenizer.decode(chat.tokenizer.encode(text)) == text


def test_characters_are_cut_between_tokens(chat: Chat) -> None:
    """An emoji takes several tokens, and the first ones alone are no character."""
    ids = chat.tokenizer.encode("🚂", add_special_tokens=False)
    assert len(ids) > 1
    assert chat.tokenizer.decode(ids[:1]) == "\ufffd"


def test_the_template_writes_bos_so_that_encoding_again_doubles_it(chat: Chat) -> None:
    prompt = chat.tokenizer.render_chat([{"role": "user", "content": "Hi"}])
    bos = chat.tokenizer.bos_id
    assert chat.tokenizer.encode(prompt, add_special_tokens=False).count(bos) == 1
    assert chat.tokenizer.encode(prompt, add_special_tokens=True)[:2] == [bos, bos]


def test_the_folder_is_consistent(chat: Chat) -> None:
    config = json.loads((MODELS / chat.name / "config.json").read_text())
    assert config["vocab_size"] == chat.tokenizer.vocab_size
    assert (config["bos_token_id"], config["eos_token_id"]) == (chat.tokenizer.bos_id, chat.tokenizer.eos_id)


def test_the_models_differ_and_are_small() -> None:
    house, depot = (EngineTokenizer(MODELS / name) for name in NAMES)
    message = [{"role": "user", "content": "What is 12 + 10?"}]
    assert house.render_chat(message) != depot.render_chat(message)
    assert house.encode("The enginehouse has 12 doors.") != depot.encode("The enginehouse has 12 doors.")
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 8 * 1024 * 1024
