"""Provide the commands ``hybridcsp import`` and ``hybridcsp export``: files of other codes and programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import Predictors, print_search
from hybridcsp.cli.progress import counter
from hybridcsp.errors import CommandLineError, InputError, UnknownNameError
from hybridcsp.utils.files import is_stream
from hybridcsp.utils.quantities import read_quantity
from hybridcsp.utils.resources import available_cores

if TYPE_CHECKING:
    from hybridcsp.io.formats import Record, SeedSettings
    from hybridcsp.io.frames import ReadFailure
    from hybridcsp.workflows.import_results import ImportReport

#: Number of unreadable structures that are named.
_SHOWN = 5

#: Number of minima in the file ``minima.extxyz`` of an import.
_EXPORTED = 1000


@app.command(
    "import",
    epilog="Examples:\n\n"
    "  hybridcsp import uspex_run                              results1, results2, … into the directory TiO2-uspex\n\n"
    "  hybridcsp import calypso/results --directory duel/calypso --strict\n\n"
    "  hybridcsp import airss_run --output airss.extxyz        convert any number of structures to one file\n\n"
    "  hybridcsp import my_cifs/ --formula TiO2                structures without energies become candidates",
)
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="Folder of a USPEX, CALYPSO, AIRSS, XtalOpt or CrySPY run, or structure files."
        ),
    ],
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Run directory: new, or from an earlier import.", show_default="FORMULA-CODE"
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write structures of all compositions to this file instead (.extxyz, .cif, .json or .res, also with "
            ".gz).",
            show_default="none",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="Code that wrote the files (see hybridcsp formats).", show_default="recognised"
        ),
    ] = None,
    formula: Annotated[
        str | None,
        typer.Option(metavar="FORMULA", help="Formula of one formula unit.", show_default="most frequent in the files"),
    ] = None,
    pressure: Annotated[
        str | None,
        typer.Option(
            metavar="GPA",
            help="External pressure in GPa, or with a unit: 500kbar.",
            show_default="from the files, or 0",
        ),
    ] = None,
    calculator: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL", help="Name of the calculator of the energies.", show_default="the code, such as uspex:VASP"
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first structure that cannot be read.")] = False,
) -> None:
    """Import the results of another code.

    Relaxed structures count as relaxations by that code. The commands show, compare and export work with the run
    directory, and its minima.extxyz holds the 1000 best minima. Run the command again to add new results. Structures
    that cannot be read are skipped, counted and named.
    """
    from hybridcsp.io import formats

    gpa = None if pressure is None else read_quantity("--pressure", pressure, "GPa")
    if format:
        code = formats.load(format)
        formats.check_folder(path, code)
    else:
        code = formats.recognise(path)
    if output is not None:
        if directory is not None:
            raise CommandLineError("--output and --directory cannot be combined; give one of them.")
        _convert_results(code.read(path), output, strict)
        return
    try:
        _import_results(code, path, directory, formula, gpa, calculator, strict)
    except OSError as error:
        raise InputError("path", path, reason=f"its files cannot be read ({error})") from error


def _convert_results(results: Iterator[Record | ReadFailure], output: str, strict: bool) -> None:
    """Write all readable structures to a file, as a stream."""
    from hybridcsp.io.formats.plain import as_atoms
    from hybridcsp.io.frames import ReadFailure
    from hybridcsp.io.structure_writer import structure_writer
    from hybridcsp.workflows.import_results import ImportReport

    report = ImportReport()

    def readable() -> Iterator[Record]:
        with counter("structures") as count:
            for record in results:
                count(report.seen)
                if isinstance(record, ReadFailure):
                    report.add_failure(record)
                    if strict:
                        raise InputError(
                            "path", record.file, reason=f"with --strict every file must be readable: {record}"
                        )
                else:
                    report.relaxed += 1
                    yield record

    with structure_writer(output, key="--output") as write:
        for record in readable():
            write(as_atoms(record))
        if not report.relaxed:
            raise InputError("structures", 0, reason="at least one structure must be readable")
    _print(f"{report.relaxed} structures in {output}.")
    print_unreadable(report)


def _import_results(
    code: Any,
    path: Path,
    directory: Path | None,
    formula: str | None,
    gpa: float | None,
    calculator: str | None,
    strict: bool,
) -> None:
    """Import results into a run directory and print its minima."""
    from hybridcsp.analysis.follow_ups import disagreement
    from hybridcsp.archive.archive import Archive, is_begun
    from hybridcsp.archive.directory_lock import check_directory
    from hybridcsp.io.export import export as write
    from hybridcsp.workflows.import_results import import_records, open_for_import
    from hybridcsp.workflows.survey import CachedResults, calculator_label, other_calculators, survey_results

    check_directory(directory or Path.cwd())
    with counter("structures read") as count:
        results = CachedResults(lambda: code.read(path))
        found = survey_results(results, count)
    chosen = calculator or calculator_label(code.name, found.calculators)
    if directory is not None and is_begun(directory):
        with Archive(directory) as before:
            problem = before.problem
    else:
        problem = found.problem(path, formula, gpa)
    where = directory or Path(f"{problem.formula}-{code.name}")
    with Archive(where, write=True) as archive:
        open_for_import(archive, problem, code.name, path, chosen)
        with counter("structures imported") as count:
            report = import_records(
                archive,
                results,
                source=code.name,
                problem=problem,
                calculator=chosen,
                omit=other_calculators(code.name, found.calculators, chosen),
                strict=strict,
                on_progress=lambda so_far: count(so_far.seen),
                processes=min(available_cores(), 4),
            )
        print_search(archive, 10)
        if archive.number_of_minima:
            write(
                archive.stream_final_minima(_EXPORTED),
                where / "minima.extxyz",
                follow=False,
                disagreement=disagreement(archive),
            )
    _print_report(report, where, chosen)


def _print_report(report: ImportReport, where: Path, calculator: str) -> None:
    parts = [f"{report.relaxed} relaxed", f"{report.failed} failed", f"{report.candidates} without an energy"]
    if report.linked:
        parts.append(f"{report.linked} from seeds that hybridcsp exported")
    if report.known:
        parts.append(f"{report.known} imported before")
    _print(f"Imported into {where}, energies by {calculator}: {', '.join(parts)}.")
    if report.others:
        listed = ", ".join(f"{name} ({n})" for name, n in report.others.most_common(8))
        _print(
            f"Skipped {report.others.total()} structures of other compositions: {listed}. Import each composition "
            "into a directory of its own with --formula."
        )
    if report.other_calculators:
        listed = ", ".join(f"{name} ({n})" for name, n in report.other_calculators.most_common(8))
        _print(
            f"Skipped {report.other_calculators.total()} structures with energies of other calculators, which cannot "
            f"be compared: {listed}. Import those of one into a directory of its own with --calculator NAME."
        )
    print_unreadable(report)


def print_unreadable(report: ImportReport) -> None:
    """Print the number of structures that could not be read, and the reasons for the first of them."""
    if not report.unreadable:
        return
    _print(f"{report.unreadable} structure{'s' * (report.unreadable != 1)} could not be read:")
    for failure in report.read_failures[:_SHOWN]:
        _print(f"  {failure}")
    if report.unreadable > _SHOWN:
        _print(f"  and {report.unreadable - _SHOWN} more")


@app.command(
    epilog="Examples:\n\n  hybridcsp export TiO2 --output minima.extxyz\n\n"
    "  hybridcsp export TiO2 --output cifs/ --format cif --top 20 --cell conventional\n\n"
    "  hybridcsp export TiO2 --output seeds/ --format poscar --top 20 --cell primitive\n\n"
    "  hybridcsp export TiO2 --format uspex --output uspex_run --top 10 --generation 5\n\n"
    "  hybridcsp export TiO2 --format airss --output airss_run --pending\n\n"
    "  hybridcsp export TiO2 --output minima.extxyz --predictor made\n\n"
    "  hybridcsp export samples.extxyz --format cryspy --output cryspy_run"
)
def export(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Run directory; for seeds, also structure files.")
    ],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="File format (extxyz, cif, poscar, res or json), or the code to write seeds for (uspex, calypso, "
            "airss, xtalopt or cryspy).",
            show_default="from the ending of --output, else extxyz",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A file (best.cif, best.extxyz.gz, or - for the standard output), or a folder (best/) with one file "
            "per minimum. For seeds: the folder that the code runs in.",
            show_default="DIRECTORY/minima.*",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="Number of minima to write.", min=1, show_default="all")
    ] = None,
    cell: Annotated[
        str, typer.Option(metavar="CELL", help="Cell of the structures: as-found, primitive or conventional.")
    ] = "as-found",
    generation: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Generation that starts with the seeds (USPEX only).", min=1, show_default="the next"
        ),
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option(
            metavar="ELEMENTS",
            help='All elements in the order of the code\'s input, such as "Ti O" (seeds only).',
            show_default="from the code's input",
        ),
    ] = None,
    pending: Annotated[
        bool,
        typer.Option("--pending", help="Write candidates that are not relaxed yet, instead of minima (seeds only)."),
    ] = False,
    predictor: Predictors = None,
) -> None:
    """Write the minima, best first, to structure files or as seeds for another code."""
    from hybridcsp.analysis.follow_ups import disagreement
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.archive.archive import Archive
    from hybridcsp.io.export import export as write
    from hybridcsp.io.formats import FORMATS as CODES
    from hybridcsp.io.structure_writer import FILE_FORMATS, format_of

    if format is not None and format not in FILE_FORMATS:
        if format not in CODES:
            named = next((name for name, one in FILE_FORMATS.items() if f".{format}" in one.endings), None)
            hint = f"files that end in .{format} have the format {named}" if named else ""
            raise UnknownNameError("--format", format, [*FILE_FORMATS, *CODES.entries()], hint)
        if predictor:
            reason = f"the files of {format} have no place for predicted values; write structure files instead"
            raise InputError("--predictor", [str(folder) for folder in predictor], reason=reason)
        _export_seeds(
            directory, format, None if output is None else Path(output), top, cell, generation, elements, pending
        )
        return
    for option, value in (("--generation", generation), ("--elements", elements), ("--pending", pending or None)):
        if value is not None:
            reason = "it is allowed only with --format uspex or another code that seeds are written for"
            raise InputError(option, value, reason=reason)
    predicted = PredictedValues.opened(predictor or ())
    chosen = format_of(output, format, key="--output") if output else FILE_FORMATS[format or "extxyz"]
    folder = chosen.single and top != 1
    default = directory / (f"minima-{chosen.name}" if folder else f"minima{chosen.endings[0]}")
    with Archive(directory) as archive:
        minima = archive.final_minima(top)
        files = write(
            minima,
            output or default,
            format=format,
            cell=cell,
            follow=output is not None,
            disagreement=disagreement(archive),
            more=lambda minimum: predicted.annotations(minimum.final.atoms),
        )
    where = files[0] if len(files) == 1 else files[0].parent
    messages = errors if is_stream(where) else console
    kind = f" ({len(files)} {chosen.name} files)" if len(files) > 1 else ""
    count = f"{len(minima)} {'minimum' if len(minima) == 1 else 'minima'}"
    messages.print(f"Wrote {count} to {where}{kind}", highlight=False, soft_wrap=True, markup=False)


def _export_seeds(
    directory: Path,
    format: str,
    output: Path | None,
    top: int | None,
    cell: str,
    generation: int | None,
    elements: str | None,
    pending: bool,
) -> None:
    """Write minima, pending candidates or structures of files as seeds for another code."""
    from hybridcsp.archive.archive import Archive
    from hybridcsp.core.records import USER, WORKERS
    from hybridcsp.io import formats
    from hybridcsp.io.export import records_of

    if output is None:
        raise InputError("--output", None, f"the folder that {format} runs in")
    settings = formats.SeedSettings(elements=tuple((elements or "").split()), generation=generation)
    if directory.exists() and not (directory / "search.db").exists():
        _export_files(directory, format, output, top, settings)
        return
    with Archive(directory) as archive:
        if pending:
            waiting = [*archive.pending(USER), *archive.pending(WORKERS)][:top]
            records = [
                formats.Record(atoms=candidate.atoms, id=str(candidate.id), origin=candidate.operator)
                for candidate in waiting
            ]
        else:
            records = records_of(archive.final_minima(top), cell, (archive.system or archive.problem).pressure_gpa)
    if not records:
        missing = "a search with pending candidates" if pending else "a search that has found a minimum"
        raise InputError("--pending" if pending else "directory", directory, f"{missing}; there is none to write")
    _print(formats.write(records, output, format, settings=settings))


def _export_files(path: Path, format: str, output: Path, top: int | None, settings: SeedSettings) -> None:
    """Write structures from files, such as samples of a generator, as seeds for another code."""
    from hybridcsp.io import formats
    from hybridcsp.io.frames import ReadFailure

    failures: list[ReadFailure] = []

    def readable() -> Iterator[formats.Record]:
        for record in formats.recognise(path).read(path):
            if isinstance(record, ReadFailure):
                failures.append(record)
            else:
                yield record

    _print(formats.write(islice(readable(), top), output, format, settings=settings))
    if failures:
        count = f"{len(failures)} structure{'s' * (len(failures) > 1)}"
        _print(f"{count} could not be read; the first: {failures[0]}")


def _print(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
