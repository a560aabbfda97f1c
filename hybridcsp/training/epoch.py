"""Records of the epochs of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

#: Names of the measures of samples among the losses of networks that compete, each between 0 and 1.
MEASURES = ("contents", "validity", "coverage", "diversity")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Represent the progress of a training after one pass over the training set.

    Attributes
    ----------
    number
        Number of the epoch, from 1.
    losses
        Mean losses by name; ``"held_out"`` is always present, and ``"train"`` if one loss is minimised. Networks that
        compete have losses of their own, and measures of their samples.
    seconds
        Duration of the whole training until now, in earlier processes too.
    best
        Whether the held-out loss is the lowest until now.
    part
        Name of the network that is being trained, if the model trains several one after the other.
    at_start
        Held-out loss of the initial weights; ``None`` if nothing is held out.
    warning
        What went wrong in this epoch; empty if nothing did.
    """

    number: int
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: bool = False
    part: str = ""
    at_start: float | None = None
    warning: str = ""


def in_part(
    part: str, checkpoint: Path | None, on_epoch: Callable[[Epoch], None] | None
) -> tuple[Path | None, Callable[[Epoch], None] | None]:
    """Return the checkpoint of one of several networks that are trained in turn, and the function for its epochs.

    Parameters
    ----------
    part
        Name of the network.
    checkpoint
        File in whose folder the checkpoints of the whole training are kept.
    on_epoch
        Function that is called after each epoch, with the name of the network.
    """
    own = None if checkpoint is None else checkpoint.with_name(f"{part}-{checkpoint.name}")
    return own, None if on_epoch is None else lambda epoch: on_epoch(replace(epoch, part=part))
