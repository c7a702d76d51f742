"""Templates render as published models expect, and can do nothing else."""

from __future__ import annotations

import time

import pytest

from inference import chat_template, template_budget
from inference.chat_template import ChatTemplate, RenderTimeoutError
from inference.errors import RequestRefusedError, TokenizerError

HELLO = [{"role": "user", "content": "Hello"}]


def render(source: str, messages: list[dict[str, object]] | None = None, **names: object) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(HELLO if messages is None else messages, **names)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>Hello"),
        ("{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}", "user\n"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}kept{% endgeneration %}", "kept"),
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        (
            "{% set s = namespace(n=0) %}{% for m in messages %}{% set s.n = 1 %}{% endfor %}{{ s.n }}",
            "1",
        ),
        ("{% for m in messages %}{{ loop.first }}{{ loop.last }}{{ loop.index0 }}{% endfor %}", "TrueTrue0"),
        ("{{ tools is none }}{{ add_generation_prompt }}{{ documents is none }}", "TrueTrueTrue"),
        ("{{ messages[0]['content'].strip().split('l')[0] }}", "He"),
        ("{{ 'a' ~ 1 ~ messages|length }}", "a11"),
        ("{{ 'x\ny' | indent(2) }}", "x\n  y"),
        ("{{ '{} and {:>3}'.format('a', 7) }}", "a and   7"),
        ("{{ messages | map(attribute='content') | join(', ') }}", "Hello"),
        ("{{ messages | join(', ', attribute='role') }}", "user"),
        ("{{ 'aXbXc' | replace('X', '-', 1) ~ 'aXbX'.replace('X', '+') }}", "a-bXca+b+"),
        ("{{ [[1], [2, 3]] | sum(start=[]) }}{{ [1, 2] | sum }}", "[1, 2, 3]3"),
        ("{{ [1, 2, 3] | batch(2, 0) | list }}", "[[1, 2], [3, 0]]"),
        ("{{ {'a': 1} | tojson(separators=(',', ':')) }}{{ '-'.join(['a', 'b']) }}", '{"a":1}a-b'),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ messages | rejectattr('role', 'in', ['user']) | list }}", "[]"),
        ("{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m(1) %}c{% endcall %}", "<1c>"),
        (
            "{{ none }}{{ 1.5 }}{{ missing }}{{ missing is defined }}{{ messages[0] == messages[-1] }}",
            "None1.5FalseTrue",
        ),
        ("{{ (2, 1) | sort }}{{ 'b' in {'b': 1} }}{{ {(1, 2): 3}[(1, 2)] }}", "[1, 2]True3"),
    ],
)
def test_renders_like_the_published_environment(source: str, expected: str) -> None:
    assert render(source) == expected


def test_the_date_is_known() -> None:
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


def test_extra_names_reach_the_template() -> None:
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"


def test_a_refusal_by_the_template_is_about_the_messages() -> None:
    with pytest.raises(RequestRefusedError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


def test_messages_that_the_template_cannot_take_are_refused() -> None:
    with pytest.raises(RequestRefusedError) as caught:
        render("{{ 'x' + messages[0].content }}", [{"role": "user", "content": [1]}])
    assert caught.value.param == "messages"


def test_bad_jinja_names_the_line() -> None:
    with pytest.raises(TokenizerError, match="line 2"):
        ChatTemplate("fine\n{% for %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ (messages|map(attribute='__class__')|list)[0].__base__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ strftime_now.__code__.co_code }}",
        "{{ 'a'.center(9) }}",
    ],
)
def test_a_hostile_template_stays_in_the_sandbox(source: str) -> None:
    messages = [{"role": "user", "content": "secret"}]
    with pytest.raises((TokenizerError, RequestRefusedError)):
        render(source, messages)  # type: ignore[arg-type]
    assert messages == [{"role": "user", "content": "secret"}]


@pytest.mark.parametrize("source", ["{{ '{0.__class__}'.format(1) }}", "{{ strftime_now.__globals__ }}"])
def test_internals_print_as_nothing(source: str) -> None:
    assert render(source) == ""


