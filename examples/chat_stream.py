"""A streamed answer with the `openai` SDK: python examples/chat_stream.py [MODEL] [QUESTION]

Reads where the gateway is from ENGINEHOUSE_URL and ENGINEHOUSE_API_KEY; without them, from the ready file of
`enginehouse up` (ENGINEHOUSE_STATE_DIR, or the default state folder).
"""

from __future__ import annotations

import sys

from openai import OpenAI

from enginehouse.connection import locate


def main() -> None:
    """Print the answer as it is made, then its usage."""
    model = sys.argv[1] if len(sys.argv) > 1 else "house-chat"
    question = sys.argv[2] if len(sys.argv) > 2 else "What is an engine house?"
    connection = locate()
    client = OpenAI(base_url=connection.base_url, api_key=connection.api_key or "none")
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage is not None:
            print(f"\n[{chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out]")


if __name__ == "__main__":
    main()
