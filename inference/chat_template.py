"""Chat template: a model's own Jinja text that turns messages into one prompt.

Templates come with checkpoints and messages from clients: neither is trusted. They are rendered in Jinja's
immutable sandbox, with the names and whitespace rules that templates published for `transformers` expect, up
to a size and a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError

from inference.errors import RequestRefusedError, TokenizerError
from inference.template_budget import Budget, TooLongError, budget, joined
from inference.template_sandbox import RaisedByTemplateError, compiled

__all__ = ["RENDER_TIMEOUT_S", "ChatTemplate", "RaisedByTemplateError", "RenderTimeoutError"]

RENDER_TIMEOUT_S = 5.0
"""Longest rendering."""


class RenderTimeoutError(RequestRefusedError):
    """The template takes longer for these messages than it may."""


class ChatTemplate:
    """One compiled template. Safe to share among threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """`special_tokens`: `bos_token`, `eos_token` … as the template names them.

        Raises TokenizerError when `source` is not a valid template.
        """
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = compiled(source)
        except TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template is not valid Jinja: line {error.lineno}: {error}"
            ) from error
        except (TemplateError, RecursionError) as error:
            raise TokenizerError(f"the chat template cannot be compiled: {error}") from error

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names that the template takes from outside."""
        return frozenset(meta.find_undeclared_variables(self._template.environment.parse(self.source)))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        limit_s: float | None = None,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`; `extra` are further names the template may read.

        `limit_s`: longest time on the event loop; None: `RENDER_TIMEOUT_S`, in a thread.
        Raises RequestRefusedError (param `messages`) when the template cannot take these messages, as
        RenderTimeoutError for the time, and TokenizerError when it attempts what the sandbox forbids.
        """
        names = {
            **self._special_tokens,
            **extra,
            "messages": messages,
            "tools": tools,
            "documents": extra.get("documents"),
            "add_generation_prompt": add_generation_prompt,
        }
        token = budget.set(Budget(limit_s or RENDER_TIMEOUT_S, on_loop=limit_s is not None))
        try:
            return joined(self._template.generate(names))
        except SecurityError as error:
            raise TokenizerError(f"the chat template does what the sandbox forbids: {error}") from error
        except RaisedByTemplateError as error:
            raise RequestRefusedError(str(error), param="messages") from error
        except TooLongError as error:
            raise RenderTimeoutError(_refusal(error), param="messages") from error
        except Exception as error:  # a template is a program: whatever it raises is about these messages
            raise RequestRefusedError(_refusal(error), param="messages") from error
        finally:
            budget.reset(token)


def _refusal(error: Exception) -> str:
    text = str(error) or type(error).__name__
    short = text if len(text) <= 300 else text[:297] + "..."
    return f"the model's chat template cannot render these messages: {short}"
