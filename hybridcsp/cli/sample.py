"""``hybridcsp sample``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app, number, parse_units
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.generators import GENERATOR, SEED
from hybridcsp.cli.progress import bar, busy
from hybridcsp.errors import GeneratorError, InputError, UnreadableError
from hybridcsp.utils.files import make_folder
from hybridcsp.utils.quantities import read_quantity
from hybridcsp.utils.reading import read_text

if TYPE_CHECKING:
    from hybridcsp.generators.base import Generator

#: Atoms in a cell that generators are asked for at most.
MOST_SAMPLED = 1000

#: Cells of which missing samples are named.
_NAMED = 10


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --formula-units 1-4 --n 100 --output t.xyz\n\n"
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
            help="A file: .extxyz, .cif, .json, .res, also .gz; a folder (best/) gets a file for each crystal; with "
            "--format the folder that code runs in.",
        ),
    ],
    formula: Annotated[str | None, typer.Option(metavar="FORMULA", help="One formula unit.")] = None,
    formula_units: Annotated[
        str, typer.Option(metavar="N|LOW-HIGH", help="Formula units in the primitive cell: 2, or 1-4.")
    ] = "1",
    formulas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of --formula: one cell per line, with its exact contents (Ti2O4); blank lines and # comments "
            "are skipped.",
        ),
    ] = None,
    n: Annotated[
        int,
        typer.Option(
            "--n",
            metavar="N",
            help="Number of crystals: in all with --formula, spread evenly over the numbers of formula units; for each "
            "line with --formulas.",
            min=1,
        ),
    ] = 1,
    each: Annotated[
        bool, typer.Option("--each", help="With --formula: N crystals for each number of formula units.")
    ] = False,
    spacegroup: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Space group.", min=1, max=230, show_default="any")
    ] = None,
    energy_quantile: Annotated[
        str | None,
        typer.Option(
            metavar="0_TO_1", help="0: as stable as crystals of such contents get.", show_default="not conditioned"
        ),
    ] = None,
    pressure: Annotated[
        str | None,
        typer.Option(metavar="GPA", help="Pressure in GPa, or with its unit: 500kbar.", show_default="not conditioned"),
    ] = None,
    seed: SEED = 0,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="Write seeds for another code (hybridcsp formats).", show_default="extended XYZ"
        ),
    ] = None,
) -> None:
    """Sample crystals of given contents.

    What a generator cannot make is asked for again, three times at most. If crystals are missing then, those that were
    made are written, the others are named with the reasons, and the exit status is 1. Each frame carries request (the
    number of the line in --formulas from 0, or of its cell size with --formula), formula_units with --formula, and
    log_likelihood where the model knows it.
    """
    import ase.io

    from hybridcsp.generators.base import Request
    from hybridcsp.generators.loading import one_thread, open_generator
    from hybridcsp.generators.writing import write_samples
    from hybridcsp.io import formats
    from hybridcsp.io.structure_writer import format_of

    if format is not None:
        formats.load(format)
    else:
        format_of(output, key="--output")
    if (formula is None) == (formulas is None):
        raise InputError("--formula", formula, "either --formula, or --formulas FILE")
    if formulas is not None and formula_units != "1":
        raise InputError("--formula-units", formula_units, "only with --formula: lines of --formulas are whole cells")
    if formulas is not None and each:
        raise InputError("--each", each, "only with --formula: --n is for each line of --formulas in any case")
    if formulas is not None:
        cells, notes = dict(_lines(formulas)), {}
        wanted = dict.fromkeys(cells, n)
    else:
        low, high = parse_units(formula_units)
        if not 1 <= low <= high:
            raise InputError("--formula-units", formula_units, "a whole number from 1, or two in order: 1-4")
        _contents(str(formula), high, "--formula")  # the largest first: a range without end is refused at once
        cells = {i: _contents(str(formula), low + i, "--formula") for i in range(high - low + 1)}
        wanted = {i: n if each else n // len(cells) + (i < n % len(cells)) for i in cells}
        notes = {i: {"formula_units": low + i} for i in cells}
    asked = {
        "spacegroup": spacegroup,
        "energy_quantile": None if energy_quantile is None else _fraction("--energy-quantile", energy_quantile),
        "pressure_gpa": None if pressure is None else read_quantity("--pressure", pressure, "GPa"),
    }
    with busy(f"loading {generator}"):
        model = open_generator(generator)
    _check_conditions(model, asked)
    requests = [(i, Request(contents=cells[i], **asked)) for i in cells for _ in range(wanted[i])]  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        file = output if format is None else str(Path(folder) / "samples.extxyz")
        if format is None:
            make_folder(Path(output).parent, key="--output")
        with one_thread(), bar("crystals", len(requests)) as advance:
            written = write_samples(file, model, requests, seed, advance, notes)
        made = written.made.total()
        note = formats.write(ase.io.iread(file), Path(output), format) if format is not None and made else ""
    if not made:
        lost = ", ".join(f"{count} {reason}" for reason, count in written.reasons.items())
        raise GeneratorError(f"{model.name} has made none of {len(requests)} crystals: {lost}")
    how = f", {n} for each line of {formulas}" if formulas else ""
    if formula is not None and len(cells) > 1:
        spread = ", ".join(f"{written.made[i]} of {notes[i]['formula_units']}" for i in cells)
        how = f", {n} for each number of formula units: {spread}" if each else f", in all, by formula units: {spread}"
    console.print(f"{made} of {len(requests)} crystals in {output}{how}", highlight=False, soft_wrap=True, markup=False)
    if note:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    if left_out := [str(notes[i]["formula_units"]) for i in cells if not wanted[i]]:
        console.print(
            f"None asked for with {', '.join(left_out)} formula units, as --n {n} is in all; --each asks for {n} each.",
            highlight=False,
            soft_wrap=True,
        )
    if written.missing:
        errors.print(
            _missing(written.missing, cells, len(requests) - made), highlight=False, soft_wrap=True, markup=False
        )
        raise typer.Exit(1)


def _missing(missing: Mapping[int, Mapping[str, int]], cells: Mapping[int, Mapping[str, int]], total: int) -> str:
    """Say which crystals could not be made, and why."""
    lines = [f"{total} crystals are missing:"]
    for group, reasons in list(missing.items())[:_NAMED]:
        contents = "".join(f"{symbol}{count}" for symbol, count in cells[group].items())
        lines.append(f"  {contents}: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()))
    if len(missing) > _NAMED:
        lines.append(f"  and those of {len(missing) - _NAMED} more cells")
    return "\n".join(lines)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield contents by the number of their line, from 0; blank lines and comments count, but ask for nothing."""
    try:
        lines = read_text(file).splitlines()
    except UnreadableError as error:
        raise InputError("--formulas", str(file), f"a text file ({error.reason})") from error
    asked = {i: line.strip() for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")}
    if not asked:
        raise InputError("--formulas", str(file), "at least one formula")
    for i, formula in asked.items():
        yield i, _contents(formula, 1, f"--formulas, line {i + 1}")


def _contents(formula: str, units: int, key: str) -> dict[str, int]:
    from hybridcsp.core.problem import Problem

    try:
        composition = Problem(formula, formula_units=1, max_atoms=10**6).composition
    except InputError as error:
        raise InputError(key, formula, error.allowed) from None
    atoms = units * sum(composition.values())
    if atoms > MOST_SAMPLED:
        many = f"{units} formula unit{'s are' if units > 1 else ' is'} {atoms} atoms"
        raise InputError(key, formula, f"cells of at most {MOST_SAMPLED} atoms can be sampled; {many}")
    return {symbol: count * units for symbol, count in composition.items()}


def _fraction(key: str, text: str) -> float:
    value = number(key, text, "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise InputError(key, text, "a number from 0 to 1")
    return value


def _check_conditions(model: Generator, asked: Mapping[str, Any]) -> None:
    from hybridcsp.generators.base import Condition

    of = {"spacegroup": Condition.SPACEGROUP, "energy_quantile": Condition.ENERGY, "pressure_gpa": Condition.PRESSURE}
    for name, condition in of.items():
        if asked[name] is not None and condition not in model.conditions:
            known = ", ".join(sorted(model.conditions)) or "nothing but contents"
            raise InputError(f"--{condition}", asked[name], f"{model.name} cannot be asked for it; it knows {known}")
