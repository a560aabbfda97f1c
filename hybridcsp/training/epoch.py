"""Records of the epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Represent the progress of a training after one pass over the training set.

    Attributes
    ----------
    number
        Number of the epoch, from 1.
    losses
        Mean losses by name; ``"train"`` and ``"held_out"`` are always present.
    seconds
        Duration of the whole training until now, in earlier processes too.
    best
        Whether the held-out loss is the lowest until now.
    part
        Name of the network that is being trained, if the model trains several one after the other.
    at_start
        Held-out loss of the initial weights; ``None`` if nothing is held out.
    """

    number: int
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: bool = False
    part: str = ""
    at_start: float | None = None
