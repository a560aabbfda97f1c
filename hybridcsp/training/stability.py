"""Signs that networks which compete no longer learn: collapse of the generator, and divergence of the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

# Number of successive epochs after which a sign counts.
_LASTING = 5
# Diversity of the samples, relative to the crystals', below which a generator has collapsed.
_ALIKE = 0.1
# Fraction of the best coverage of all epochs below which a generator has collapsed; and the least best coverage.
_LOST, _ONCE_COVERED = 0.25, 0.1
# Factor between a loss and the median of those before that counts as divergence, and the smallest such loss.
_EXPLODED, _LARGE = 30.0, 10.0
# Distance from the lowest loss of a critic at which it recognises all samples.
_CERTAIN = 0.01

Losses = Mapping[str, float]


def collapse(history: Sequence[Losses]) -> str:
    """Return why the generator has collapsed, or an empty text.

    Parameters
    ----------
    history
        Measures of the samples of each epoch: ``"coverage"``, the share of the crystals that samples resemble, and
        ``"diversity"``, the mean difference between samples relative to that between crystals.
    """
    last = history[-_LASTING:]
    if len(last) < _LASTING:
        return ""
    diversity = max(losses.get("diversity", math.inf) for losses in last)
    if diversity < _ALIKE:
        return f"collapse: the samples of the last {_LASTING} epochs are almost equal (diversity {diversity:.2f})"
    best = max(losses.get("coverage", 0.0) for losses in history)
    coverage = max(losses.get("coverage", 0.0) for losses in last)
    if best >= _ONCE_COVERED and coverage < _LOST * best:
        return (
            f"collapse: the samples of the last {_LASTING} epochs cover {100 * coverage:.0f} % of the crystals, after "
            f"{100 * best:.0f} %"
        )
    return ""


def divergence(history: Sequence[Losses], names: Sequence[str], won: float | None, lost_steps: int) -> str:
    """Return why the losses have diverged, or an empty text.

    Parameters
    ----------
    history
        Losses of each epoch.
    names
        Names of the losses of the networks that compete, the critic's first.
    won
        Lowest possible loss of the critic, or ``None``.
    lost_steps
        Number of steps of the last epoch whose gradients were not finite.
    """
    if lost_steps:
        return f"divergence: the gradients of {lost_steps} steps were not finite"
    for name in names:
        values = [abs(losses[name]) for losses in history if name in losses]
        if not values or name not in history[-1]:
            continue
        if not math.isfinite(values[-1]):
            return f"divergence: the loss of the {name} is not finite"
        before = values[:-1]
        if len(before) >= _LASTING and values[-1] > max(_LARGE, _EXPLODED * median(before)):
            return f"divergence: the loss of the {name} is {values[-1]:.3g}, after {median(before):.3g} before"
    last = [losses.get(names[0], math.inf) for losses in history[-_LASTING:]]
    if won is not None and len(last) == _LASTING and max(last) < won + _CERTAIN:
        return f"divergence: the {names[0]} recognises all samples, so that the generator does not learn"
    return ""
