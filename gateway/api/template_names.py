"""Template names: what a client sets in the chat template besides messages and tools.

`chat_template_kwargs` is vLLM's and SGLang's name for it; `enable_thinking` of Qwen 3 is its best known use.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import msgspec

from gateway.api.errors import bad_request
from gateway.api.fields import ChatBody

PARAM = "chat_template_kwargs"
MAX_NAMES = 32
MAX_BYTES = 8192
_OURS = frozenset(
    {"self", "messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
    | {"raise_exception", "strftime_now", "bos_token", "eos_token", "pad_token", "unk_token"}
)


def read_template_names(chat: ChatBody) -> Mapping[str, Any]:
    """The names that `chat` sets. Raises ApiError 400."""
    names: dict[str, Any] = chat.chat_template_kwargs or {}
    for name in names:
        if not name.isidentifier() or len(name) > 64:
            raise bad_request(f"`{PARAM}` has a key that is no name of a template's variable.", PARAM)
        if name in _OURS:
            raise bad_request(f"`{PARAM}.{name}` is set by the gateway itself. Remove it.", f"{PARAM}.{name}")
    if len(names) > MAX_NAMES or (names and len(msgspec.json.encode(names)) > MAX_BYTES):
        message = f"`{PARAM}` may have {MAX_NAMES} names and {MAX_BYTES} bytes of JSON. Shorten it."
        raise bad_request(message, PARAM)
    if chat.reasoning_effort is not None:
        names = {"reasoning_effort": chat.reasoning_effort, **names}
    return names


def check_names_read(names: Mapping[str, Any], read: Set[str]) -> Mapping[str, Any]:
    """`names` that a template reads. Raises ApiError 400 for one that would be ignored."""
    for name in names:
        if name in read or (name == "reasoning_effort" and names[name] == "none"):
            continue
        if name == "reasoning_effort":
            message = "`reasoning_effort` is not supported by this model: its chat template does not read it."
            raise bad_request(f"{message} Remove it.", name, "unsupported_parameter")
        told = f"`{PARAM}.{name}` is not read by this model's chat template, which reads"
        known = ", ".join(sorted(read - _OURS)) or "none"
        param = f"{PARAM}.{name}"
        raise bad_request(f"{told}: {known}. Remove it.", param, "unsupported_parameter")
    return {name: value for name, value in names.items() if name in read}
