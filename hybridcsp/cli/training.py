"""Steps of a training that the command line has in common for all models: folder, progress and learning curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hybridcsp.cli.console import console
from hybridcsp.cli.progress import busy
from hybridcsp.errors import InputError
from hybridcsp.utils.files import make_folder

if TYPE_CHECKING:
    from hybridcsp.analysis.learning_curve import LearningCurve
    from hybridcsp.training.epoch import Epoch

#: Name of the checkpoint in the output folder.
CHECKPOINT = "checkpoint.safetensors"

#: Names of the learning curve in the output folder, as a table and as a picture.
CURVE = "curve.csv"
PICTURE = "curve.png"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Represent what a user has chosen for the training of any model.

    Attributes
    ----------
    data
        Files and folders of crystals.
    output
        Folder for the weights; ``None`` for the default.
    settings
        Settings of the training.
    max_atoms
        Largest number of atoms of a crystal.
    plot
        File of the plotted learning curve; ``None`` for the default.
    seed
        Random seed.
    """

    data: list[Path]
    output: Path | None
    settings: Mapping[str, Any]
    max_atoms: int
    plot: Path | None
    seed: int


def checked_output(choices: Choices, name: str) -> tuple[Path, Path]:
    """Return the folder for the weights of a model and the file of the learning curve.

    Raises
    ------
    InputError
        If the folder has weights already, or the file is no picture.
    """
    from hybridcsp.analysis.plots import check_picture

    output = choices.output or Path(f"{name}-trained")
    picture = choices.plot or output / PICTURE
    check_picture(picture, "--plot")
    if (output / "card.json").exists():
        raise InputError("--output", output, "a new folder; this one already contains weights")
    return output, picture


def run_training(fit: Callable[[Path, Callable[[Epoch], None]], None], output: Path) -> LearningCurve:
    """Train a model with a checkpoint in its folder, and return the learning curve; exit with 130 after Ctrl-C.

    Parameters
    ----------
    fit
        Function that trains the model, given the file of the checkpoint and a function to call after each epoch.
    output
        Folder.
    """
    from hybridcsp.analysis.learning_curve import LearningCurve

    try:
        with _folder(output):
            curve = LearningCurve(output / CURVE, resumed=any(output.glob(f"*{CHECKPOINT}")))
            with busy("encoding the crystals") as show:

                def on_epoch(epoch: Epoch) -> None:
                    curve.add(epoch)
                    _print_epoch(epoch)
                    show(f"{epoch.part + ', ' if epoch.part else ''}epoch {epoch.number + 1}")

                fit(output / CHECKPOINT, on_epoch)
    except KeyboardInterrupt:
        console.print("Interrupted. Continue with the same command.")
        raise typer.Exit(130) from None
    return curve


def finish(curve: LearningCurve, output: Path, picture: Path, title: str, *, pretrained: bool) -> None:
    """Remove the checkpoints of a training whose weights are written, and plot and assess its learning curve."""
    from hybridcsp.analysis.learning_curve import verdict

    for checkpoint in output.glob(f"*{CHECKPOINT}"):
        checkpoint.unlink()
    if not curve.parts:
        return
    curve.draw(picture, title)
    for line in curve.lines():
        console.print(line, highlight=False, soft_wrap=True)
    for part, done in curve.parts.items():
        assessment = verdict(done, pretrained=pretrained)
        console.print(f"Assessment{f' of {part}' if part else ''}: {assessment}.", highlight=False, soft_wrap=True)
    console.print(f"Wrote the learning curve to {picture}", highlight=False, soft_wrap=True)


@contextmanager
def errors_of_options(choices: Choices, data: str = "--data") -> Iterator[None]:
    """Turn errors of a model about its crystals and settings into errors about options.

    Parameters
    ----------
    choices
        What the user has chosen.
    data
        Option or argument that names the crystals.
    """
    try:
        yield
    except InputError as error:
        raise _about_option(error, choices, data) from error


def _about_option(error: InputError, choices: Choices, data: str) -> InputError:
    if error.key in ("examples", "data"):
        return error.renamed(data, ", ".join(map(str, choices.data)))
    if error.key == "setting":
        return error.renamed("--set")
    if error.key in choices.settings and error.key not in ("epochs", "learning_rate"):
        return error.renamed(f"--set {error.key}")
    return error


def _print_epoch(epoch: Epoch) -> None:
    losses = "  ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
    best = "  best" if epoch.best else ""
    what = f"{epoch.part}, epoch" if epoch.part else "epoch"
    console.print(f"{what} {epoch.number}  {epoch.seconds:.0f} s  {losses}{best}", highlight=False, soft_wrap=True)
    if epoch.warning:
        console.print(f"Warning: {epoch.warning}.", highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and remove it if an error leaves it empty."""
    new = not path.exists()
    make_folder(path, key="--output")
    try:
        yield
    except BaseException:
        if new and not any(path.iterdir()):
            path.rmdir()
        raise
