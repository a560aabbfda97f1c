"""Survey of another code's results, from which the problem that they belong to is derived before an import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.utils.resources import garbage_collection_paused

#: Maximum number of results held in memory, at about 3 kB each, so that they need not be read twice.
MAX_CACHED = 150_000


@dataclass(kw_only=True)
class Survey:
    """Compositions, pressures and calculators of a set of results.

    Attributes
    ----------
    sizes
        By reduced formula: the smallest and the largest number of its units in a cell, and the number of structures.
    pressures_gpa
        External pressures in GPa of the structures that state one.
    calculators
        Number of structures by the program that computed their energies.
    failure
        The first part of the files that cannot be read; ``None`` if all can.
    """

    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    pressures_gpa: list[float] = field(default_factory=list)
    calculators: Counter[str] = field(default_factory=Counter)
    failure: ReadFailure | None = None

    def problem(self, path: Path, formula: str | None = None, pressure_gpa: float | None = None) -> Problem:
        """Return the problem that the results belong to.

        Parameters
        ----------
        path
            The location of the results, for error messages.
        formula
            One formula unit; by default that of most structures.
        pressure_gpa
            External pressure in GPa; by default the median of the results, rounded to one decimal.

        Raises
        ------
        InputError
            If there are no structures, or none of the formula.
        """
        if not self.sizes:
            why = "" if self.failure is None else f" ({self.failure})"
            raise InputError("path", path, reason=f"there is no structure that can be read{why}")
        chosen = formula or max(self.sizes, key=lambda name: self.sizes[name][2])
        unit = Problem(chosen, max_atoms=10**6, formula_units=1)
        reduced = reduced_formula(unit.contents(1))
        if reduced not in self.sizes:
            there = ", ".join(f"{name} ({n})" for name, (_, _, n) in self.sizes.items())
            raise InputError("--formula", chosen, f"a composition that occurs: {there}")
        low, high, _ = self.sizes[reduced]
        atoms = unit.atoms_per_unit
        per_reduced = atoms // sum(Problem(reduced, max_atoms=10**6, formula_units=1).composition.values())
        if pressure_gpa is None:
            # Slightly negative pressures are the residual stress of relaxations at zero pressure.
            pressure_gpa = max(0.0, round(median(self.pressures_gpa), 1)) if self.pressures_gpa else 0.0
        low, high = max(1, low // per_reduced), max(1, high // per_reduced)
        return Problem(chosen, formula_units=(low, high), max_atoms=high * atoms, pressure_gpa=pressure_gpa)


def survey_results(
    results: Iterable[Record | ReadFailure], on_progress: Callable[[int], None] = lambda _: None
) -> Survey:
    """Survey results in one pass.

    Parameters
    ----------
    results
        The records of a :class:`~hybridcsp.io.formats.Format`.
    on_progress
        Called for each result with the number of results so far.
    """
    with garbage_collection_paused():  # many results may be cached, which makes collections slow
        return _survey(results, on_progress)


def _survey(results: Iterable[Record | ReadFailure], on_progress: Callable[[int], None]) -> Survey:
    found = Survey()
    reductions: dict[str, tuple[str, int]] = {}
    for n, record in enumerate(results, start=1):
        on_progress(n)
        if isinstance(record, ReadFailure):
            found.failure = found.failure or record
            continue
        formula = record.atoms.get_chemical_formula()
        if formula not in reductions:
            counts = Counter(record.atoms.symbols)
            reduced = reduced_formula(counts)
            reductions[formula] = reduced, len(record.atoms) // Problem(reduced, max_atoms=10**6).atoms_per_unit
        name, units = reductions[formula]
        low, high, known = found.sizes.get(name, (units, units, 0))
        found.sizes[name] = min(low, units), max(high, units), known + 1
        if record.pressure_gpa is not None and record.enthalpy is not None:
            found.pressures_gpa.append(record.pressure_gpa)
        if record.calculator:
            found.calculators[record.calculator] += 1
    return found


class CachedResults:
    """Results that can be iterated several times and are read once, unless there are too many to hold in memory.

    Parameters
    ----------
    read
        A function that reads the results from the beginning.
    """

    def __init__(self, read: Callable[[], Iterable[Record | ReadFailure]]) -> None:
        self._read = read
        self._cached: list[Record | ReadFailure] | None = None

    def __iter__(self) -> Iterator[Record | ReadFailure]:
        if self._cached is not None:
            yield from self._cached
            return
        cached: list[Record | ReadFailure] = []
        for item in self._read():
            if len(cached) <= MAX_CACHED:
                cached.append(item)
            yield item
        if len(cached) <= MAX_CACHED:
            self._cached = cached


def up_to_generation(results: Iterable[Record | ReadFailure], generation: int) -> Iterator[Record | ReadFailure]:
    """Yield the results without those of later generations."""
    for record in results:
        if isinstance(record, ReadFailure) or record.generation is None or record.generation <= generation:
            yield record


def calculator_label(source: str, calculators: Mapping[str, int]) -> str:
    """Return a label for the calculator of a code's energies: ``"uspex:VASP"``, or ``"uspex"`` if it is unknown.

    Parameters
    ----------
    source
        The name of the code.
    calculators
        Number of structures by calculator; the most frequent one is used.
    """
    return f"{source}:{max(calculators, key=lambda name: calculators[name])}" if calculators else source


def other_calculators(source: str, calculators: Mapping[str, int], label: str) -> set[str]:
    """Return the calculators of a code's energies other than the one that a label names; none if it names no one.

    Parameters
    ----------
    source
        The name of the code.
    calculators
        Number of structures by calculator.
    label
        The label of the calculator whose energies are used.
    """
    named = {name for name in calculators if label in (name, f"{source}:{name}")}
    return set(calculators) - named if named else set()


def reduced_formula(counts: Mapping[str, int]) -> str:
    """Return the reduced formula of contents, the number of atoms of each element."""
    from ase.formula import Formula

    return str(Formula.from_dict(dict(counts)).reduce()[0].format("metal"))
