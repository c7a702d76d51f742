"""Quality report: verdict, figures and examples of differences, as Markdown and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from engine_builder.quality.comparison import Compared
from engine_builder.quality.verdict import Summary, Verdict
from model_registry.engines import QualityRecord

EXAMPLES = 10
_LONGEST = 400
"""Characters of an answer that are shown."""


def headline(verdict: Verdict) -> str:
    """One word, or a few."""
    word = "passed" if verdict.passed else "failed"
    return word if verdict.sure else f"{word}, but not beyond chance"


def record(summary: Summary, verdict: Verdict, baseline: str, at: datetime) -> QualityRecord:
    """As the registry keeps it with the engine."""
    return QualityRecord(
        passed=verdict.passed,
        at=at,
        baseline=baseline,
        prompts=summary.prompts,
        greedy_agreement=summary.agreement.value,
        accuracy=summary.candidate_accuracy,
        baseline_accuracy=summary.baseline_accuracy,
        mean_kl=summary.mean_kl,
    )


def rows(summary: Summary) -> Iterator[tuple[str, str]]:
    """Figures with their names."""
    unit = "tokens" if summary.by_tokens else "words; their tokens are not told, or not cut alike"
    agreement = summary.agreement
    yield "prompts", str(summary.prompts)
    yield "whole answers equal", f"{summary.same:.1%}"
    yield (
        f"greedy agreement, up to the first difference ({unit})",
        f"{agreement.value:.1%} [{agreement.low:.1%}, {agreement.high:.1%}]",
    )
    drop, before = summary.drop, summary.baseline_accuracy
    if drop is not None and before is not None:
        after = summary.candidate_accuracy or 0.0
        pairs = f"{summary.lost} lost, {summary.gained} gained"
        yield f"accuracy, of {summary.answered} with known answers", f"{before:.1%} → {after:.1%}"
        yield "drop of accuracy", f"{drop.value:.1%} [{drop.low:.1%}, {drop.high:.1%}]; {pairs}"
    if summary.mean_kl is not None:
        yield "mean KL divergence, at least (nats)", f"{summary.mean_kl:.4g}"
    if summary.mean_log_prob_drop is not None:
        yield "mean log-probability lost, of tokens that both chose", f"{summary.mean_log_prob_drop:.4g}"


def examples(found: Sequence[Compared]) -> list[Compared]:
    """Differences worth reading: answers lost first, then gained ones, then those that part soonest."""
    differing = [one for one in found if not one.same]
    return sorted(differing, key=lambda one: (_rank(one), one.agreement))[:EXAMPLES]


def markdown(
    baseline: str, candidate: str, found: Sequence[Compared], summary: Summary, verdict: Verdict, at: datetime
) -> str:
    """For people."""
    lines = [
        f"# Quality of {candidate} beside {baseline}",
        "",
        f"**{headline(verdict)}** · {at.isoformat(timespec='seconds')}",
        "",
        *(f"- {reason}" for reason in verdict.reasons),
        "",
        "| figure | value [95 %] |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows(summary)),
        "",
    ]
    shown = examples(found)
    if shown:
        lines += [f"## {len(shown)} of {sum(not one.same for one in found)} differences", ""]
    for one in shown:
        lines += [
            f"**{_told(one)}** {_quoted(one.prompt.text)}",
            "",
            f"- baseline: {_quoted(one.baseline)}",
            f"- candidate: {_quoted(one.candidate)}",
            *([f"- right: {_quoted(' | '.join(one.prompt.answers))}"] if one.prompt.answers else []),
            "",
        ]
    return "\n".join(lines)


def as_dict(
    baseline: str, candidate: str, found: Sequence[Compared], summary: Summary, verdict: Verdict, at: datetime
) -> dict[str, Any]:
    """For programs, with every prompt."""
    return {
        "baseline": baseline,
        "candidate": candidate,
        "at": at.isoformat(),
        "verdict": {**verdict._asdict(), "told": headline(verdict)},
        "summary": {
            **summary._asdict(),
            "agreement": summary.agreement._asdict(),
            "drop": None if summary.drop is None else summary.drop._asdict(),
        },
        "record": record(summary, verdict, baseline, at).model_dump(mode="json"),
        "prompts": [
            {
                "task": one.prompt.task,
                "prompt": one.prompt.text,
                "answers": list(one.prompt.answers),
                "baseline": one.baseline,
                "candidate": one.candidate,
                "same": one.same,
                "agreement": one.agreement,
                "baseline_right": one.baseline_right,
                "candidate_right": one.candidate_right,
            }
            for one in found
        ],
    }


def _rank(one: Compared) -> int:
    if one.baseline_right == one.candidate_right:
        return 2
    return 0 if one.baseline_right else 1


def _told(one: Compared) -> str:
    return ("lost", "gained", "differs")[_rank(one)]


def _quoted(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "“" + " ".join(cut.split()).replace("|", "\\|") + "”"
