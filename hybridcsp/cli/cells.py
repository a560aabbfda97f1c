"""Read the contents of the cells that a generator is to sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.utils.reading import read_text

#: Largest number of atoms in a sampled cell.
MOST_SAMPLED = 1000


def cells_of_file(file: Path) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield line number (from 0) and contents of each line of a file that is not blank or a comment."""
    try:
        lines = read_text(file).splitlines()
    except UnreadableError as error:
        raise InputError("--formulas", file, f"a text file ({error.reason})") from error
    formulas = {i: line.strip() for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")}
    if not formulas:
        raise InputError("--formulas", file, "a file with at least one formula")
    for i, formula in formulas.items():
        yield i, contents_of(formula, 1, f"--formulas, line {i + 1}")


def contents_of(formula: str, units: int, key: str) -> dict[str, int]:
    """Return the contents of a cell of some formula units.

    Raises
    ------
    InputError
        If the text is not a formula, or the cell has more than :data:`MOST_SAMPLED` atoms.
    """
    from hybridcsp.core.problem import Problem

    try:
        composition = Problem(formula, formula_units=1, max_atoms=10**6).composition
    except InputError as error:
        raise error.renamed(key, formula) from None
    atoms = units * sum(composition.values())
    if atoms > MOST_SAMPLED:
        many = f"{units} formula unit{'s are' if units > 1 else ' is'} {atoms} atoms"
        raise InputError(key, formula, f"a cell of at most {MOST_SAMPLED} atoms; {many}")
    return {symbol: count * units for symbol, count in composition.items()}
