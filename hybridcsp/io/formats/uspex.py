"""Format of USPEX: results in ``results*/gatheredPOSCARS`` with ``Individuals``, and seeds in ``Seeds/POSCARS``.

Seeds follow the grammar of USPEX's own ``pick_Seeds.m`` (9.3) and ``splitSeedsContext.m`` (10). The results of its
MATLAB releases, of its Python release (``Individuals`` as a table with bars) and of USPEX 25 (``number=``) are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.io.construction import internal_energy
from hybridcsp.io.formats.base import Generational, Record, SeedSettings
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import Block, read_poscars, write_poscar
from hybridcsp.io.text_files import KeyedStream, Lines, finite, parse_count, parse_float, yields_failures
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_text

#: Enthalpies in eV per cell from this value on mark a failed relaxation; USPEX writes 100000.
FAILED = 9999.0

#: Programs by their numbers in ``abinitioCode`` of INPUT.txt.
CODES = {
    1: "VASP", 2: "SIESTA", 3: "GULP", 4: "LAMMPS", 5: "ORCA", 6: "DMACRYS", 7: "CP2K", 8: "QuantumEspresso",
    9: "FHI-aims", 10: "ATK", 11: "CASTEP", 12: "Tinker", 13: "MOPAC",
}  # fmt: skip

_TITLE = re.compile(r"(?:EA|number=)\s*(\d+)")
_CELLS = re.compile(r"\[[^\]]*\]|[^\s\[\]]+")

#: Columns of Individuals, by the beginnings of their names in lower case.
_COLUMNS = {
    "generation": ("gen",),
    "id": ("id", "number"),
    "origin": ("origin",),
    "enthalpy": ("enthalpy", "energy"),
}

_Row = Mapping[str, str]


class Uspex(Generational):
    """The files of USPEX."""

    name = "uspex"
    accepts_seeds_while_running = True

    def recognises(self, path: Path) -> bool:
        """Return whether this is a folder that USPEX ran in, its results, or a file of its POSCARs."""
        if path.is_dir():
            return bool(_results(path))
        return "POSCARS" in path.name and _begins_with_title(path)

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield all structures in the order in which USPEX gathered them."""
        if not path.is_dir():
            yield from _read(path, "")
            return
        folders = _results(path)
        for folder in folders:
            prefix = f"{folder.name}/" if len(folders) > 1 else ""
            yield from _read(folder / "gatheredPOSCARS", prefix)

    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write ``Seeds/POSCARS_<generation>``, or ``Seeds/POSCARS`` for the next generation."""
        target = self.seeds(path, settings)
        if target.exists():
            raise InputError(
                "output", target, reason="the file exists already, and USPEX has not read the seeds in it yet"
            )
        elements = settings.elements or self.elements(path)
        n = 0
        make_folder(target.parent, key="output")
        with atomic_write(target) as stream:
            for n, record in enumerate(records, start=1):
                stream.write(write_poscar(record.atoms, _title(n, record.atoms), elements))
            if n == 0:
                raise InputError("structures", 0, reason="there is no structure to write")
        when = "the next generation" if settings.generation is None else f"generation {settings.generation}"
        return (
            f"{n} seeds in {target}, which USPEX reads when {when} starts. INPUT.txt needs no change; each seed must "
            f"have a composition that numSpecies allows (or a multiple of it, with variable composition)."
        )

    def seeds(self, path: Path, settings: SeedSettings) -> Path:
        """Return the file that seeds are written to; USPEX renames it when it reads them."""
        number = "" if settings.generation is None else f"_{settings.generation}"
        return path / "Seeds" / f"POSCARS{number}"

    def elements(self, path: Path) -> tuple[str, ...]:
        """Return the elements in ``atomType`` of the input file."""
        return tuple(_setup(path).get("atomType", "").split())

    def ready_for_seeds(self, path: Path) -> bool:
        """Return whether USPEX has read the previous seeds."""
        return not self.seeds(path, SeedSettings()).exists()

    def finished_generations(self, path: Path) -> int:
        """Return the last generation in BESTIndividuals, which USPEX extends at the end of each generation."""
        folders = _results(path)
        if not folders:
            return 0
        file = folders[-1] / "BESTIndividuals"
        ended = [parse_count(row.get("generation")) for row in _rows(file) if not isinstance(row, ReadFailure)]
        return max((generation for generation in ended if generation is not None), default=0)


def _results(path: Path) -> list[Path]:
    if (path / "gatheredPOSCARS").is_file():
        return [path]
    numbered = [
        (int(found.group(1)), folder)
        for folder in path.glob("results*")
        if (found := re.fullmatch(r"results(\d+)", folder.name)) and (folder / "gatheredPOSCARS").is_file()
    ]
    return [folder for _, folder in sorted(numbered)]


def _begins_with_title(file: Path) -> bool:
    with Lines(file) as lines:
        first = lines.peek(1)
    return bool(first and _TITLE.match(first[0]))


@yields_failures
def _read(file: Path, prefix: str) -> Iterator[Record | ReadFailure]:
    setup = _setup(file.parent) or _setup(file.parent.parent)
    pressure = _number(setup.get("ExternalPressure"))
    if pressure is None and "ExternalPressure" in setup:
        reason = f"ExternalPressure is {setup['ExternalPressure'][:20]!r}, not a number; the pressure is unknown"
        yield ReadFailure(file=file.parent, line=1, reason=reason)
    calculator = CODES.get(parse_count(["", *setup.get("abinitioCode", "").split()][-1]) or 0, "")
    gathered = file.name == "gatheredPOSCARS"
    individuals = KeyedStream(_rows_by_id(file.with_name("Individuals") if gathered else None))
    origins = KeyedStream(_origins(file.with_name("origin") if gathered else None))
    unrelaxed = KeyedStream(_unrelaxed(file.with_name("gatheredPOSCARS_unrelaxed") if gathered else None))
    for block in read_poscars(file):
        if isinstance(block, ReadFailure):
            yield block
            continue
        title = _TITLE.match(block.title)
        number = title.group(1) if title else ""
        row = individuals.pop(number) or {}
        enthalpy = _number(row.get("enthalpy"))
        failed = enthalpy is not None and enthalpy >= FAILED
        if failed:
            enthalpy = None
        yield Record(
            atoms=block.atoms,
            enthalpy=enthalpy,
            energy=internal_energy(block.atoms, enthalpy, pressure),
            pressure_gpa=pressure,
            id=f"{prefix}{number}",
            origin=row.get("origin") or origins.pop(number) or "",
            generation=parse_count(row.get("generation")),
            calculator=calculator,
            start=unrelaxed.pop(number),
            failure=f"enthalpy {row['enthalpy']}" if failed else "",
            file=file,
            line=block.line,
        )
        for lookup in (individuals, origins, unrelaxed):
            yield from lookup.new_failures()


def _title(number: int, atoms: Atoms) -> str:
    # USPEX evaluates text between brackets in a title as numbers of molecules, so nothing may be added to the title.
    a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
    return f"EA{number:<4d} {a:.3f} {b:.3f} {c:.3f} {alpha:.2f} {beta:.2f} {gamma:.2f} no SG"


def _setup(folder: Path) -> dict[str, str]:
    """Read the ``value : keyword`` lines and ``% keyword`` blocks of INPUT.txt, or of its copy in a results folder."""
    file = next((folder / name for name in ("Parameters.txt", "INPUT.txt") if (folder / name).is_file()), None)
    if file is None:
        return {}
    found: dict[str, str] = {}
    block: list[str] = []
    keyword = ""
    for raw in read_text(file).splitlines():
        line = raw.strip()
        mark = re.match(r"%\s*(\w+)", line)
        if mark and mark.group(1).lower().startswith("end"):
            if keyword:
                found[keyword] = " ".join(block)
            keyword = ""
        elif mark:
            keyword, block = mark.group(1), []
        elif keyword and line:
            block.append(line)
        elif value := re.match(r"(\S+)\s*:\s*(\w+)", line):
            found[value.group(2)] = value.group(1)
    return found


def _rows_by_id(file: Path | None) -> Iterator[tuple[str, _Row] | ReadFailure]:
    for row in _rows(file) if file else ():
        yield row if isinstance(row, ReadFailure) else (row.get("id", ""), row)


@yields_failures
def _rows(file: Path) -> Iterator[_Row | ReadFailure]:
    """Yield the rows of Individuals by the names of :data:`_COLUMNS`."""
    if not file.is_file():
        return
    columns: dict[str, int] = {}
    width = 0
    with Lines(file) as lines:
        while head := lines.peek(1):
            cells = _cells(head[0])
            if not columns and any(cell.lower() == "origin" for cell in cells):
                columns, width = _columns(cells), len(cells)
            elif any(cell.isdecimal() for cell in cells[:2]):
                if len(cells) < width or not columns:
                    yield lines.failure(
                        f"a row of {len(cells)} columns, where {width or 'a line with their names'} was expected"
                    )
                else:
                    yield {name: cells[at] for name, at in columns.items()}
            lines.skip(1)


def _columns(cells: list[str]) -> dict[str, int]:
    found = {}
    for name, beginnings in _COLUMNS.items():
        at = next((i for i, cell in enumerate(cells) if cell.lower().startswith(beginnings)), None)
        if at is not None:
            found[name] = at
    return found


def _cells(line: str) -> list[str]:
    if line.lstrip().startswith("|"):
        return [cell.strip() for cell in line.strip().strip("|").split("|")]
    return _CELLS.findall(line)


@yields_failures
def _origins(file: Path | None) -> Iterator[tuple[str, str] | ReadFailure]:
    """Yield the identifier and origin of each structure from ``ID Origin …`` lines."""
    if file is None or not file.is_file():
        return
    with Lines(file) as lines:
        while head := lines.peek(1):
            tokens = head[0].split()
            if len(tokens) > 1 and tokens[0].isdecimal():
                yield tokens[0], tokens[1]
            lines.skip(1)


@yields_failures
def _unrelaxed(file: Path | None) -> Iterator[tuple[str, Atoms] | ReadFailure]:
    if file is None or not file.is_file():
        return
    for block in read_poscars(file):
        if isinstance(block, Block):
            title = _TITLE.match(block.title)
            yield title.group(1) if title else "", block.atoms
        else:
            yield block


def _number(text: str | None) -> float | None:
    return None if text is None else finite(parse_float(text))
