"""Bags of positive-unlabelled learning: made crystals, and as many of the others that are taken for not made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.predictors.labelled import Labelled

#: Fewest crystals that are known to be made, and fewest others.
FEWEST = 5

#: Value of the mark of a crystal that has been made, and of one of which only a computation is known.
MADE, UNLABELLED = 0.0, 1.0


def are_made(data: Labelled) -> NDArray[np.bool_]:
    """Return which crystals have been made, shape ``(n,)``.

    Raises
    ------
    InputError
        If a value is neither 0 (made) nor 1 (only computed), or there are too few crystals of either kind.
    """
    other = [value for value in data.values if value not in (MADE, UNLABELLED)]
    if other:
        reason = f"it must be 0 for a crystal that has been made and 1 for one that is only computed, not {other[0]:g}"
        raise InputError("property", data.name, reason=reason)
    made = data.values == MADE
    count = int(made.sum())
    if count < FEWEST:
        reason = (
            f"{count} crystals of {len(made)} have {data.name} = 0, which marks those that have been made; "
            f"{FEWEST} are needed at least"
        )
        raise InputError("property", data.name, reason=reason)
    if len(made) - count < FEWEST:
        reason = (
            f"{count} crystals of {len(made)} have been made ({data.name} = 0), and {FEWEST} others are needed at "
            f"least; add a file of crystals of which it is not known, whose {data.name} is 1 or missing, for example "
            "substituted crystals from hybridcsp dataset"
        )
        raise InputError("data", len(made) - count, reason=reason)
    return np.asarray(made)


def draw_bags(made: NDArray[np.bool_], count: int, size: int | None, seed: int) -> list[NDArray[np.int_]]:
    """Draw the crystals of each bag.

    A bag has equal numbers of made and other crystals (Mordelet and Vert, doi:10.1016/j.patrec.2013.06.010).

    Parameters
    ----------
    made
        Which crystals have been made, shape ``(n,)``.
    count
        Number of bags.
    size
        Largest number of crystals of each kind in a bag; ``None`` for all that have been made.
    seed
        Random seed; the k-th bag does not depend on their number.

    Returns
    -------
    list of array
        Positions of the crystals of each bag. No crystal is in a bag twice, unless there are fewer others than made
        ones.
    """
    positive, unlabelled = np.flatnonzero(made), np.flatnonzero(~made)
    each = len(positive) if size is None else min(size, len(positive))
    bags = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        chosen = positive if each == len(positive) else rng.choice(positive, each, replace=False)
        others = rng.choice(unlabelled, each, replace=each > len(unlabelled))
        bags.append(np.sort(np.concatenate([chosen, others])))
    return bags


def equal_weights(made: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return weights with which made and other crystals weigh the same in total, of mean 1, shape ``(n,)``."""
    shares = {True: made.mean(), False: 1 - made.mean()}
    return np.array([0.5 / shares[bool(one)] for one in made])


class MadeOrNot(torch.nn.Module):
    """Cross entropy of the probability that a crystal has been made, for the logit that a network returns."""

    def forward(self, logits: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Return the loss of each crystal, shape ``(n,)``."""
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, made, reduction="none")


def settings_of_bags(given: Mapping[str, object], usual: int | None) -> int | None:
    """Return the size of bags from the settings of a training.

    Raises
    ------
    InputError
        If it is not a positive whole number.
    """
    size = given.get("bag", usual)
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError("bag", size, "a whole number above 0, the largest number of made crystals in a bag")
    return size
