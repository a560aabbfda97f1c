"""Provide the command ``hybridcsp sample``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.cells import cells_of_file, contents_of
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.generators import GENERATOR, SEED
from hybridcsp.cli.progress import bar, busy
from hybridcsp.cli.targets import PREDICTOR, TARGET, with_predictors
from hybridcsp.cli.values import read_formula_units, read_fraction, read_number, read_targets
from hybridcsp.errors import CommandLineError, GeneratorError, InputError
from hybridcsp.utils.files import check_folder, check_output, make_folder
from hybridcsp.utils.quantities import read_quantity

if TYPE_CHECKING:
    from hybridcsp.generators.base import Generator

#: Number of cells whose missing samples are named.
_NAMED = 10


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --formula-units 1-4 --n 100 --output t.xyz\n\n"
    "  hybridcsp sample my_wyckoff/ --formula TiO2 --target band_gap=1.5..2.5 --n 20 --output gap.xyz\n\n"
    "  hybridcsp sample my_flow/ --formula TiO2 --target band_gap=3.. --guidance 2 --n 20 --output guided.xyz\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --target band_gap=3.. --predictor gap/ --n 20 --output wide.xyz\n\n"
    "  hybridcsp sample my_flow/ --formula MgSiO3 --spacegroup 62 --n 20 --output pv.xyz\n\n"
    "  hybridcsp sample wyckoff --formulas cells.txt --n 20 --output samples.extxyz\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --n 40 --format uspex --output uspex_run"
)
def sample(
    generator: GENERATOR,
    output: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="A file (.extxyz, .cif, .json or .res, also with .gz), or a folder (best/) with one file per crystal. "
            "With --format: the folder that the code runs in.",
        ),
    ],
    formula: Annotated[
        str | None, typer.Option(metavar="FORMULA", help="Formula of one formula unit.", show_default=False)
    ] = None,
    formula_units: Annotated[
        str, typer.Option(metavar="N|LOW-HIGH", help="Number of formula units in the primitive cell, such as 2 or 1-4.")
    ] = "1",
    formulas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file with the exact contents of one cell per line (Ti2O4), instead of --formula. Blank lines "
            "and # comments are skipped.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int,
        typer.Option(
            "--n",
            metavar="N",
            help="Number of crystals: in total with --formula, distributed evenly over the numbers of formula units; "
            "per line with --formulas.",
            min=1,
        ),
    ] = 1,
    each: Annotated[
        bool, typer.Option("--each", help="With --formula: sample N crystals for each number of formula units.")
    ] = False,
    spacegroup: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Space group number.", min=1, max=230, show_default="any")
    ] = None,
    energy_quantile: Annotated[
        str | None,
        typer.Option(
            metavar="0_TO_1",
            help="Quantile of energy among crystals of the same contents; 0 is the most stable.",
            show_default="any",
        ),
    ] = None,
    pressure: Annotated[
        str | None,
        typer.Option(metavar="GPA", help="Pressure in GPa, or with a unit: 500kbar.", show_default="any"),
    ] = None,
    target: TARGET = None,
    predictor: PREDICTOR = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHT",
            help="How strongly samples are guided by the targets that the generator has learned (flow, diffusion): 0 "
            "is its own distribution, higher weights bring more values within the targets and less diversity.",
            show_default="0",
        ),
    ] = None,
    seed: SEED = 0,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="Write seeds for another code (see hybridcsp formats).", show_default="from --output"
        ),
    ] = None,
) -> None:
    """Sample crystal structures of given composition from a generator.

    A failed sample is repeated up to three times. If crystals are still missing, the others are written, the missing
    ones are listed with the reasons, and the exit status is 1. Each structure has the properties request (the line in
    --formulas from 0, or the index of the number of formula units), formula_units (with --formula) and log_likelihood
    (if the generator provides it).

    With --target, crystals with values of a property are wanted. A generator that has learned the property follows the
    target by itself. With --predictor, samples of any generator are drawn until the predicted property is within the
    target; how many were drawn and selected is shown, and predicted_NAME is written to the structures.
    """
    import ase.io

    from hybridcsp.generators.base import Request
    from hybridcsp.generators.loading import one_thread, open_generator
    from hybridcsp.generators.targeting import SelectingGenerator
    from hybridcsp.generators.writing import write_samples
    from hybridcsp.io import formats
    from hybridcsp.io.structure_writer import format_of

    if format is not None:
        formats.load(format)
    else:
        format_of(output, key="--output")
    if (formula is None) == (formulas is None):
        raise CommandLineError("sample needs either --formula FORMULA or --formulas FILE, and not both.")
    if formulas is not None and formula_units != "1":
        raise InputError(
            "--formula-units",
            formula_units,
            reason="it is allowed only with --formula; the lines of --formulas are whole cells",
        )
    if formulas is not None and each:
        raise InputError("--each", each, reason="it is allowed only with --formula; with --formulas, --n is per line")
    if formulas is not None:
        cells, notes = dict(cells_of_file(formulas)), {}
        wanted = dict.fromkeys(cells, n)
    else:
        low, high = read_formula_units(formula_units)
        if not 1 <= low <= high:
            raise InputError("--formula-units", formula_units, "a whole number from 1, or a range such as 1-4")
        contents_of(str(formula), high, "--formula")  # checked first, so that a huge range is refused at once
        cells = {i: contents_of(str(formula), low + i, "--formula") for i in range(high - low + 1)}
        wanted = {i: n if each else n // len(cells) + (i < n % len(cells)) for i in cells}
        notes = {i: {"formula_units": low + i} for i in cells}
    conditions = {
        "spacegroup": spacegroup,
        "energy_quantile": None if energy_quantile is None else read_fraction("--energy-quantile", energy_quantile),
        "pressure_gpa": None if pressure is None else read_quantity("--pressure", pressure, "GPa"),
    }
    targets = read_targets("--target", target or [])
    if predictor and not targets:
        raise InputError("--predictor", predictor[0], reason="it is allowed only with --target, the values to select")
    weight = 0.0 if guidance is None else _read_guidance(guidance)
    if guidance is not None and not targets:
        raise InputError("--guidance", guidance, reason="it is allowed only with --target, by which samples are guided")
    if format is None:
        check_output(Path(output), key="--output")
    else:
        check_folder(Path(output), key="--output")
    with busy(f"loading {generator}"):
        model = open_generator(generator)
    _check_conditions(model, conditions)
    if weight > 0:
        _check_guidance(model, targets, str(guidance))
    model = with_predictors(model, targets, predictor or [])
    requests = [
        (i, Request(contents=cells[i], targets=targets, guidance=weight, **conditions))  # type: ignore[arg-type]
        for i in cells
        for _ in range(wanted[i])
    ]
    with TemporaryDirectory() as folder:
        file = output if format is None else str(Path(folder) / "samples.extxyz")
        if format is None:
            make_folder(Path(output).parent, key="--output")
        with one_thread(), bar("crystals", len(requests)) as advance:
            written = write_samples(file, model, requests, seed, advance, notes)
        made = written.made.total()
        note = formats.write(ase.io.iread(file), Path(output), format) if format is not None and made else ""
    if isinstance(model, SelectingGenerator):
        console.print(model.counts.in_words(), highlight=False, soft_wrap=True, markup=False)
    if not made:
        lost = "; ".join(f"{count} times: {reason}" for reason, count in written.reasons.items())
        raise GeneratorError(f"{model.name} produced none of the {len(requests)} requested crystals: {lost}")
    how = f", {n} per line of {formulas}" if formulas else ""
    if formula is not None and len(cells) > 1:
        spread = ", ".join(f"{written.made[i]} with {notes[i]['formula_units']}" for i in cells)
        how = f", {n} per number of formula units: {spread}" if each else f"; by number of formula units: {spread}"
    console.print(f"{made} of {len(requests)} crystals in {output}{how}", highlight=False, soft_wrap=True, markup=False)
    if note:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    if left_out := [str(notes[i]["formula_units"]) for i in cells if not wanted[i]]:
        console.print(
            f"No crystals with {', '.join(left_out)} formula units, because --n {n} is the total; add --each for {n} "
            "per number of formula units.",
            highlight=False,
            soft_wrap=True,
        )
    if written.missing:
        errors.print(
            _missing(written.missing, cells, len(requests) - made), highlight=False, soft_wrap=True, markup=False
        )
        raise typer.Exit(1)


def _missing(missing: Mapping[int, Mapping[str, int]], cells: Mapping[int, Mapping[str, int]], total: int) -> str:
    """Return which crystals are missing, and why."""
    lines = [f"{total} crystals are missing:"]
    for group, reasons in list(missing.items())[:_NAMED]:
        contents = "".join(f"{symbol}{count}" for symbol, count in cells[group].items())
        lines.append(f"  {contents}: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()))
    if len(missing) > _NAMED:
        lines.append(f"  and of {len(missing) - _NAMED} more cells")
    return "\n".join(lines)


def _check_conditions(model: Generator, conditions: Mapping[str, Any]) -> None:
    """Check that the generator supports all requested conditions."""
    from hybridcsp.generators.base import Condition

    options = (
        ("--spacegroup", "spacegroup", Condition.SPACEGROUP),
        ("--energy-quantile", "energy_quantile", Condition.ENERGY),
        ("--pressure", "pressure_gpa", Condition.PRESSURE),
    )
    for option, name, condition in options:
        if conditions[name] is not None and condition not in model.conditions:
            known = ", ".join(sorted(model.conditions)) or "none"
            reason = f"{model.name} does not support this condition; the supported conditions are {known}"
            raise InputError(option, conditions[name], reason=reason)


def _read_guidance(text: str) -> float:
    weight = read_number("--guidance", text, "a number from 0")
    if weight < 0:
        raise InputError("--guidance", text, "a number from 0")
    return weight


def _check_guidance(model: Generator, targets: Mapping[str, Any], guidance: str) -> None:
    """Check that the generator can be guided, and has learned a property by which it can."""
    if not model.guides:
        reason = f"samples of {model.name} cannot be guided; flow and diffusion can, or leave out --guidance"
        raise InputError("--guidance", guidance, reason=reason)
    if not model.targets & targets.keys():
        known = ", ".join(sorted(model.targets)) or "none"
        reason = f"samples are guided by properties that {model.name} has learned ({known}), and no target is of one"
        raise InputError("--guidance", guidance, reason=reason)
