"""Options for the wanted values of properties, which the commands for generators share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.progress import busy
from hybridcsp.cli.values import read_targets
from hybridcsp.errors import InputError
from hybridcsp.utils.paths import expanded

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

    predictors = []
    for folder in folders:
        with busy(f"loading {folder}"):
            predictors.append(open_predictor(folder))
    try:
        return with_targets(generator, targets, predictors)
    except InputError as error:
        raise error.renamed({"target": "--target", "predictor": "--predictor"}.get(error.key, error.key)) from None


def with_targets_of_search(search: Mapping[str, Any], targets: Sequence[str], folders: Sequence[str]) -> dict[str, Any]:
    """Return the table of a search with targets as a condition, and predictors as objectives that are reported.

    Raises
    ------
    InputError
        If a target cannot be read or is no objective of the search, or a folder holds no predictor.
    """
    from hybridcsp.objectives.base import REPORTED
    from hybridcsp.predictors.loading import open_predictor

    given = search.get("objectives", [])
    objectives = list(given) if isinstance(given, list | tuple) else [given]
    for folder in folders:
        with busy(f"loading {folder}"):
            name = open_predictor(folder).quantity
        objectives.append({"objective": f"predictor:{expanded(folder).absolute()}", "name": name, "goal": REPORTED})
    comparisons = [str(search["where"])] if search.get("where") else []
    for name, (low, high) in read_targets("--target", targets).items():
        _check_objective(name, objectives)
        comparisons += [f"{name} >= {low!r}"] if math.isfinite(low) else []
        comparisons += [f"{name} <= {high!r}"] if math.isfinite(high) else []
    return {**search, "objectives": objectives, "where": " and ".join(comparisons)}


def _check_objective(name: str, objectives: Sequence[Any]) -> None:
    """Check that a target is an objective that a search has or needs no argument; other mistakes are found later.

    Raises
    ------
    InputError
        If it is none.
    """
    from hybridcsp.objectives.choice import choices_of

    try:
        choices_of(objectives, f"{name} > 0")
    except InputError as error:
        if error.key == "where":
            reason = f"{error.reason}; a property that a predictor has learned needs its folder (--predictor FOLDER)"
            raise InputError("--target", name, reason=reason) from None
