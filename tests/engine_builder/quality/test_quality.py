"""What two engines say is compared token by token, judged honestly, and told with examples."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from random import Random

import pytest

from engine_builder.errors import BuilderError
from engine_builder.quality.comparison import Answer, Compared, Token, compare, divergence, right
from engine_builder.quality.prompts import Prompt, read, shipped
from engine_builder.quality.report import as_dict, examples, headline, markdown, record
from engine_builder.quality.verdict import Thresholds, enough, judge, paired_drop, summarise

AT = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)
PARIS = Prompt(({"role": "user", "content": "Capital of France?"},), ("Paris",))


def said(*texts: str, log_prob: float = -0.1) -> Answer:
    return Answer("".join(texts), "stop", tuple(Token(text, log_prob) for text in texts))


def pair(baseline: str, candidate: str) -> Compared:
    return compare(PARIS, Answer(baseline, "stop"), Answer(candidate, "stop"))


def test_agreement_is_up_to_the_first_token_that_differs() -> None:
    found = compare(PARIS, said("It", " is", " Paris", "."), said("It", " is", " Rome", ".", " Yes"))
    assert (found.agreement, found.same, found.by_tokens) == (2 / 5, False, True)
    assert len(found.kl) == 3, "the place of the difference has the same text before it"
    assert len(found.log_prob_drop) == 2
    assert (found.baseline_right, found.candidate_right) == (True, False)


def test_text_that_is_cut_into_other_tokens_is_compared_by_words() -> None:
    found = compare(PARIS, said("3", ",", " 4"), said("3", ",", " ", "4"))
    assert (found.agreement, found.same, found.by_tokens, found.kl) == (1.0, True, False, ())
    assert pair("It is Paris.", "It is Rome.").agreement == 2 / 3


def test_an_answer_cut_off_is_not_the_same() -> None:
    text = "Paris"
    assert not compare(PARIS, Answer(text, "stop"), Answer(text, "length")).same


def test_divergence_is_a_lower_bound_that_is_exact_where_all_is_known() -> None:
    p, q = {"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.5, "b": 0.3, "c": 0.2}
    whole = sum(p[token] * math.log(p[token] / q[token]) for token in p)
    full = [Token("a", math.log(of["a"]), tuple((t, math.log(v)) for t, v in of.items())) for of in (p, q)]
    assert divergence(*full) == pytest.approx(whole)
    chosen = divergence(Token("a", math.log(0.7)), Token("a", math.log(0.5)))
    assert 0 < chosen < whole
    assert divergence(full[0], full[0]) == 0


@pytest.mark.parametrize(
    ("answer", "text", "is_right"),
    [
        ("Paris", "The capital of France is PARIS.", True),
        ("Paris", "Parisian", False),
        ("10", "9 plus 1 is 10.", True),
        ("10", "It is 100.", False),
        ("1, 2, 3", "1\n2\n3", True),
        ("Brasília", "It is Bras\u0069\u0301lia!", True),
        ("New Delhi", "Delhi, the new one", False),
    ],
)
def test_a_right_answer_is_one_with_its_words(answer: str, text: str, is_right: bool) -> None:
    assert right(PARIS._replace(answers=(answer,)), text) is is_right


def test_exact_means_nothing_else() -> None:
    exact = PARIS._replace(match="exact")
    assert right(exact, " paris! ")
    assert not right(exact, "It is Paris")
    assert right(PARIS._replace(answers=()), "anything") is None


def answers(prompts: int, lost: int, gained: int) -> list[Compared]:
    kinds = [("Paris", "Rome")] * lost + [("Rome", "Paris")] * gained
    return [pair(*one) for one in (*kinds, *[("Paris", "Paris")] * (prompts - lost - gained))]


def test_a_small_set_passes_and_says_that_it_cannot_tell() -> None:
    verdict = judge(summarise(answers(60, 0, 0)), Thresholds())
    assert (verdict.passed, verdict.sure) == (True, False)
    assert "60 prompts are too few" in verdict.reasons[0]
    assert f"{enough(0.005)} prompts or more" in verdict.reasons[0]
    large = judge(summarise(answers(enough(0.005), 0, 0)), Thresholds())
    assert (large.passed, large.sure, large.reasons) == (True, True, ())


def test_a_drop_fails_and_says_whether_chance_explains_it() -> None:
    one_lost = judge(summarise(answers(60, 1, 0)), Thresholds())
    assert (one_lost.passed, one_lost.sure) == (False, False)
    many = judge(summarise(answers(200, 20, 1)), Thresholds())
    assert (many.passed, many.sure) == (False, True)
    assert judge(summarise(answers(60, 1, 1)), Thresholds()).passed, "as many gained as lost"
    assert judge(summarise(answers(60, 1, 0)), Thresholds(max_drop=0.05)).passed


def test_the_limits_of_a_drop_hold_about_as_often_as_they_say() -> None:
    """5 % of answers get worse and 2 % better: the limit of 400 sets misses 3 % in about 5 %."""
    dice = Random(3)
    missed = 0
    for _ in range(400):
        changes = [dice.random() for _ in range(150)]
        lost, gained = sum(one < 0.05 for one in changes), sum(one > 0.98 for one in changes)
        missed += paired_drop(150, lost, gained).high < 0.03
    assert 4 <= missed <= 40


def test_other_thresholds_count_where_no_answer_is_known() -> None:
    prompt = PARIS._replace(answers=())
    found = [compare(prompt, said("a", "b"), said("a", "c"))] * 30
    summary = summarise(found)
    with pytest.raises(BuilderError, match="no prompt has a known answer"):
        judge(summary, Thresholds())
    assert not judge(summary, Thresholds(min_agreement=0.9)).passed
    assert judge(summary, Thresholds(min_agreement=0.5)).passed
    wide = [compare(prompt, said("a", log_prob=-0.01), said("a", log_prob=-2.0))] * 3
    assert not judge(summarise(wide), Thresholds(max_kl=0.1)).passed
    with pytest.raises(BuilderError, match="--max-kl"):
        judge(summarise([pair("a", "a")]), Thresholds(max_kl=0.1))


def test_the_report_shows_lost_answers_first() -> None:
    found = answers(40, 2, 1)
    summary = summarise(found)
    verdict = judge(summary, Thresholds())
    assert [one.candidate for one in examples(found)] == ["Rome", "Rome", "Paris"]
    text = markdown("bf16", "fp8|odd", found, summary, verdict, AT)
    assert text.index("**lost**") < text.index("**gained**")
    assert "right: “Paris”" in text
    assert headline(verdict) in text
    told = json.loads(json.dumps(as_dict("bf16", "fp8", found, summary, verdict, AT)))
    assert (told["verdict"]["passed"], len(told["prompts"])) == (False, 40)
    kept = record(summary, verdict, "bf16", AT)
    assert (kept.passed, kept.prompts, kept.baseline_accuracy) == (False, 40, 39 / 40)


def test_the_shipped_set_has_tasks_and_one_right_answer_each() -> None:
    prompts = shipped()
    assert len(prompts) == 60
    assert len({one.task for one in prompts}) >= 6
    for one in prompts:
        assert right(one, one.answers[0])
        assert not right(one, one.text), "repeating the question is no answer"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1"),
        ("[]", "is not an object"),
        ("[" * 100_000, "line 1"),
        ('{"prompt": "a", "messages": []}', "and not both"),
        ('{"answer": "a"}', "and not both"),
        ('{"prompt": 3}', "needs a text"),
        ('{"messages": []}', "needs a text"),
        ('{"prompt": "a", "anwser": "b"}', "unknown field 'anwser'"),
        ('{"prompt": "a", "match": "near"}', "`match` must be"),
        ("", "is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(line)
    with pytest.raises(BuilderError, match="--prompts") as raised:
        read(path)
    assert says in str(raised.value)
    assert raised.value.remedy
