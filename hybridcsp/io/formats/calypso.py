"""Format of CALYPSO: results in ``pso_ini_N`` and ``pso_opt_N``, and the numbered POSCARs of its split mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hybridcsp.errors import InputError
from hybridcsp.io.construction import internal_energy
from hybridcsp.io.formats.base import Generational, Record, SeedSettings
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import Block, read_poscars, write_poscar
from hybridcsp.io.text_files import finite, parse_count, parse_float, yields_failures
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_text

#: Enthalpies in eV per atom from this value on mark a failed relaxation; CALYPSO writes 610612509.
FAILED = 610612508.0

#: Programs by their numbers in ``ICode`` of input.dat.
CODES = {1: "VASP", 2: "SIESTA", 3: "GULP", 4: "PWSCF", 5: "CASTEP", 6: "CP2K", 7: "Gaussian", 9: "LAMMPS", 15: "MLP"}

_RESULT = re.compile(r"pso_(ini|opt)_(\d+)")


class Calypso(Generational):
    """The files of CALYPSO (Fortran)."""

    name = "calypso"
    accepts_seeds_while_running = True

    def recognises(self, path: Path) -> bool:
        """Return whether this is a folder that CALYPSO ran in, its results, or one of its result files."""
        return bool(_files(path)) or (path.is_dir() and (path / "input.dat").is_file() and (path / "step").is_file())

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield all structures, generation by generation."""
        found = _files(path)
        if not found:
            return
        run = _run(next(iter(next(iter(found.values())).values())).parent)
        yield from run.failures
        for generation, files in found.items():
            yield from _read(generation, files, run)

    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write ``POSCAR_n`` files; if CALYPSO has written its own, replace the last of these."""
        elements = settings.elements or self.elements(path)
        own = sorted(n for file in path.glob("POSCAR_*") if (n := parse_count(file.name[7:])) is not None)
        structures = list(islice(records, len(own) if own else None))
        if not structures:
            raise InputError("structures", 0, reason="there is no structure to write")
        numbers = own[-len(structures) :] if own else range(1, len(structures) + 1)
        make_folder(path, key="output")
        for number, record in zip(numbers, structures, strict=True):
            with atomic_write(path / f"POSCAR_{number}") as stream:
                stream.write(write_poscar(record.atoms, f"hybridcsp_{number}", elements))
        which = f"POSCAR_{numbers[0]} to POSCAR_{numbers[-1]}"
        done = f"in place of CALYPSO's own {which}" if own else f"as {which}"
        return (
            f"{len(structures)} seeds in {path} {done}. They need split mode (Split = T in input.dat): relax POSCAR_n, "
            f"put CONTCAR_n and OUTCAR_n beside it, and run calypso.x for the next step. NameOfAtoms must be "
            f"{' '.join(elements) or 'in the order of the POSCARs'}."
        )

    def elements(self, path: Path) -> tuple[str, ...]:
        """Return the elements in ``NameOfAtoms`` of the input file."""
        return _elements(path)

    def ready_for_seeds(self, path: Path) -> bool:
        """Return whether CALYPSO has written POSCARs of its own, which seeds can replace."""
        return any(path.glob("POSCAR_*"))

    def finished_generations(self, path: Path) -> int:
        """Return the generation before the one in the file ``step``, or else the last with complete results."""
        step = path / "step"
        found = _files(path)
        complete = [number for number, files in found.items() if "opt" in files]
        last = max(complete, default=0)
        if step.is_file() and (following := parse_count(read_text(step).strip())):
            return min(following - 1, last)
        population = parse_count(_setup(path).get("popsize"))
        if last and population is not None:
            blocks = sum(isinstance(block, Block) for block in read_poscars(found[last]["opt"], _elements(path)))
            return last if blocks >= population else last - 1
        return max(last - 1, 0)


def _files(path: Path) -> dict[int, dict[str, Path]]:
    """Return result files by generation and kind ("ini", "opt")."""
    names = [path] if path.is_file() else [*path.glob("pso_*"), *path.glob("results/pso_*")]
    found: dict[int, dict[str, Path]] = {}
    for file in names:
        if kind := _RESULT.fullmatch(file.name):
            found.setdefault(int(kind.group(2)), {})[kind.group(1)] = file
    return dict(sorted(found.items()))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """The settings of a run in its input files, and failures to read them.

    Attributes
    ----------
    elements
        The elements in the order of the result files.
    calculator
        The program that relaxes; empty if unknown.
    pressure_gpa
        The external pressure in GPa; ``None`` if unknown.
    failures
        Values in the input files that are not numbers.
    """

    elements: tuple[str, ...]
    calculator: str
    pressure_gpa: float | None
    failures: tuple[ReadFailure, ...]


def _run(results: Path) -> _Run:
    """Read the input files in a folder of results or in its parent folder."""
    folder = results if (results / "input.dat").is_file() else results.parent
    setup = _setup(folder)
    failures = []
    code = parse_count(setup.get("icode", "0"))
    if code is None:
        reason = (
            f"ICode = {setup['icode'][:20]!r} is not a whole number; the program that relaxed the structures is unknown"
        )
        failures.append(ReadFailure(file=folder / "input.dat", line=1, reason=reason))
    calculator = CODES.get(code or 0, "")
    pressure = _pressure(folder) if calculator == "VASP" else None
    if isinstance(pressure, ReadFailure):
        failures.append(pressure)
        pressure = None
    return _Run(
        elements=tuple(setup.get("nameofatoms", "").split()),
        calculator=calculator,
        pressure_gpa=pressure,
        failures=tuple(failures),
    )


@yields_failures
def _read(generation: int, files: dict[str, Path], run: _Run) -> Iterator[Record | ReadFailure]:
    pressure = run.pressure_gpa
    starts = read_poscars(files["ini"], run.elements) if "ini" in files else iter(())
    if "opt" not in files:
        yield from _unrelaxed(generation, files["ini"], run.elements)
        return
    number = 0
    for block in read_poscars(files["opt"], run.elements):
        number += 1
        start = next(starts, None)
        if isinstance(block, ReadFailure):
            yield block
            continue
        value = parse_float(block.before)
        failed = value is not None and value >= FAILED
        enthalpy = None if failed or finite(value) is None or value is None else value * len(block.atoms)
        yield Record(
            atoms=block.atoms,
            enthalpy=enthalpy,
            energy=internal_energy(block.atoms, enthalpy, pressure),
            pressure_gpa=pressure,
            id=f"{generation}_{number}",
            origin="",
            generation=generation,
            calculator=run.calculator,
            start=start.atoms if isinstance(start, Block) and _same_contents(start, block) else None,
            failure=f"enthalpy {block.before}" if failed else "",
            file=files["opt"],
            line=block.line,
        )


def _same_contents(first: Block, second: Block) -> bool:
    return sorted(first.atoms.numbers) == sorted(second.atoms.numbers)


@yields_failures
def _unrelaxed(generation: int, file: Path, elements: tuple[str, ...]) -> Iterator[Record | ReadFailure]:
    for number, block in enumerate(read_poscars(file, elements), start=1):
        if isinstance(block, ReadFailure):
            yield block
        else:
            yield Record(
                atoms=block.atoms, id=f"{generation}_{number}", generation=generation, file=file, line=block.line
            )


def _elements(path: Path) -> tuple[str, ...]:
    return tuple(_setup(path).get("nameofatoms", "").split())


def _setup(folder: Path) -> dict[str, str]:
    """Read the ``Tag = values`` lines of input.dat, with tags in lower case."""
    file = folder / "input.dat"
    if not file.is_file():
        return {}
    found = {}
    for raw in read_text(file).splitlines():
        tag, equals, value = raw.partition("#")[0].partition("=")
        if equals:
            found[tag.strip().lower()] = value.strip()
    return found


def _pressure(folder: Path) -> float | ReadFailure:
    """Return the pressure in GPa that the last INCAR sets (0 by default), or why it cannot be read."""
    incars = sorted(folder.glob("INCAR*"))
    if not incars:
        return 0.0
    for number, line in enumerate(read_text(incars[-1]).splitlines(), start=1):
        for statement in re.split("[!#]", line, maxsplit=1)[0].split(";"):
            tag, equals, value = statement.partition("=")
            if equals and tag.strip().upper() == "PSTRESS":
                kbar = finite(parse_float((value.split() or [""])[0]))
                if kbar is not None:
                    return kbar / 10
                reason = f"PSTRESS = {value.strip()[:20]!r} is not a number; the pressure of the run is unknown"
                return ReadFailure(file=incars[-1], line=number, reason=reason)
    return 0.0
