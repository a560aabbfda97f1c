"""Training of predictors, a part of the command ``hybridcsp train``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hybridcsp.cli.console import console
from hybridcsp.cli.output import as_argument
from hybridcsp.cli.progress import busy
from hybridcsp.cli.training import Choices, checked_output, errors_of_options, finish, run_training
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from hybridcsp.training.epoch import Epoch

#: Name of the picture of held-out predictions and of the calibration in the output folder.
HELD_OUT_PICTURE = "held-out.png"


@dataclass(frozen=True, kw_only=True)
class PropertyChoice:
    """Represent what a user has chosen for the training of a predictor.

    Attributes
    ----------
    name, unit
        Name and unit of the property.
    logarithmic
        Whether its logarithm is learned.
    members
        Number of networks; ``None`` for the usual one.
    configuration
        Name of the configuration.
    """

    name: str | None
    unit: str | None
    logarithmic: bool
    members: int | None
    configuration: str


def train_predictor(model: str, choice: PropertyChoice, choices: Choices) -> None:
    """Train a predictor, write it, and print its errors on held-out crystals.

    Raises
    ------
    InputError
        If a choice or the data cannot be used.
    """
    from hybridcsp.analysis.held_out_plot import plot_held_out
    from hybridcsp.predictors.ensemble import HeldOut
    from hybridcsp.predictors.labelled import check_learnable, read_labelled
    from hybridcsp.predictors.loading import new_predictor

    predictor = new_predictor(model, choice.configuration)
    name = choice.name or predictor.usual_property
    if not name:
        reason = f"{model} learns one property; name a number in the info of the structures: --property band_gap"
        raise InputError("--property", None, reason=reason)
    output, picture = checked_output(choices, model if name == predictor.usual_property else f"{model}-{name}")
    with busy("reading crystals"):
        data = read_labelled(
            choices.data, name, max_atoms=choices.max_atoms, unit=choice.unit, missing=predictor.missing
        )
    skipped = ", ".join(f"{n} {reason}" for reason, n in data.skipped.items())
    kind = f" with {data.name}" if predictor.missing is None else ""
    console.print(
        f"{len(data.crystals)} crystals{kind}" + (f" (left out: {skipped})" if skipped else ""),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    check_learnable(data, logarithmic=choice.logarithmic)

    def fit(checkpoint: Path, on_epoch: Callable[[Epoch], None]) -> None:
        predictor.fit(
            data,
            members=choice.members,
            logarithmic=choice.logarithmic,
            seed=choices.seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            **choices.settings,
        )

    with errors_of_options(choices):
        curve = run_training(fit, output)
    files = {"files": [dict(file) for file in data.files], "skipped": dict(data.skipped)}
    predictor.card = {**predictor.card, "data": files}
    predictor.save(output)
    finish(curve, output, picture, f"{model}, {len(data.crystals)} crystals", pretrained=False)
    if assessment := predictor.assessment():
        console.print(assessment, highlight=False, markup=False, soft_wrap=True)
    held_out = getattr(predictor, "held_out", None)
    if isinstance(held_out, HeldOut):
        plot_held_out(held_out, output / HELD_OUT_PICTURE, predictor.card)
        console.print(f"Wrote the held-out predictions to {output / HELD_OUT_PICTURE}", highlight=False, soft_wrap=True)
    where = as_argument(output)
    console.print(
        f"Wrote weights to {output}. Predict with them: hybridcsp predict {where} FILE. "
        f"Use them in a search: hybridcsp search FORMULA --objective predictor:{where}:max",
        highlight=False,
        soft_wrap=True,
    )
