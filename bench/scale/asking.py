"""Asking: one streamed request through a gateway, and how it fared."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.stack import Stack


@dataclass(slots=True)
class Outcome:
    """How one request fared; times of `time.monotonic`."""

    model: str
    sent_s: float
    first_s: float | None = None
    cold: bool = False
    """The gateway says that it was held for a model that was not up."""
    wrong: str | None = None
    """None: answered whole."""

    @property
    def ttft_s(self) -> float | None:
        """To its first token; None: it has none yet."""
        return None if self.first_s is None else self.first_s - self.sent_s


async def ask(
    stack: Stack, gateway: str, key: str, outcome: Outcome, body: dict[str, Any], within_s: float
) -> None:
    """Send `body`, for the outcome's model and streamed, and fill `outcome` until the answer is over."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{gateway}/v1/chat/completions"
    asked = {"model": outcome.model, "temperature": 0, "stream": True, **body}
    timeout = aiohttp.ClientTimeout(total=within_s)
    done = False
    try:
        async with stack.session.post(url, json=asked, headers=headers, timeout=timeout) as response:
            if response.status != 200:
                outcome.wrong = f"{response.status} {(await response.text())[:200]}"
                return
            outcome.cold = response.headers.get("x-enginehouse-cold") == "1"
            async for line in response.content:
                if line.startswith(b"data: [DONE]"):
                    done = True
                elif line.startswith(b"data: ") and outcome.first_s is None and _has_text(line):
                    outcome.first_s = time.monotonic()
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.wrong = f"{type(error).__name__} {error}"
        return
    if not done or outcome.first_s is None:
        outcome.wrong = "it ended without its end"


def _has_text(line: bytes) -> bool:
    choices = json.loads(line[6:]).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))
