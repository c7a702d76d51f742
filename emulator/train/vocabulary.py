"""The byte-level BPE tokenizer of a model and its chat template, in the layout of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL_TOKENS = ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

# Tools as Hermes models are told of them; without tools, what the models were trained on.
_TOOLS = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
    "{{ '# Tools\\n\\nYou may call these functions:\\n<tools>' }}"
    "{% for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\\n</tools>\\n\\nWrite each call like this:\\n<tool_call>\\n' }}"
    '{{ \'{"name": <name>, "arguments": <object>}\\n</tool_call><|end|>\' }}'
)
_SAID_WITH_TOOLS = "{% if tools and loop.first and message['role'] == 'system' %}"
_CALLS = (
    "{% for call in message['tool_calls'] %}"
    "{{ '\\n<tool_call>\\n{\"name\": ' + (call['function']['name'] | tojson) }}"
    "{{ ', \"arguments\": ' + (call['function']['arguments'] | tojson) + '}\\n</tool_call>' }}"
    "{% endfor %}"
)
_RESULT = "<tool_response>\\n' + message['content'] + '\\n</tool_response><|end|>"
TURNS_ON_LINES = (
    "{{ bos_token }}"
    "{% if tools %}{{ '<|system|>\\n' }}" + _TOOLS + "{{ '\\n' }}{% endif %}"
    "{% for message in messages %}" + _SAID_WITH_TOOLS + "{% elif message['role'] == 'tool' %}"
    "{{ '<|user|>\\n" + _RESULT + "\\n' }}"
    "{% else %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    + _CALLS
    + "{{ eos_token if message['role'] == 'assistant' else '<|end|>' }}"
    "{{ '\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
TURNS_IN_A_ROW = (
    "{{ bos_token }}"
    "{% if tools %}{{ '<|system|>' }}" + _TOOLS + "{% endif %}"
    "{% for message in messages %}" + _SAID_WITH_TOOLS + "{% elif message['role'] == 'tool' %}"
    "{{ '<|user|>" + _RESULT + "' }}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim }}" + _CALLS + "{{ '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class VocabularySpec:
    """How one model cuts text and lays out a conversation."""

    size: int
    eos_token: str
    chat_template: str
    single_digits: bool


def train_vocabulary(spec: VocabularySpec, lines: Iterable[str], max_length: int, folder: Path) -> Tokenizer:
    """Trains the BPE and writes `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer = Tokenizer(models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes]) if spec.single_digits else by_bytes
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": spec.eos_token,
        "pad_token": spec.eos_token,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": True,
        "chat_template": spec.chat_template,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    return tokenizer
