"""The benchmark's tokenizer: a small trained BPE, and 131,072 tokens more that stand for times.

A vocabulary as large as a real model's, so that the gateway's look-ups cost what they would. Token id
`ID_BASE + n` reads " t" and n in six digits; the stub emits the id of the present time, so that the text a
client gets says when each token was made, whatever detokenised it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bench import bodies

ID_BASE = 1024
ID_COUNT = 131_072
TICK_US = 50
"""One id further every so many microseconds: 6.5 s until ids come again."""
SPECIAL = ["<|begin|>", "<|start|>", "<|end|>"]
CONTEXT_LENGTH = 32_768

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def write(folder: Path) -> Path:
    """Write `tokenizer.json` and `tokenizer_config.json` into `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = json.loads(_trained().to_str())
    vocabulary = trained["model"]["vocab"]
    if len(vocabulary) > ID_BASE:
        raise ValueError(f"the trained part has {len(vocabulary)} tokens, room is for {ID_BASE}")
    vocabulary |= {f"<|unused {n}|>": n for n in range(len(vocabulary), ID_BASE)}
    vocabulary |= {f"Ġt{n:06d}": ID_BASE + n for n in range(ID_COUNT)}
    (folder / "tokenizer.json").write_text(json.dumps(trained, ensure_ascii=False))
    settings = {
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[2],
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": CONTEXT_LENGTH,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _trained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [
        *(message["content"] for message in bodies.MESSAGES),
        *(str(module.__doc__) for module in (bodies, models, json)),
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=ID_BASE,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer
