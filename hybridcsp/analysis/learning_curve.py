"""The course of a training: kept as a table, drawn, and judged."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hybridcsp.analysis.plots import save_figure
from hybridcsp.generators.base import Epoch
from hybridcsp.utils.files import atomic_write

#: Epochs below which a curve is too short to judge.
_SHORTEST = 4

#: Shares of all that the held-out loss has fallen: in the last quarter of the epochs, where more is "still falling",
#: and above the best epoch at the end, where more is overfitting.
_FALLING = 0.02
_RISING = 0.05

_BARS = "█▇▆▅▄▃▂▁"
_WIDEST = 60


class LearningCurve:
    """Epochs of one training, also of an earlier process of it.

    Parameters
    ----------
    file
        A CSV file with a row for each epoch, written anew after each.
    going_on
        Whether the epochs that the file holds belong to the same training.
    """

    def __init__(self, file: Path, *, going_on: bool = False) -> None:
        self._file = file
        self._epochs: dict[tuple[str, int], Epoch] = {}
        # A table that was changed by hand is not worth an error: the curve then begins here.
        if going_on and file.is_file():
            with suppress(OSError, ValueError, KeyError), file.open(encoding="utf-8", newline="") as opened:
                for row in csv.DictReader(opened):
                    self._keep(_epoch(row))

    def add(self, epoch: Epoch) -> None:
        """Take in an epoch and write the file."""
        self._keep(epoch)
        with atomic_write(self._file, key="output") as opened:
            table = csv.writer(opened, lineterminator="\n")
            table.writerow(["part", "epoch", "seconds", "train", "held_out", "best", "at_start"])
            for one in self._epochs.values():
                losses = (one.losses.get("train", ""), one.losses.get("held_out", ""))
                start = "" if one.at_start is None else one.at_start
                table.writerow([one.part, one.number, round(one.seconds, 1), *losses, int(one.best), start])

    @property
    def parts(self) -> dict[str, list[Epoch]]:
        """The epochs of each part that was trained, in order."""
        parts: dict[str, list[Epoch]] = {}
        for epoch in self._epochs.values():
            parts.setdefault(epoch.part, []).append(epoch)
        return {part: sorted(epochs, key=lambda epoch: epoch.number) for part, epochs in parts.items()}

    def lines(self) -> list[str]:
        """Return the held-out loss of each part as a line of bars."""
        found = []
        for part, epochs in self.parts.items():
            losses = [_held_out(epoch) for epoch in epochs]
            found.append(f"{part + ': ' if part else ''}{losses[0]:.4f} {bars(losses)} {losses[-1]:.4f}")
        return found

    def draw(self, output: Path, title: str) -> None:
        """Draw training and held-out losses to a PNG, PDF or SVG file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        parts = self.parts
        figure = Figure(figsize=(1 + 4.5 * len(parts), 4), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title)
        for axes, (part, epochs) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
            numbers = [epoch.number for epoch in epochs]
            axes.plot(numbers, [epoch.losses.get("train") for epoch in epochs], label="training part")
            axes.plot(numbers, [_held_out(epoch) for epoch in epochs], label="held-out part")
            best = best_epoch(epochs)
            axes.plot(best.number, _held_out(best), "o", color="black", label=f"best: epoch {best.number}")
            axes.set_xlabel("epoch")
            axes.set_ylabel("loss")
            axes.set_title(part)
            axes.legend()
        save_figure(figure, output)

    def _keep(self, epoch: Epoch) -> None:
        # An epoch that was done after the last checkpoint of an earlier process is done again.
        self._epochs[epoch.part, epoch.number] = epoch


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the lowest held-out loss, whose weights are kept."""
    return min(epochs, key=_held_out)


def bars(values: Sequence[float]) -> str:
    """Return values as a line of bars, the highest in full; of many, evenly spaced ones."""
    step = max(1, -(-len(values) // _WIDEST))
    shown = [*values[:-1:step], values[-1]]
    low, high = min(shown), max(shown)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((high - value) * scale)] for value in shown)


def verdict(epochs: Sequence[Epoch], *, pretrained: bool) -> str:
    """Judge one part of a training: whether it had ended, and what would help.

    Parameters
    ----------
    epochs
        In order.
    pretrained
        Whether it began with weights that had learned already.
    """
    best = best_epoch(epochs)
    losses = [_held_out(epoch) for epoch in epochs]
    words = [f"best epoch {best.number} of {epochs[-1].number}, held-out loss {_held_out(best):.4f}"]
    start = epochs[-1].at_start
    if pretrained and start is not None:
        if _held_out(best) < start:
            words.append(f"better than the starting weights on the held-out part ({start:.4f})")
        else:
            words.append(
                f"no better than the starting weights on the held-out part ({start:.4f}): keep those, or try a smaller "
                "--learning-rate"
            )
    before = start if start is not None and pretrained else losses[0]
    fall = max(before, losses[0]) - min(losses)
    if len(epochs) < _SHORTEST:
        words.append(f"too few epochs to tell whether it has ended: --epochs {max(20, 4 * len(epochs))}")
        return "; ".join(words)
    quarter = max(1, len(losses) // 4)
    late = min(losses[:-quarter]) - min(losses[-quarter:])
    if fall > 0 and late > _FALLING * fall:
        words.append(
            f"still falling (by {late:.4f} in the last {quarter} epochs): train longer, --epochs {2 * len(epochs)}"
        )
    elif fall > 0 and losses[-1] - min(losses) > _RISING * fall and _train(epochs[-1]) < _train(best):
        words.append(
            f"overfitted from then on (by {losses[-1] - min(losses):.4f}), so that the weights of epoch {best.number} "
            "are kept: more crystals help, or --set weight_decay=0.1"
        )
    else:
        words.append("it has levelled off: more epochs will hardly help, more or other crystals may")
    return "; ".join(words)


def _held_out(epoch: Epoch) -> float:
    return float(epoch.losses.get("held_out", math.inf))


def _train(epoch: Epoch) -> float:
    return float(epoch.losses.get("train", math.inf))


def _epoch(row: dict[str, str]) -> Epoch:
    losses = {name: float(row[name]) for name in ("train", "held_out") if row[name]}
    start = float(row["at_start"]) if row["at_start"] else None
    return Epoch(
        number=int(row["epoch"]),
        losses=losses,
        seconds=float(row["seconds"]),
        best=row["best"] == "1",
        part=row["part"],
        at_start=start,
    )
