"""Provide the commands ``hybridcsp predictors`` and ``hybridcsp predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.generators import check_exists
from hybridcsp.cli.lists import print_registry
from hybridcsp.cli.output import AsCsv, AsJson, check_formats, print_table
from hybridcsp.cli.progress import busy
from hybridcsp.errors import InputError
from hybridcsp.utils.files import check_output

if TYPE_CHECKING:
    from hybridcsp.io.frames import Frame
    from hybridcsp.predictors.base import Prediction, Predictor

# Number of reasons for being outside that are printed below a table.
_REASONS = 3


@app.command(epilog="Examples:\n\n  hybridcsp predictors\n\n  hybridcsp predictors --json")
def predictors(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the predictors of properties, which hybridcsp train trains."""
    from hybridcsp.predictors.registry import PREDICTORS

    note = "A predictor is trained on one property (hybridcsp train NAME --property PROPERTY) before it can be used."
    print_registry(PREDICTORS, as_json, as_csv, note)


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp predict gap/ candidates.extxyz\n\n"
    "  hybridcsp predict gap/ TiO2.cif structures/ --csv\n\n"
    "  hybridcsp predict gap/ candidates.extxyz --sort --output ranked.extxyz"
)
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a predictor from hybridcsp train.")],
    structures: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Files or folders of crystal structures, or folders of hybridcsp dataset relax."
        ),
    ],
    sort: Annotated[bool, typer.Option("--sort", help="Put the crystals in ascending order of the property.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the structures with their predictions, in the format of the ending (.extxyz, .cif, ...).",
            show_default="none",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Predict a property of crystal structures with a trained predictor.

    For each structure, the expected value is shown with its standard deviation and the interval that holds the true
    value with a probability of 90 %; both are calibrated on crystals held out of the training. Crystals outside of what
    was learned, with elements that the training set does not contain for example, are marked: their predictions and
    uncertainties cannot be trusted.

    The exit status is 1 if a structure could not be read or is not a crystal; the others are predicted.
    """
    from hybridcsp.generators.loading import one_thread
    from hybridcsp.io.structure_writer import format_of
    from hybridcsp.predictors.loading import open_predictor

    check_formats(as_json=as_json, as_csv=as_csv)
    for path in structures:
        check_exists("PATH", path)
    if output is not None:
        format_of(output)
        check_output(output, key="--output")
    with busy(f"loading {model}"):
        try:
            predictor = open_predictor(model)
        except InputError as error:
            raise error.renamed("MODEL") if error.key == "predictor" else error from None
    with busy("reading crystals"):
        frames, failures = read_frames(structures)
    for failure in failures:
        errors.print(failure, markup=False, highlight=False, soft_wrap=True)
    if not frames:
        raise InputError("PATH", [str(path) for path in structures], reason="there is no crystal to predict")
    with busy("predicting"), one_thread():
        prediction = predictor.predict([frame.atoms for frame in frames])
    order = sorted(range(len(frames)), key=lambda i: float(prediction.mean[i])) if sort else list(range(len(frames)))
    rows = [_row(frames[i], prediction, i, predictor.quantity) for i in order]
    about = {"property": predictor.quantity, "unit": predictor.unit, "model": model, "crystals": rows}
    if not print_table(rows, as_json=as_json, as_csv=as_csv, about=about):
        _show(rows, predictor)
    if output is not None:
        _write(output, [frames[i] for i in order], rows, predictor)
        errors.print(f"Wrote {output}", markup=False, highlight=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def read_frames(paths: list[Path]) -> tuple[list[Frame], list[str]]:
    """Return the crystals of files and folders, and sentences about the structures that cannot be predicted."""
    from hybridcsp.io.frames import ReadFailure
    from hybridcsp.io.structure_files import read_structures
    from hybridcsp.predictors.graphs import check_crystal

    frames: list[Frame] = []
    failures: list[str] = []
    for path in paths:
        for found in read_structures(path):
            if isinstance(found, ReadFailure):
                failures.append(str(found))
                continue
            try:
                check_crystal(found.atoms)
            except InputError as error:
                failures.append(f"{found.file}, line {found.line}: {error}")
            else:
                frames.append(found)
    return frames, failures


def _row(frame: Frame, prediction: Prediction, i: int, name: str) -> dict[str, Any]:
    low, high = prediction.interval_90[i]
    return {
        "file": str(frame.file),
        "frame": frame.number,
        "formula": frame.atoms.get_chemical_formula(empirical=True),
        "atoms": len(frame.atoms),
        name: float(prediction.mean[i]),
        "standard_deviation": float(prediction.standard_deviation[i]),
        "low_90": float(low),
        "high_90": float(high),
        "unseen_elements": " ".join(prediction.unseen[i]),
        "outside": prediction.outside[i],
    }


def _show(rows: list[dict[str, Any]], predictor: Predictor) -> None:
    from rich.table import Table

    unit = f" ({predictor.unit})" if predictor.unit else ""
    table = Table(box=None)
    for heading in ("file", "frame", "formula", "atoms", f"{predictor.quantity}{unit}", "±", "90 % interval"):
        table.add_column(heading, justify="left" if heading in ("file", "formula") else "right")
    for row in rows:
        numbers = [f"{row[key]:.4g}" for key in (predictor.quantity, "standard_deviation", "low_90", "high_90")]
        mark = "*" if row["outside"] else ""
        shown = (Path(row["file"]).name, str(row["frame"]), row["formula"] + mark, str(row["atoms"]))
        table.add_row(*shown, numbers[0], numbers[1], f"{numbers[2]} to {numbers[3]}")
    console.print(table, markup=False)
    reasons = sorted({row["outside"] for row in rows} - {""})
    if reasons:
        named = ". ".join(reasons[:_REASONS]) + (f". {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else "")
        console.print(
            f"* is outside of what was learned: {named}. These predictions and their uncertainties cannot be trusted.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _write(output: Path, frames: list[Frame], rows: list[dict[str, Any]], predictor: Predictor) -> None:
    from hybridcsp.io.structure_writer import structure_writer

    name = predictor.quantity
    with structure_writer(output, key="--output") as write:
        for frame, row in zip(frames, rows, strict=True):
            atoms = frame.atoms.copy()
            atoms.info |= {
                f"predicted_{name}": row[name],
                f"predicted_{name}_deviation": row["standard_deviation"],
            }
            for key in ("unseen_elements", "outside"):
                if row[key]:
                    atoms.info[key] = row[key]
            write(atoms)
