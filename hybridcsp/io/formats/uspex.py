"""USPEX: ``results*/gatheredPOSCARS`` with ``Individuals``, and ``Seeds/POSCARS``.

Seeds are written to the grammar that USPEX's own ``pick_Seeds.m`` (9.3) and ``splitSeedsContext.m`` (10) read. Read is
what its MATLAB releases, its Python release (``Individuals`` as a table with bars) and USPEX 25 (``number=``) write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.io.construction import internal_energy
from hybridcsp.io.formats.base import Record, Settings
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import Block, read_poscars, write_poscar
from hybridcsp.io.text_files import KeyedStream, Lines, finite, parse_count, parse_float, yields_failures
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_text

#: Enthalpies (eV per cell) from here on stand for a relaxation that failed; USPEX writes 100000.
FAILED = 9999.0

#: ``abinitioCode`` in INPUT.txt.
CODES = {
    1: "VASP", 2: "SIESTA", 3: "GULP", 4: "LAMMPS", 5: "ORCA", 6: "DMACRYS", 7: "CP2K", 8: "QuantumEspresso",
    9: "FHI-aims", 10: "ATK", 11: "CASTEP", 12: "Tinker", 13: "MOPAC",
}  # fmt: skip

_TITLE = re.compile(r"(?:EA|number=)\s*(\d+)")
_CELLS = re.compile(r"\[[^\]]*\]|[^\s\[\]]+")

#: Columns of Individuals, by what their names begin with in lower case.
_COLUMNS = {
    "generation": ("gen",),
    "id": ("id", "number"),
    "origin": ("origin",),
    "enthalpy": ("enthalpy", "energy"),
}

_Row = Mapping[str, str]


class Uspex:
    """The files of USPEX."""

    name = "uspex"
    takes_seeds_between = True

    def recognises(self, path: Path) -> bool:
        """Whether this is a folder that USPEX ran in, its results, or a file of its POSCARs."""
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

    def write(self, records: Iterable[Record], path: Path, settings: Settings) -> str:
        """Write ``Seeds/POSCARS_<generation>``, or ``Seeds/POSCARS`` for the next generation that begins."""
        target = self.seeds(path, settings)
        if target.exists():
            raise InputError("output", str(target), "a file that is not there: USPEX has not picked these seeds up yet")
        elements = settings.elements or self.elements(path)
        n = 0
        make_folder(target.parent, key="output")
        with atomic_write(target) as stream:
            for n, record in enumerate(records, start=1):
                stream.write(write_poscar(record.atoms, _title(n, record.atoms), elements))
            if n == 0:
                raise InputError("structures", 0, "at least one structure to write")
        when = "the next generation" if settings.generation is None else f"generation {settings.generation}"
        return (
            f"{n} seeds in {target}, which USPEX reads when {when} begins. INPUT.txt needs no change; every seed must "
            f"be of a composition that numSpecies (or its multiples, with variable composition) allows."
        )

    def seeds(self, path: Path, settings: Settings) -> Path:
        """Return the file that seeds are written to; USPEX renames it when it picks them up."""
        number = "" if settings.generation is None else f"_{settings.generation}"
        return path / "Seeds" / f"POSCARS{number}"

    def elements(self, path: Path) -> tuple[str, ...]:
        """Return all elements in the order of its input file."""
        return tuple(_setup(path).get("atomType", "").split())

    def waiting(self, path: Path) -> bool:
        """Whether seeds for the next generation were not picked up yet."""
        return self.seeds(path, Settings()).exists()

    def finished(self, path: Path) -> int:
        """Return how many generations have ended: those in BESTIndividuals, which USPEX writes at the end of each."""
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
        reason = f"ExternalPressure is {setup['ExternalPressure'][:20]!r}, not a number: the pressure is not known"
        yield ReadFailure(file=file.parent, line=1, reason=reason)
    calculator = CODES.get(parse_count(["", *setup.get("abinitioCode", "").split()][-1]) or 0, "")
    gathered = file.name == "gatheredPOSCARS"
    individuals = KeyedStream(_by_id(file.with_name("Individuals") if gathered else None))
    origins = KeyedStream(_origins(file.with_name("origin") if gathered else None))
    unrelaxed = KeyedStream(_starts(file.with_name("gatheredPOSCARS_unrelaxed") if gathered else None))
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
    # USPEX evaluates what stands between brackets in a title as numbers of molecules: nothing may be added to it.
    a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
    return f"EA{number:<4d} {a:.3f} {b:.3f} {c:.3f} {alpha:.2f} {beta:.2f} {gamma:.2f} no SG"


def _setup(folder: Path) -> dict[str, str]:
    """Read ``value : keyword`` lines and ``% keyword`` blocks of INPUT.txt, or of the copy in a results folder."""
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


def _by_id(file: Path | None) -> Iterator[tuple[str, _Row] | ReadFailure]:
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
                    yield lines.failure(f"{len(cells)} columns, expected {width or 'a line with their names before'}")
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
    """Yield what made each structure, from ``ID Origin …`` lines."""
    if file is None or not file.is_file():
        return
    with Lines(file) as lines:
        while head := lines.peek(1):
            tokens = head[0].split()
            if len(tokens) > 1 and tokens[0].isdecimal():
                yield tokens[0], tokens[1]
            lines.skip(1)


@yields_failures
def _starts(file: Path | None) -> Iterator[tuple[str, Atoms] | ReadFailure]:
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
