"""The environment chat templates run in: Jinja's immutable sandbox, with every step inside its budget.

Templates are programs that come with checkpoints. What they repeat (loops, calls, filters) looks at the time;
what makes text or collections looks at the size first, because one operation of Python itself cannot be
interrupted, not even from another thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sized
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes, pass_environment
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from inference.template_budget import (
    MAX_ITEMS,
    TooMuchError,
    check_items,
    check_operation,
    check_size,
    check_time,
    gathered,
    joined,
    metered,
    weighed,
)

_LONG_NEEDLE = 4096
_MAX_INDENT = 64
_LONGEST_LAYOUT = 200


class RaisedByTemplateError(TemplateError):
    """The template called `raise_exception`."""


@lru_cache(maxsize=256)
def compiled(source: str) -> Template:
    """Raises TemplateError or RecursionError where `source` is no template."""
    template = _environment().from_string(source)
    template.globals = dict(template.globals)  # Jinja's chain of maps takes a third of a rendering to copy
    return template


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks text for training; here its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  # declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Meter(NodeTransformer):
    """Puts checks around what the environment is not asked about: loops, `~`, comparisons, output."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # named so by Jinja
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "metered")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concatenated")

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_weighed(child) if isinstance(child, nodes.Expr) else child for child in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """What is compared with a constant is not looked into."""
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if sum(not _is_constant(side) for side in sides) > 1:
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _weighed(node.key)
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if _is_constant(node) else _filtered(node, "weighed")


def _is_constant(node: nodes.Expr) -> bool:
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(map(_is_constant, node.items))
    return isinstance(node, nodes.Const | nodes.TemplateData)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with everything that takes time or makes text grow asked first."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(joined)  # what macros and blocks collect

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Meter().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        check_time()
        for value in args:
            weighed(value)
        for value in kwargs.values():
            weighed(value)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes):
            args = _text_method(owner, __obj.__name__, args)
        return super().call(__context, __obj, *args, **kwargs)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if obj.__class__ is dict and argument.__class__ is str and argument in obj:  # nearly always
            return obj[argument]
        return super().getitem(obj, weighed(argument))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        text: str = value.__self__
        if _WIDE_FORMAT.search(text):
            raise TooMuchError("the template formats with a width beyond the size limit")

        def bounded(*args: Any, **kwargs: Any) -> str:
            longest = max((len(str(each)) for each in (*args, *kwargs.values())), default=0)
            check_size(len(text) + text.count("{") * longest)
            return formatted(*args, **kwargs)

        return bounded

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # These make something large of something small without passing an operator.
        return attr not in _GROWING_METHODS and super().is_safe_attribute(obj, attr, value)


_GROWING_METHODS = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format_map", "translate", "fromkeys", "to_bytes"}
)
_GROWING_FILTERS = ("center", "format", "urlize", "wordwrap", "striptags", "pprint", "xmlattr")
"""The last three are slow: their time grows with the square of the text, or they print whatever they get."""
_WIDE_FORMAT = re.compile(r":[^}]*(\{|\d{4})")
"""A replacement field whose width is large, or itself a field."""
_BACKWARDS = frozenset({"rfind", "rindex", "rsplit", "rpartition"})
_GATHERING = frozenset(
    {
        "list",
        "map",
        "select",
        "reject",
        "selectattr",
        "rejectattr",
        "join",
        "batch",
        "slice",
        "sort",
        "unique",
    }
    | {"groupby", "sum", "min", "max", "dictsort"}
)
"""Filters that go through their items where the meter does not see it."""
_ANY_NUMBER = frozenset({"default", "d", "int", "float"})
_LAZY = frozenset({"length", "count", "default", "d", "first", "last", "list", "items", "attr", "safe"})
"""Filters that do not look into their items."""


def _text_method(text: str | bytes, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of `text.name`, unless it would make too much or take too long."""
    if name == "join" and args and not isinstance(args[0], str | bytes):
        items = gathered(args[0])
        check_size(sum(len(item) + len(text) for item in items if isinstance(item, str | bytes)))
        return (items, *args[1:])
    if name == "replace" and len(args) > 1:
        _check_replaced(text, args[0], args[1])
    if name in _BACKWARDS and args and isinstance(args[0], str | bytes) and len(args[0]) > _LONG_NEEDLE:
        raise TooMuchError(f"the template searches backwards for more than {_LONG_NEEDLE} characters")
    return args


def _check_replaced(text: Any, old: Any, new: Any) -> None:
    check_size(len(text) + max(0, len(new) - len(old)) * (text.count(old)))


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    _check_replaced(text, old, new)
    replaced: str = text.replace(old, new, -1 if count is None else count)
    return replaced


@pass_environment
def _join(environment: Environment, items: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        items = map(make_attrgetter(environment, attribute), items)
    return joined(items, str(d))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, unlike Jinja's own filter: it is read by a model, not by a browser."""
    if any(len(str(mark)) > _MAX_INDENT for mark in (indent or "", *(separators or ()))):
        raise TooMuchError(f"the template writes JSON with more than {_MAX_INDENT} characters between values")
    options: dict[str, Any] = {"ensure_ascii": ensure_ascii, "separators": separators, "sort_keys": sort_keys}
    if indent is None and separators is None:
        return json.dumps(value, **options)
    return joined(metered(json.JSONEncoder(indent=indent, **options).iterencode(value)))


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, _MAX_INDENT)
    text = str(text)
    lines = text.splitlines() or [""]
    check_size(len(text) + len(margin) * len(lines))
    rest = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([(margin if first else "") + lines[0], *rest])


def _raise_exception(message: str) -> None:
    raise RaisedByTemplateError(message)


def _strftime_now(layout: str) -> str:
    if len(layout) > _LONGEST_LAYOUT:
        raise TooMuchError(f"the template writes a date in more than {_LONGEST_LAYOUT} characters")
    return datetime.now().astimezone().strftime(layout)


def _guarded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `made`, which looks at time and size before it works."""
    value_at = 1 if getattr(made, "jinja_pass_arg", None) is not None else 0
    gathers, looks, bounded = name in _GATHERING, name not in _LAZY, name not in _ANY_NUMBER

    @wraps(made)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_time()
        value = args[value_at]
        if gathers and not isinstance(value, str):
            value = gathered(value)
        elif gathers:
            check_items(len(value))
        if looks:
            weighed(value)
        further: tuple[Any, ...] = (*args[value_at + 1 :], *kwargs.values())
        for each in further:
            weighed(each)
            if bounded and isinstance(each, int) and abs(each) > MAX_ITEMS:
                raise TooMuchError(f"the template gives `{name}` a number above {MAX_ITEMS}")
        if name == "sum":
            _check_concatenation(value, further)
        return made(*args[:value_at], value, *args[value_at + 1 :], **kwargs)

    return checked


def _check_concatenation(lists: Iterable[Any], further: tuple[Any, ...]) -> None:
    """Before `sum` of what is not numbers, which copies what it has with every item."""
    if any(isinstance(each, Sized) and not isinstance(each, str) for each in further):
        sizes = [len(each) for each in lists if isinstance(each, Sized)]
        check_size(sum(sizes) * len(sizes))


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        cache_size=0,
        extensions=[_GenerationTag, loopcontrols],
    )
    filters = environment.filters
    for name in _GROWING_FILTERS:
        del filters[name]
    filters |= {"tojson": _to_json, "indent": _indent, "replace": _replace, "join": _join}
    for name, made in filters.items():
        filters[name] = _guarded(name, made)
    filters |= {"metered": metered, "weighed": weighed, "concatenated": joined}
    del environment.globals["lipsum"]
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment
