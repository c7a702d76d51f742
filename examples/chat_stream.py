"""A streamed answer with the `openai` SDK: python examples/chat_stream.py [MODEL] [QUESTION]

Needs `pip install openai`. ENGINEHOUSE_API_KEY holds the key, as `enginehouse up` shows it;
ENGINEHOUSE_URL the address, by default that of `enginehouse up`.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def main() -> None:
    """Print the answer as it is made, then its usage."""
    model = sys.argv[1] if len(sys.argv) > 1 else "house-chat"
    question = sys.argv[2] if len(sys.argv) > 2 else "What is an enginehouse?"
    root = os.environ.get("ENGINEHOUSE_URL", "http://127.0.0.1:8080")
    key = os.environ.get("ENGINEHOUSE_API_KEY") or sys.exit("set ENGINEHOUSE_API_KEY to a key of the gateway")
    client = OpenAI(base_url=f"{root}/v1", api_key=key)
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            sys.stdout.write(chunk.choices[0].delta.content or "")
            sys.stdout.flush()
        elif chunk.usage is not None:
            sys.stdout.write(
                f"\n[{chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out]\n"
            )


if __name__ == "__main__":
    main()
