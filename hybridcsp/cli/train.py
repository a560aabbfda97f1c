"""Provide the command ``hybridcsp train``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.generators import DATA, GENERATOR, MAX_ATOMS, SEED, check_exists
from hybridcsp.cli.output import as_argument
from hybridcsp.cli.progress import busy
from hybridcsp.cli.values import read_number
from hybridcsp.errors import InputError
from hybridcsp.utils.files import make_folder

if TYPE_CHECKING:
    from hybridcsp.training.epoch import Epoch

#: Name of the checkpoint in the output folder.
CHECKPOINT = "checkpoint.safetensors"

#: Names of the learning curve in the output folder, as a table and as a picture.
CURVE = "curve.csv"
PICTURE = "curve.png"


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp train wyckoff --data mp20.extxyz --data my_structures/ --output my_wyckoff\n\n"
    "  hybridcsp train my_wyckoff --data oxides.extxyz --output oxides --epochs 20 --learning-rate 2e-4\n\n"
    "  hybridcsp train flow --data mp20.extxyz --output my_flow --set batch_size=256 --set device=cuda"
)
def train(
    generator: GENERATOR,
    data: DATA,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for weights, model card and learning curve.",
            show_default="NAME-trained",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Largest number of epochs.", min=1, show_default="depends on the generator, mostly 100"
        ),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate of the optimiser.",
            show_default="depends on the generator, mostly 0.001",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other training setting. Repeatable.", show_default="none"),
    ] = None,
    max_atoms: MAX_ATOMS = 20,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot the learning curve to a .png, .pdf or .svg file.",
            show_default="curve.png in the output folder",
        ),
    ] = None,
    seed: SEED = 0,
) -> None:
    """Train a generator on crystal structures.

    The name of a generator starts from random weights, a folder starts from its weights. One tenth of the formulas is
    held out for early stopping. After an interruption, run the same command again to continue. On a GPU, mixed
    precision is used. If the structures have energies above the hull (e_above_hull), the generator can be conditioned
    on low energies.

    At the end, the held-out loss is shown (also as curve.csv and curve.png in the output folder), with an assessment:
    whether the training has converged, and whether the weights are better than the initial ones.
    """
    from hybridcsp.analysis.learning_curve import LearningCurve, verdict
    from hybridcsp.analysis.plots import check_picture
    from hybridcsp.generators.datasets import read_dataset
    from hybridcsp.generators.loading import find_generator, new_generator, open_generator

    entry, folder = find_generator(generator)
    chosen = _settings(settings or [], epochs, learning_rate)
    output = output or Path(f"{entry.name}-trained")
    picture = plot or output / PICTURE
    check_picture(picture, "--plot")
    for path in data:
        check_exists("--data", path)
    if (output / "card.json").exists():
        raise InputError("--output", output, "a new folder; this one already contains weights")
    with busy(f"loading {generator}"):
        model = new_generator(entry.name) if folder is None else open_generator(generator)
    before = dict(model.card)
    with busy("reading crystals"):
        dataset = read_dataset(data, max_atoms=max_atoms)
    skipped = ", ".join(f"{n} {reason}" for reason, n in dataset.skipped.items())
    console.print(f"{len(dataset.examples)} crystals" + (f" (skipped: {skipped})" if skipped else ""), highlight=False)
    try:
        with _folder(output):
            curve = LearningCurve(output / CURVE, resumed=any(output.glob(f"*{CHECKPOINT}")))
            with busy("encoding the crystals") as show:

                def on_epoch(epoch: Epoch) -> None:
                    curve.add(epoch)
                    _print_epoch(epoch)
                    show(f"{epoch.part + ', ' if epoch.part else ''}epoch {epoch.number + 1}")

                model.fit(dataset.examples, seed=seed, checkpoint=output / CHECKPOINT, on_epoch=on_epoch, **chosen)
    except KeyboardInterrupt:
        console.print("Interrupted. Continue with the same command.")
        raise typer.Exit(130) from None
    formulas = {f for card in (before, model.card) for f in str(card.get("training_formulas", "")).split()}
    model.card = {
        **model.card,
        "data": dataset.provenance,
        **({"training_formulas": " ".join(sorted(formulas))} if formulas else {}),
    }
    model.save(output)
    for checkpoint in output.glob(f"*{CHECKPOINT}"):
        checkpoint.unlink()
    if curve.parts:
        curve.draw(picture, f"{entry.name}, {len(dataset.examples)} crystals")
        for line in curve.lines():
            console.print(f"Held-out loss  {line}", highlight=False, soft_wrap=True)
        for part, done in curve.parts.items():
            assessment = verdict(done, pretrained=folder is not None)
            console.print(f"Assessment{f' of {part}' if part else ''}: {assessment}.", highlight=False, soft_wrap=True)
        console.print(f"Wrote the learning curve to {picture}", highlight=False, soft_wrap=True)
    where = as_argument(output)
    console.print(
        f"Wrote weights to {output}. Evaluate them on other crystals: hybridcsp evaluate {where} --data PATH. "
        f"Use them in a search: hybridcsp search FORMULA --source generative:{where}",
        highlight=False,
        soft_wrap=True,
    )


def _print_epoch(epoch: Epoch) -> None:
    losses = "  ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
    best = "  best" if epoch.best else ""
    what = f"{epoch.part}, epoch" if epoch.part else "epoch"
    console.print(f"{what} {epoch.number}  {epoch.seconds:.0f} s  {losses}{best}", highlight=False, soft_wrap=True)


def _settings(given: list[str], epochs: int | None, learning_rate: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError("--set", text, "a key and a value, written KEY=VALUE, such as batch_size=256")
        if key in ("seed", "checkpoint", "on_epoch"):
            raise InputError(
                "--set",
                text,
                reason="it is not a setting; the random seed is set by --seed, and checkpoints are always written",
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    if epochs is not None:
        found["epochs"] = epochs
    if learning_rate is not None:
        found["learning_rate"] = read_number("--learning-rate", learning_rate, "a positive number")
    return found


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
