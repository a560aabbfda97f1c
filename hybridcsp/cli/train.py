"""``hybridcsp train``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app, number
from hybridcsp.cli.console import console
from hybridcsp.cli.generators import DATA, GENERATOR, MAX_ATOMS, SEED
from hybridcsp.cli.progress import busy
from hybridcsp.errors import InputError
from hybridcsp.utils.files import make_folder

if TYPE_CHECKING:
    from hybridcsp.generators.base import Epoch

#: Of a training, in the folder that is written.
CHECKPOINT = "checkpoint.safetensors"

#: The course of a training, in the same folder.
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
        typer.Option(metavar="FOLDER", help="Folder for weights, card and curve.", show_default="GENERATOR-trained"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most passes over the data.", min=1, show_default="the generator's, mostly 100"),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            metavar="RATE", help="Learning rate of the optimiser.", show_default="the generator's, mostly 0.001"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the training; repeatable."),
    ] = None,
    max_atoms: MAX_ATOMS = 20,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the curve to a .png, .pdf or .svg file.", show_default="curve.png in the folder"
        ),
    ] = None,
    seed: SEED = 0,
) -> None:
    """Train a generator on crystals.

    A name begins with an untrained one, a folder of weights goes on from these. A tenth of the formulas is held out and
    tells when to stop. Stop it at any moment and run the same command again to go on where it was. On a GPU it uses
    mixed precision. Where frames carry e_above_hull, it learns to aim low.

    It ends with the curve of the held-out loss, also as curve.csv and curve.png in the folder, and with a verdict:
    whether the loss was still falling or has levelled off, and whether the weights are better than those it began with.
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
        if not path.exists():
            raise InputError("--data", str(path), "no such file or folder")
    if (output / "card.json").exists():
        raise InputError("--output", str(output), "holds weights already; choose another folder")
    with busy(f"loading {generator}"):
        model = new_generator(entry.name) if folder is None else open_generator(generator)
    before = dict(model.card)
    with busy("reading crystals"):
        dataset = read_dataset(data, max_atoms=max_atoms)
    skipped = ", ".join(f"{n} {reason}" for reason, n in dataset.skipped.items())
    console.print(f"{len(dataset.examples)} crystals" + (f" (left out: {skipped})" if skipped else ""))
    try:
        with _folder(output):
            curve = LearningCurve(output / CURVE, going_on=any(output.glob(f"*{CHECKPOINT}")))
            with busy("encoding the crystals, then the first epoch") as say:

                def on_epoch(epoch: Epoch) -> None:
                    curve.add(epoch)
                    _tell(epoch)
                    say(f"{epoch.part + ', ' if epoch.part else ''}epoch {epoch.number + 1}")

                model.fit(dataset.examples, seed=seed, checkpoint=output / CHECKPOINT, on_epoch=on_epoch, **chosen)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on from here.")
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
            judged = verdict(done, pretrained=folder is not None)
            console.print(f"Verdict{f' on {part}' if part else ''}: {judged}.", highlight=False, soft_wrap=True)
        console.print(f"The curve is in {picture}", highlight=False, soft_wrap=True)
    where = quote(str(output))
    console.print(
        f"Weights are in {output}. Test them on crystals they have not seen: hybridcsp evaluate {where} --data PATH; "
        f"use them: hybridcsp search FORMULA --source generative:{where}",
        highlight=False,
        soft_wrap=True,
    )


def _tell(epoch: Epoch) -> None:
    losses = "  ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
    best = "  best" if epoch.best else ""
    what = f"{epoch.part}, epoch" if epoch.part else "epoch"
    console.print(f"{what} {epoch.number}  {epoch.seconds:.0f} s  {losses}{best}", highlight=False, soft_wrap=True)


def _settings(given: list[str], epochs: int | None, learning_rate: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError("--set", text, "KEY=VALUE")
        if key in ("seed", "checkpoint", "on_epoch"):
            raise InputError("--set", text, "a setting of the training; for the seed there is --seed")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    if epochs is not None:
        found["epochs"] = epochs
    if learning_rate is not None:
        found["learning_rate"] = number("--learning-rate", learning_rate, "a positive number")
    return found


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and take it away again if an error leaves nothing in it."""
    new = not path.exists()
    make_folder(path, key="--output")
    try:
        yield
    except BaseException:
        if new and not any(path.iterdir()):
            path.rmdir()
        raise
