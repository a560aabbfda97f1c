"""``hybridcsp import`` and ``watch``: other codes' results in, seeds out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app, show_archive
from hybridcsp.cli.console import console
from hybridcsp.cli.progress import counter
from hybridcsp.errors import CommandLineError, InputError
from hybridcsp.utils.interrupts import terminate_in_order
from hybridcsp.utils.quantities import read_quantity
from hybridcsp.utils.resources import available_cores

if TYPE_CHECKING:
    from hybridcsp.io.formats import Record
    from hybridcsp.io.frames import ReadFailure
    from hybridcsp.workflows.import_results import ImportReport
    from hybridcsp.workflows.watch import Round

#: How many complaints are shown.
_SHOWN = 5

#: How many minima an import writes to a file; all that was read is in files already.
_EXPORTED = 1000


@app.command(
    "import",
    epilog="Examples:\n\n"
    "  hybridcsp import uspex_run                              results1, results2, … into the directory TiO2-uspex\n\n"
    "  hybridcsp import calypso/results --directory duel/calypso --strict\n\n"
    "  hybridcsp import airss_run --output airss.extxyz        a stream into one file, any number of structures\n\n"
    "  hybridcsp import my_cifs/ --formula TiO2                without energies: candidates for ask and tell",
)
def import_(
    path: Annotated[
        Path,
        typer.Argument(help="A folder that USPEX, CALYPSO, AIRSS, XtalOpt or CrySPY ran in, or structure files."),
    ],
    directory: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A new directory, or one of an earlier import.", show_default="FORMULA-CODE"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write a file instead, of all compositions, as a stream: .extxyz, .cif, .json, .res, also .gz.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="The code (hybridcsp formats).", show_default="as its files show"),
    ] = None,
    formula: Annotated[
        str | None,
        typer.Option(metavar="FORMULA", help="One formula unit.", show_default="that of most structures"),
    ] = None,
    pressure: Annotated[
        str | None,
        typer.Option(
            metavar="GPA",
            help="External pressure in GPa, or with its unit: 500kbar.",
            show_default="what the files say, or 0",
        ),
    ] = None,
    calculator: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="What the energies come from.", show_default="the code's name, uspex:VASP"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first structure that cannot be read.")] = False,
) -> None:
    """Read what another code found.

    Relaxed structures count as relaxations by that code, with its own variation operators; show, compare and export
    work on the directory; its minima.extxyz holds the 1000 best. Run it again to add what is new. Broken structures are
    left out, counted and named.
    """
    from hybridcsp.io import formats

    gpa = None if pressure is None else read_quantity("--pressure", pressure, "GPa")
    code = formats.load(format) if format else formats.recognise(path)
    if output is not None:
        if directory is not None:
            raise InputError("--output", output, "not beside --directory: one or the other")
        _stream(code.read(path), output, strict)
        return
    try:
        _archive(code, path, directory, formula, gpa, calculator, strict)
    except OSError as error:
        raise InputError("path", str(path), f"files that can be read ({error})") from error


def _stream(results: Iterator[Record | ReadFailure], output: str, strict: bool) -> None:
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
                        raise InputError("path", str(record.file), f"{record} (--strict)")
                else:
                    report.relaxed += 1
                    yield record

    with structure_writer(output, key="--output") as write:
        for record in readable():
            write(as_atoms(record))
        if not report.relaxed:
            raise InputError("structures", 0, "at least one structure to write")
    console.print(f"{report.relaxed} structures in {output}.", highlight=False, soft_wrap=True, markup=False)
    _complain(report)


def _archive(
    code: Any,
    path: Path,
    directory: Path | None,
    formula: str | None,
    gpa: float | None,
    calculator: str | None,
    strict: bool,
) -> None:
    from hybridcsp.archive.archive import Archive, is_begun
    from hybridcsp.io.export import export
    from hybridcsp.workflows.import_results import import_records, open_for_import
    from hybridcsp.workflows.survey import CachedResults, calculator_label, survey_results

    with counter("structures seen") as count:
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
        with counter("structures taken in") as count:
            report = import_records(
                archive,
                results,
                source=code.name,
                problem=problem,
                calculator=chosen,
                strict=strict,
                on_progress=lambda so_far: count(so_far.seen),
                processes=min(available_cores(), 4),
            )
        show_archive(archive, 10)
        if archive.number_of_minima:
            export(archive.stream_minima(_EXPORTED), where / "minima.extxyz", follow=False)
    _summarise(report, where, chosen)


def _summarise(report: ImportReport, where: Path, calculator: str) -> None:
    parts = [f"{report.relaxed} relaxed", f"{report.failed} failed", f"{report.candidates} without an energy"]
    if report.linked:
        parts.append(f"{report.linked} of these were ours")
    if report.known:
        parts.append(f"{report.known} there already")
    console.print(
        f"Into {where}, energies by {calculator}: {', '.join(parts)}.", highlight=False, soft_wrap=True, markup=False
    )
    if report.others:
        listed = ", ".join(f"{name} ({n})" for name, n in report.others.most_common(8))
        console.print(
            f"{report.others.total()} of other compositions left out: {listed}; import them with --formula, each into "
            f"a directory of its own.",
            highlight=False,
            soft_wrap=True,
        )
    _complain(report)


def _complain(report: ImportReport) -> None:
    if not report.unreadable:
        return
    console.print(f"{report.unreadable} could not be read:", highlight=False)
    for broken in report.read_failures[:_SHOWN]:
        console.print(f"  {broken}", markup=False, highlight=False, soft_wrap=True)
    if report.unreadable > _SHOWN:
        console.print(f"  and {report.unreadable - _SHOWN} more")


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp watch TiO2-watch --uspex uspex_run            5 seeds for each generation, until Ctrl-C\n\n"
    "  hybridcsp watch TiO2-watch --uspex uspex_run --once     one look, for scripts and cron\n\n"
    "  hybridcsp watch TiO2-watch --calypso run --seeds 8 --source evolution --source random"
)
def watch(
    directory: Annotated[Path, typer.Argument(help="The directory of our archive; made if it does not exist.")],
    uspex: Annotated[Path | None, typer.Option(help="The folder that USPEX runs in.")] = None,
    calypso: Annotated[Path | None, typer.Option(help="The folder that CALYPSO runs in, in split mode.")] = None,
    xtalopt: Annotated[Path | None, typer.Option(help="XtalOpt's working directory; seeds for its next run.")] = None,
    cryspy: Annotated[Path | None, typer.Option(help="The folder CrySPY runs in; seeds for its next run.")] = None,
    seeds: Annotated[int, typer.Option(help="Structures to give it for each generation.", min=1)] = 5,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Our sources, as for search; repeatable.", show_default="those of search"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    calculator: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="What the energies come from.", show_default="the code's name, uspex:VASP"),
    ] = None,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="Seconds between two looks.", min=0.1)] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Keep a running search of another code supplied with seeds.

    Whenever one of its generations ends, its results are read, the sources here learn from them, and what they propose
    is written where the code picks it up. It can be stopped at any moment and goes on where it was.
    """
    from hybridcsp.io import formats
    from hybridcsp.sources.registry import DEFAULT_SOURCES
    from hybridcsp.workflows.watch import Watch

    given = {"uspex": uspex, "calypso": calypso, "xtalopt": xtalopt, "cryspy": cryspy}
    chosen = [(name, path) for name, path in given.items() if path is not None]
    if len(chosen) != 1:
        raise CommandLineError(
            "watch needs the folder that one code runs in, --uspex, --calypso, --xtalopt or --cryspy; "
            f"{len(chosen) or 'none'} of them {'is' if len(chosen) < 2 else 'are'} given"
        )
    ((name, path),) = chosen
    code = formats.load(name)
    watching = Watch(
        directory,
        path,
        code,
        sources=source or DEFAULT_SOURCES,
        seed=seed,
        seeds=seeds,
        calculator=calculator,
    )
    said = ""
    terminate_in_order()
    with suppress(KeyboardInterrupt):
        while True:
            found = watching.check()
            text = _told(found)
            if text != said:
                console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True, markup=False)
                said = text
            if found.report is not None:
                _complain(found.report)
            if once:
                return
            time.sleep(every)
    console.print(f"Stopped; go on with the same command, or look: hybridcsp show {directory}", highlight=False)


def _told(found: Round) -> str:
    parts = [f"generation {found.finished} has ended" if found.finished else "no generation has ended yet"]
    if found.report is not None:
        report = found.report
        parts.append(f"read {report.relaxed} relaxed, {report.failed} failed")
        if report.linked:
            parts.append(f"{report.linked} of them began with our seeds")
    if found.given_up:
        parts.append(f"{found.given_up} of our seeds were not relaxed")
    if found.note:
        parts.append(found.note)
    return "; ".join(parts)
