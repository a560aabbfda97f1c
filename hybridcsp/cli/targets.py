"""Options for the wanted values of properties, which the commands for generators share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.progress import busy
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from hybridcsp.generators.base import Generator

TARGET = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME=LOW..HIGH",
        help="Wanted values of a property: band_gap=1.5..2.5, band_gap=1.5.. or 'band_gap>=1.5'. Repeatable.",
        show_default="none",
    ),
]
PREDICTOR = Annotated[
    list[str] | None,
    typer.Option(
        "--predictor",
        metavar="FOLDER",
        help="Predictor of a property with a target, from hybridcsp train, by which samples are selected. Repeatable.",
        show_default="none",
    ),
]


def with_predictors(
    generator: Generator, targets: Mapping[str, tuple[float, float]], folders: Sequence[str]
) -> Generator:
    """Return a generator that honours targets, with the predictors in folders where it needs them.

    Raises
    ------
    InputError
        If a folder holds no predictor, or a target and the predictors do not fit together.
    """
    from hybridcsp.generators.targeting import with_targets
    from hybridcsp.predictors.loading import open_predictor

    with busy("loading predictors"):
        try:
            return with_targets(generator, targets, [open_predictor(folder) for folder in folders])
        except InputError as error:
            raise error.renamed({"target": "--target", "predictor": "--predictor"}.get(error.key, error.key)) from None
