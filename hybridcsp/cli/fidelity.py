"""Fidelity of reconstructions, a part of the command ``hybridcsp evaluate``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import print_table
from hybridcsp.cli.progress import bar, busy
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.utils.files import atomic_write, check_writable, make_folder

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.generators.base import Generator
    from hybridcsp.generators.fidelity import Reconstruction

#: Formats of the file with the result for every crystal.
FORMATS = (".csv", ".json")

# Displacements in Å below this are shown as such: they are rounding errors.
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True, kw_only=True)
class FidelityChoices:
    """Represent what a user has chosen for the measurement of reconstructions.

    Attributes
    ----------
    models
        Names or folders of generators.
    representations
        Names of representations; all if there are none and no models.
    output
        File for the result for every crystal.
    plot
        File of the plot.
    worst
        Number of crystals of each representation that are listed.
    as_json, as_csv
        Format of the table.
    """

    models: Sequence[str]
    representations: Sequence[str]
    output: Path | None
    plot: Path | None
    worst: int
    as_json: bool
    as_csv: bool


def measure_fidelity(choices: FidelityChoices, read: Callable[[], Sequence[Atoms]]) -> None:
    """Encode and decode crystals with representations and models, and print how much is lost.

    Parameters
    ----------
    choices
        What the user has chosen.
    read
        Function that reads the crystals; it is called after the choices have been checked.

    Raises
    ------
    InputError
        If a choice cannot be used.
    """
    from hybridcsp.analysis.fidelity_plot import plot_fidelity
    from hybridcsp.generators.fidelity import (
        REPRESENTATIONS,
        combined,
        spread_of_models,
        summary,
        through_model,
        through_representation,
    )
    from hybridcsp.generators.loading import one_thread

    names = list(dict.fromkeys(choices.representations or (() if choices.models else REPRESENTATIONS)))
    for name in names:
        if name not in REPRESENTATIONS:
            raise UnknownNameError("--representation", name, REPRESENTATIONS)
    _check_files(choices)
    models = {text: _with_encoder(text) for text in dict.fromkeys(choices.models)}
    crystals = read()
    results: dict[str, list[Reconstruction]] = {}
    rows: list[dict[str, Any]] = []
    with one_thread():
        for name in names:
            results[name] = _collect(name, through_representation(name, crystals), len(crystals))
            rows.append(summary(results[name]))
        for text, model in models.items():
            results[text] = _collect(text, through_model(text, model, crystals), len(crystals))
            rows.append(summary(results[text]))
    several = len(models) > 1
    for kind in dict.fromkeys(model.name for model in models.values()):
        own = [text for text, model in models.items() if model.name == kind]
        if len(own) > 1:
            name = f"{kind}, {len(own)} models"
            spreads = spread_of_models([row for row in rows if row["representation"] in own])
            results[name] = combined(name, [results[text] for text in own])
            rows.append({**summary(results[name]), **spreads})
    if several:
        rows = [
            {**dict.fromkeys(("matched_spread", "close_spread", "rms_spread", "strain_spread")), **row} for row in rows
        ]
    about = {"crystals": len(crystals), "table": rows, "worst": _worst_rows(results, choices.worst)}
    if not print_table(rows, as_json=choices.as_json, as_csv=choices.as_csv, about=about):
        _show(rows, results, choices.worst)
    if choices.output is not None:
        _write(choices.output, [one for own in results.values() for one in own])
        errors.print(f"Wrote {choices.output}", highlight=False, soft_wrap=True, markup=False)
    if choices.plot is not None:
        plot_fidelity(results, choices.plot)
        errors.print(f"Wrote {choices.plot}", highlight=False, soft_wrap=True, markup=False)


def _check_files(choices: FidelityChoices) -> None:
    from hybridcsp.analysis.plots import check_picture

    if choices.plot is not None:
        check_picture(choices.plot, "--plot")
    if choices.output is not None:
        if choices.output.suffix.lower() not in FORMATS:
            raise InputError("--output", choices.output, f"a file whose name ends in {' or '.join(FORMATS)}")
        make_folder(choices.output.parent, key="--output")
        check_writable(choices.output, key="--output", follow=True)


def _with_encoder(text: str) -> Generator:
    from hybridcsp.generators.loading import open_generator

    with busy(f"loading {text}"):
        model = open_generator(text)
    if not model.reconstructs:
        reason = f"{model.name} has no encoder, so that it cannot reconstruct crystals; autoencoders can"
        raise InputError("GENERATOR", text, reason=reason)
    return model


def _collect(name: str, found: Iterable[Reconstruction], total: int) -> list[Reconstruction]:
    results = []
    with bar(name, total) as advance:
        for one in found:
            results.append(one)
            advance(1)
    return results


def _worst_rows(results: Mapping[str, Sequence[Reconstruction]], count: int) -> list[dict[str, Any]]:
    from hybridcsp.generators.fidelity import worst

    return [asdict(one) for own in results.values() for one in worst(own, count)]


def _show(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Sequence[Reconstruction]], count: int) -> None:
    from rich.table import Table

    from hybridcsp.generators.fidelity import worst

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ("", "all", "out", "failed", "matched", "close", "RMS", "99 %", "max", "strain")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in rows:
        spreads = {key: row.get(f"{key}_spread") for key in ("matched", "close", "rms", "strain")}
        table.add_row(
            row["representation"],
            *(str(row[key]) for key in ("crystals", "outside", "failed")),
            _share(row["matched"], spreads["matched"]),
            _share(row["close"], spreads["close"]),
            _number(row["rms"], spreads["rms"]),
            _number(row["rms_99"]),
            _number(row["largest"]),
            _share(row["strain"], spreads["strain"], 2),
        )
    console.print(table, markup=False)
    notes = [
        "out: outside the limits. matched, close: of the crystals within the limits, by pymatgen's StructureMatcher "
        "with stol 0.5 and 0.1. RMS and max: displacements in Å of the atoms of matched crystals; 99 %: quantile of "
        "the RMS; strain: mean of the largest principal strain of the cell."
    ]
    for row in rows:
        notes += [f"{row['representation']}: {times} {reason}" for reason, times in list(row["reasons"].items())[:4]]
    for name, own in results.items():
        if shown := [_in_words(one) for one in worst(own, count) if (one.largest or 1.0) >= _NEGLIGIBLE]:
            notes.append(f"{name}, worst: {'; '.join(shown)}")
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def _in_words(one: Reconstruction) -> str:
    what = one.reason or f"{one.largest:.2g} Å"
    return f"{one.formula} (crystal {one.crystal}, {one.atoms} atoms, {what})"


def _share(value: float | None, spread: float | None = None, digits: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}%}" if spread is None else f"{100 * value:.{digits}f} ± {100 * spread:.{digits}f}%"


def _number(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "-"
    shown = f"{value:.2g}" if value >= _NEGLIGIBLE else "<1e-4"
    return shown if spread is None else f"{shown} ± {spread:.1g}"


def _write(output: Path, results: Sequence[Reconstruction]) -> None:
    """Write the result for every crystal as CSV or JSON."""
    rows = [asdict(one) for one in results]
    with atomic_write(output, key="--output", follow=True) as file:
        if output.suffix.lower() == ".json":
            file.write(json.dumps(rows) + "\n")
        else:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
