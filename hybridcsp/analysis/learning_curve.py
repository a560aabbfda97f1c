"""Record the learning curve of a training, plot it and assess it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hybridcsp.analysis.plots import save_figure
from hybridcsp.training.epoch import MEASURES, Epoch
from hybridcsp.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Fewest epochs that are assessed.
_SHORTEST = 4

#: Fraction of the total decrease of the held-out loss that, in the last quarter of the epochs, counts as "still
#: falling".
_FALLING = 0.02

#: Fraction of the total decrease by which the last loss exceeds the lowest if the model was overfitted.
_RISING = 0.05

# Columns of the table in addition to losses and measures.
_BEFORE, _AFTER = ("part", "epoch", "seconds"), ("best", "at_start", "warning")

_BARS = "█▇▆▅▄▃▂▁"
_WIDEST = 60


class LearningCurve:
    """The epochs of one training, including those of earlier processes that were stopped.

    Parameters
    ----------
    file
        CSV file with a row for each epoch, rewritten after each.
    resumed
        Whether the epochs already in the file belong to the same training.
    """

    def __init__(self, file: Path, *, resumed: bool = False) -> None:
        self._file = file
        self._epochs: dict[tuple[str, int], Epoch] = {}
        # A file that was damaged or edited by hand is ignored: the curve then begins with the next epoch.
        if resumed and file.is_file():
            with suppress(OSError, ValueError, KeyError, TypeError), file.open(encoding="utf-8", newline="") as opened:
                for row in csv.DictReader(opened):
                    self._keep(_epoch(row))

    def add(self, epoch: Epoch) -> None:
        """Add an epoch and rewrite the file."""
        self._keep(epoch)
        with atomic_write(self._file, key="output") as opened:
            names = ["train", "held_out"]
            names += dict.fromkeys(name for one in self._epochs.values() for name in one.losses if name not in names)
            table = csv.writer(opened, lineterminator="\n")
            table.writerow([*_BEFORE, *names, *_AFTER])
            for one in self._epochs.values():
                losses = [one.losses.get(name, "") for name in names]
                start = "" if one.at_start is None else one.at_start
                table.writerow(
                    [one.part, one.number, round(one.seconds, 1), *losses, int(one.best), start, one.warning]
                )

    @property
    def parts(self) -> dict[str, list[Epoch]]:
        """The epochs of each part of the model, in order."""
        parts: dict[str, list[Epoch]] = {}
        for epoch in self._epochs.values():
            parts.setdefault(epoch.part, []).append(epoch)
        return {part: sorted(epochs, key=lambda epoch: epoch.number) for part, epochs in parts.items()}

    def lines(self) -> list[str]:
        """Return the held-out loss, or the measures, of each part as sparklines with their first and last values."""
        found = []
        for part, epochs in self.parts.items():
            names = MEASURES if _is_measured(epochs) else ("held_out",)
            for name in names:
                values = [epoch.losses[name] for epoch in epochs if name in epoch.losses]
                if values:
                    shown = name.capitalize() if name in MEASURES else "Held-out loss"
                    of = f" of {part}" if part else ""
                    found.append(f"{shown}{of}  {values[0]:.4f} {bars(values)} {values[-1]:.4f}")
        return found

    def draw(self, output: Path, title: str) -> None:
        """Plot losses, and measures of samples if there are any, to a PNG, PDF or SVG file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        parts = self.parts
        rows = 2 if any(_is_measured(epochs) for epochs in parts.values()) else 1
        figure = Figure(figsize=(1 + 4.5 * len(parts), 1 + 3 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title)
        grid = figure.subplots(rows, len(parts), squeeze=False)
        for number, (part, epochs) in enumerate(parts.items()):
            if _is_measured(epochs):
                _plot_competition(grid[0][number], grid[1][number], epochs)
            else:
                _plot_losses(grid[0][number], epochs)
            grid[0][number].set_title(part)
        save_figure(figure, output)

    def _keep(self, epoch: Epoch) -> None:
        # Epochs after the last checkpoint of an earlier process are repeated and replace the old ones.
        self._epochs[epoch.part, epoch.number] = epoch


def _is_measured(epochs: Sequence[Epoch]) -> bool:
    """Return whether samples were measured after each epoch, because networks competed."""
    return any("validity" in epoch.losses for epoch in epochs)


def _plot_losses(axes: Axes, epochs: Sequence[Epoch]) -> None:
    numbers = [epoch.number for epoch in epochs]
    axes.plot(numbers, [epoch.losses.get("train", math.nan) for epoch in epochs], label="training set")
    axes.plot(numbers, [_held_out(epoch) for epoch in epochs], label="held-out set")
    best = best_epoch(epochs)
    axes.plot(best.number, _held_out(best), "o", color="black", label=f"best: epoch {best.number}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()


def _plot_competition(above: Axes, below: Axes, epochs: Sequence[Epoch]) -> None:
    """Plot the losses of networks that compete above, and the measures of their samples below."""
    numbers = [epoch.number for epoch in epochs]
    names = dict.fromkeys(name for epoch in epochs for name in epoch.losses)
    for name in names:
        axes = below if name in MEASURES else above
        if name != "held_out" and " " not in name:  # terms of the losses are in the table
            axes.plot(numbers, [epoch.losses.get(name, math.nan) for epoch in epochs], label=name)
    best = best_epoch(epochs)
    below.axvline(best.number, color="black", linestyle=":", label=f"best: epoch {best.number}")
    warned = [epoch.number for epoch in epochs if epoch.warning]
    for axes in (above, below):
        for i, number in enumerate(warned):
            axes.axvspan(
                number - 0.5, number + 0.5, color="red", alpha=0.15, linewidth=0, label=None if i else "warning"
            )
        axes.legend()
    above.set_ylabel("loss")
    below.set_xlabel("epoch")
    below.set_ylabel("share")


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the lowest held-out loss; its weights are kept."""
    return min(epochs, key=_held_out)


def bars(values: Sequence[float]) -> str:
    """Return values as a sparkline; of many values, evenly spaced ones are shown."""
    step = max(1, -(-len(values) // _WIDEST))
    shown = [*values[:-1:step], values[-1]]
    low, high = min(shown), max(shown)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((high - value) * scale)] for value in shown)


def verdict(epochs: Sequence[Epoch], *, pretrained: bool) -> str:
    """Assess one part of a training: whether it has converged, and what would improve it.

    Parameters
    ----------
    epochs
        Epochs in order.
    pretrained
        Whether the training started from pretrained weights.
    """
    if _is_measured(epochs):
        return _verdict_on_competition(epochs)
    best = best_epoch(epochs)
    losses = [_held_out(epoch) for epoch in epochs]
    words = [f"best epoch {best.number} of {epochs[-1].number}, held-out loss {_held_out(best):.4f}"]
    start = epochs[-1].at_start
    if pretrained and start is not None:
        if _held_out(best) < start:
            words.append(f"better than the initial weights on the held-out set ({start:.4f})")
        else:
            words.append(
                f"not better than the initial weights on the held-out set ({start:.4f}): keep the initial weights, or "
                "try a smaller --learning-rate"
            )
    before = start if start is not None and pretrained else losses[0]
    fall = max(before, losses[0]) - min(losses)
    if len(epochs) < _SHORTEST:
        words.append(f"too few epochs to assess convergence: use --epochs {max(20, 4 * len(epochs))}")
        return "; ".join(words)
    quarter = max(1, len(losses) // 4)
    late = min(losses[:-quarter]) - min(losses[-quarter:])
    if fall > 0 and late > _FALLING * fall:
        words.append(
            f"still falling (by {late:.4f} in the last {quarter} epochs): train longer with --epochs {2 * len(epochs)}"
        )
    elif fall > 0 and losses[-1] - min(losses) > _RISING * fall and _train(epochs[-1]) < _train(best):
        words.append(
            f"overfitted after that (held-out loss rose by {losses[-1] - min(losses):.4f}); the weights of epoch "
            f"{best.number} are kept: use more crystals, or --set weight_decay=0.1"
        )
    else:
        words.append("no longer falling: more epochs will hardly help, more or different crystals may")
    return "; ".join(words)


def _verdict_on_competition(epochs: Sequence[Epoch]) -> str:
    """Assess networks that compete by the measures of their samples."""
    best = best_epoch(epochs)
    shares = ", ".join(f"{name} {100 * best.losses[name]:.0f} %" for name in MEASURES if name in best.losses)
    words = [f"best epoch {best.number} of {epochs[-1].number}, {shares}"]
    warned = [epoch for epoch in epochs if epoch.warning]
    if warned:
        first, last = warned[0].number, warned[-1].number
        when = f"epoch {first}" if first == last else f"{len(warned)} epochs from {first} to {last}"
        words.append(
            f"{warned[-1].warning} ({when}); the weights of epoch {best.number} are kept: try a smaller "
            "--learning-rate or another --seed"
        )
    losses = [_held_out(epoch) for epoch in epochs]
    quarter = max(1, len(losses) // 4)
    if len(epochs) < _SHORTEST:
        words.append(f"too few epochs to assess convergence: use --epochs {max(20, 4 * len(epochs))}")
    elif (late := min(losses[:-quarter]) - min(losses[-quarter:])) > _FALLING * max(losses[0] - min(losses), 1e-9):
        words.append(
            f"still improving (by {late:.4f} in the last {quarter} epochs): train longer with --epochs "
            f"{2 * len(epochs)}"
        )
    else:
        words.append("no longer improving: more epochs will hardly help, more or different crystals may")
    return "; ".join(words)


def _held_out(epoch: Epoch) -> float:
    return float(epoch.losses.get("held_out", math.inf))


def _train(epoch: Epoch) -> float:
    return float(epoch.losses.get("train", math.inf))


def _epoch(row: dict[str, str]) -> Epoch:
    losses = {name: float(text) for name, text in row.items() if name not in (*_BEFORE, *_AFTER) and text}
    start = float(row["at_start"]) if row["at_start"] else None
    return Epoch(
        number=int(row["epoch"]),
        losses=losses,
        seconds=float(row["seconds"]),
        best=row["best"] == "1",
        part=row["part"],
        at_start=start,
        warning=row.get("warning") or "",
    )
