"""Tests that may be looked at as often as one likes: their error does not grow with the looks. Pure.

Each compares a Bernoulli mixture (a beta prior over the rate, Jeffreys') with the best that the hypothesis
can do: a test martingale at every true rate, which by Ville's inequality exceeds 1/p with probability p at
most, ever. It depends on the counts alone, whatever the order in which they came, so that counts of many
workers may be added. See Howard, Ramdas, McAuliffe and Sekhon 2021 and, for the product over two samples,
Kaufmann and Koolen 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, lgamma, log, sqrt

from model_registry.rollout_evidence.evidence import Trials

_PRIOR = 0.5
_GOLDEN = (sqrt(5) - 1) / 2


def worse_than(candidate: Trials, stable: Trials, margin: float) -> float:
    """Log of the evidence against "the candidate's rate is at most the stable one's and `margin`"."""
    return _two_sample(candidate, stable, margin, worse=True)


def better_than(candidate: Trials, stable: Trials, margin: float) -> float:
    """Log of the evidence against "the candidate's rate is at least the stable one's and `margin`"."""
    return _two_sample(candidate, stable, margin, worse=False)


def mostly(found: int, of: int) -> float:
    """Log of the evidence against "at most half"."""
    if 2 * found <= of:
        return 0.0
    return max(0.0, _mixture(found, of) - of * log(0.5))


def seldom(found: int, of: int) -> float:
    """Log of the evidence against "at least half"."""
    return mostly(of - found, of)


def progress(log_evidence: float, error: float) -> float:
    """How far evidence has come towards what an error probability asks for; 1 is there."""
    return min(1.0, max(0.0, log_evidence) / log(1 / error))


def _two_sample(candidate: Trials, stable: Trials, margin: float, *, worse: bool) -> float:
    if candidate.of == 0:
        return 0.0
    seen = candidate.found / candidate.of - (stable.found / stable.of if stable.of else 0.0)
    if (seen <= margin) if worse else (seen >= margin and stable.of > 0):
        return 0.0

    def likelihood(rate: float) -> float:
        """Of all counts, with the stable rate `rate` and the candidate's `margin` above it."""
        return _likelihood(candidate, rate + margin) + _likelihood(stable, rate)

    best = _highest(likelihood, 0.0, 1.0 - margin)
    mixture = _mixture(candidate.found, candidate.of) + _mixture(stable.found, stable.of)
    return max(0.0, mixture - best)


def _likelihood(trials: Trials, rate: float) -> float:
    missed = trials.of - trials.found
    if (trials.found and rate <= 0) or (missed and rate >= 1):
        return -inf
    return (trials.found * log(rate) if trials.found else 0.0) + (missed * log(1 - rate) if missed else 0.0)


def _mixture(found: int, of: int) -> float:
    """Log of the likelihood, averaged over the prior."""
    return _log_beta(found + _PRIOR, of - found + _PRIOR) - _log_beta(_PRIOR, _PRIOR)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _highest(function: Callable[[float], float], low: float, high: float) -> float:
    """The greatest value of a concave function, to well below what decides."""
    best = max(function(low), function(high))
    for _ in range(48):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        value_left, value_right = function(left), function(right)
        best = max(best, value_left, value_right)
        if value_left < value_right:
            low = left
        else:
            high = right
    return best