BIG = "{% set b = 'ab' * 4000000 %}"
DOUBLED = "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
GROWING = [
    "{{ 'a' * 10**9 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ range(10**9) | list }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**10) }}",
    "{{ lipsum(n=10**9) }}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=2**4000) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{{ [1] * 10**7 }}",
    BIG + "{{ b | replace('a', b) }}",
    BIG + "{{ b.replace('a', b) }}",
    BIG + "{{ b | join(b) }}",
    BIG + "{{ b.join([b, b, b]) }}",
    BIG + "{{ [b, b, b] | join }}",
    BIG + "{{ range(9000) | join(b) }}",
    BIG + "{{ '{0}{0}{0}'.format(b) }}",
    BIG + "{{ [b, b, b] }}",
    BIG + "{{ [b, b, b] | tojson }}",
    BIG + "{{ ('\n' * 100000) | indent(b) }}",
    BIG + "{{ b.translate({97: b}) }}",
    BIG + "{{ b.encode().replace('a'.encode(), b.encode()) }}",
    BIG + "{% macro m() %}{% for i in range(9000) %}{{ b }}{% endfor %}{% endmacro %}{{ m() }}",
    BIG + "{% set c %}{% for i in range(9000) %}{{ b }}{% endfor %}{% endset %}{{ c }}",
    BIG + "{{ b | list | length }}",
    BIG + "{{ b | map('upper') | list }}",
    BIG + "{{ b.rfind(b) }}",
    "{{ {}.fromkeys(range(100000), 1) }}",
    "{{ (1).to_bytes(10**9, 'big') }}",
    "{{ [1, 2] | batch(10**9, 0) | list }}",
    "{{ [1, 2] | slice(10**9) | list }}",
    "{{ 1.5 | round(10**9) }}",
    "{{ ([range(1000) | list] * 9999) | sum(start=[]) }}",
    "{{ messages | tojson(indent='x' * 9000000) }}",
    "{{ strftime_now('%c' * 100000) }}",
    DOUBLED + "{{ ns.x }}",
    DOUBLED + "{{ 'x' ~ ns.x }}",
    DOUBLED + "{{ ns.x | string }}",
    DOUBLED + "{{ ns.x | tojson }}",
    DOUBLED + "{{ ns.x | tojson(indent=2) }}",
    DOUBLED + "{{ ns }}",
    DOUBLED + "{{ '{}'.format(ns.x) }}",
    DOUBLED + "{{ raise_exception(ns.x) }}",
    DOUBLED + "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(ns.x) }}",
    DOUBLED + "{% set y = ns.x %}{{ y == ns.x[0] }}",
    DOUBLED + "{% set y = ns.x %}{{ [y, ns.x] | sort }}",
    DOUBLED.replace("[ns.x, ns.x]", "dict(a=ns.x, b=ns.x)") + "{{ ns.x }}",
    DOUBLED.replace("[ns.x, ns.x]", "(ns.x, ns.x)") + "{{ {}[ns.x] }}",
    DOUBLED.replace("[ns.x, ns.x]", "(ns.x, ns.x)").replace("['a']", "'a'") + "{{ {ns.x: 1} }}",
]
ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for i in [[[1]]] * 9 recursive %}{{ loop(9 * [i]) if loop.depth < 90 }}{% endfor %}",
    "{% for i in range(99999) %}{{ range(19999) | map('string') | list | length }}{% endfor %}",
    "{% for i in range(99999) %}{% set x = range(19999) | sort(reverse=true) %}{% endfor %}",
    "{% for i in range(99999) %}{% set x = range(19999) | groupby('real') %}{% endfor %}",
]


@pytest.mark.parametrize("source", GROWING)
def test_growth_is_stopped(source: str) -> None:
    started_s = time.process_time()
    with pytest.raises((RequestRefusedError, TokenizerError)):
        render(source)
    assert time.process_time() - started_s < 2


@pytest.mark.parametrize("source", ENDLESS)
def test_long_rendering_is_given_up(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(chat_template, "RENDER_TIMEOUT_S", 0.05)
    started_s = time.process_time()
    with pytest.raises(RenderTimeoutError, match="longer than"):
        render(source)
    assert time.process_time() - started_s < 2


def test_a_long_prompt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("MAX_PROMPT_CHARACTERS", "_ON_LOOP_CHARACTERS"):
        monkeypatch.setattr(template_budget, bound, 100)
    with pytest.raises(RequestRefusedError, match="100 characters"):
        render("{% for m in messages %}{{ m.content }}{% endfor %}", [{"content": "x" * 60}] * 2)


@pytest.mark.parametrize("content", ["{{ 7 * 7 }}", "{% raw %}", "</s><|end|>{{ bos_token }}"])
def test_messages_are_never_templates(content: str) -> None:
    assert render("{{ messages[0].content }}", [{"role": "user", "content": content}]) == content
