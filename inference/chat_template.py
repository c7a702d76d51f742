"""Chat template: a model's own Jinja text that turns messages into one prompt.

Templates come with checkpoints and messages from clients: neither is trusted. They are rendered in Jinja's
immutable sandbox, with the names and whitespace rules that templates published for `transformers` expect, up
to a size and a time.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from inference.errors import RequestRefusedError, TokenizerError

MAX_PROMPT_CHARACTERS = 16_000_000
"""Longest rendered prompt; far above any context length."""
RENDER_TIMEOUT_S = 5.0
"""Longest rendering."""

_deadline_s: ContextVar[float] = ContextVar("chat_template_deadline_s")
"""`time.monotonic()` at which the rendering under way is given up."""


class RaisedByTemplateError(TemplateError):
    """The template called `raise_exception`."""


class _TooMuchError(TemplateError):
    """The rendering takes too long or grows too large."""


class ChatTemplate:
    """One compiled template. Safe to share among threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """`special_tokens`: `bos_token`, `eos_token` … as the template names them.

        Raises TokenizerError when `source` is not a valid template.
        """
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = _compile(source)
        except TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template is not valid Jinja: line {error.lineno}: {error}"
            ) from error
        except (TemplateError, RecursionError) as error:
            raise TokenizerError(f"the chat template cannot be compiled: {error}") from error

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names that the template takes from outside."""
        return frozenset(meta.find_undeclared_variables(_environment().parse(self.source)))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`; `extra` are further names the template may read.

        Raises RequestRefusedError (param `messages`) when the template cannot take these messages, and
        TokenizerError when it attempts what the sandbox forbids.
        """
        names = {
            **self._special_tokens,
            **extra,
            "messages": messages,
            "tools": tools,
            "documents": extra.get("documents"),
            "add_generation_prompt": add_generation_prompt,
        }
        token = _deadline_s.set(time.monotonic() + RENDER_TIMEOUT_S)
        try:
            return _join(self._template.generate(names))
        except SecurityError as error:
            raise TokenizerError(f"the chat template does what the sandbox forbids: {error}") from error
        except RaisedByTemplateError as error:
            raise RequestRefusedError(str(error), param="messages") from error
        except Exception as error:  # a template is a program: whatever it raises is about these messages
            raise RequestRefusedError(
                f"the model's chat template cannot render these messages: {_short(error)}", param="messages"
            ) from error
        finally:
            _deadline_s.reset(token)


def _join(pieces: Iterable[str]) -> str:
    parts: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        _check_size(size)
        parts.append(piece)
    return "".join(parts)


def _short(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks text for training; here its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  # declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Meter(NodeTransformer):
    """Puts a check of time around what is looped over, and one of size around what is joined."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # named so by Jinja
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "metered", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node, "bounded", [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with every loop and everything that makes text grow metered."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Meter().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_growth(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is not None and _WIDE_FORMAT.search(value.__self__):
            raise _TooMuchError("the template formats with a width beyond the size limit")
        return formatted

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Padding grows text without passing an operator.
        return attr not in _PADDING and super().is_safe_attribute(obj, attr, value)


_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format_map"})
_GROWING_FILTERS = ("center", "format", "urlize", "wordwrap")
_WIDE_FORMAT = re.compile(r":[^}]*(\{|\d{4})")
"""A replacement field whose width is large, or itself a field."""


def _check_growth(operator: str, left: Any, right: Any) -> None:
    if operator == "**" and not (_is_small(left) and _is_small(right)):
        raise _TooMuchError("the template raises to too high a power")
    if operator == "%" and isinstance(left, str):
        raise _TooMuchError("the template formats with %; use ~ or format")
    if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_size(len(left) + len(right))
    if operator == "*":
        sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
        if (
            hasattr(sized, "__len__")
            and isinstance(times, int)
            and len(sized) * times > MAX_PROMPT_CHARACTERS
        ):
            raise _TooMuchError("the template repeats text beyond the size limit")


def _check_size(size: int) -> None:
    if size > MAX_PROMPT_CHARACTERS:
        raise _TooMuchError(f"the prompt is longer than {MAX_PROMPT_CHARACTERS} characters")


def _bounded(text: str) -> str:
    _check_size(len(text))
    return text


def _is_small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 4096


def _metered(items: Iterable[Any]) -> Iterator[Any]:
    deadline_s = _deadline_s.get()
    for item in items:
        if time.monotonic() > deadline_s:
            raise _TooMuchError(f"rendering takes longer than {RENDER_TIMEOUT_S:g} s")
        yield item


def _raise_exception(message: str) -> None:
    raise RaisedByTemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, unlike Jinja's own filter: it is read by a model, not by a browser."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        cache_size=0,
        extensions=[_GenerationTag, loopcontrols],
    )
    for name in _GROWING_FILTERS:
        del environment.filters[name]
    del environment.globals["lipsum"]
    environment.filters |= {"tojson": _to_json, "indent": _indent, "metered": _metered, "bounded": _bounded}
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, 64)
    lines = str(text).splitlines() or [""]
    rest = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([(margin if first else "") + lines[0], *rest])


@lru_cache(maxsize=256)
def _compile(source: str) -> Template:
    return _environment().from_string(source)
