"""What a job does that has several structures to begin with: one energy of each, and the lowest is relaxed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ase import Atoms

from hybridcsp.core.records import FailureReason, rivals
from hybridcsp.relaxation.guards import Ended

#: What is wrong with one structure only.
_OF_ONE = frozenset(
    {
        FailureReason.CALCULATOR,
        FailureReason.WRONG_RESULTS,
        FailureReason.NON_FINITE,
        FailureReason.FORCE_EXPLOSION,
        FailureReason.OVERLAP,
        FailureReason.ISOLATED_ATOMS,
        FailureReason.VOLUME,
    }
)


def begin_with_lowest(atoms: Atoms, tag: Mapping[str, Any]) -> list[float | None]:
    """Put the atoms where, of several structures, the enthalpy is lowest: one call for each.

    Structures that cannot be evaluated, or that a guard would end a relaxation of, are passed over.

    Parameters
    ----------
    atoms
        The first structure, with a guarded calculator; positions and cell are changed.
    tag
        Holds the others, see :func:`hybridcsp.core.records.rivals`.

    Returns
    -------
    list of (float or None)
        Enthalpy per atom of each in eV, ``None`` for what was passed over.

    Raises
    ------
    Ended
        If a limit of the job is reached, or none of the structures can be evaluated.
    """
    starts = [atoms.copy(), *rivals(atoms, tag)]
    enthalpies: dict[int, float] = {}
    failure: Ended | None = None
    for number, start in enumerate(starts):
        _move(atoms, start)
        try:
            energy = float(atoms.get_potential_energy())
        except Ended as ended:
            if ended.reason not in _OF_ONE:
                raise
            failure = failure or ended
            continue
        enthalpies[number] = energy + atoms.calc.pressure * float(atoms.get_volume())
    if not enthalpies:
        assert failure is not None, "there is at least one structure"
        raise failure
    _move(atoms, starts[min(enthalpies, key=enthalpies.__getitem__)])
    return [enthalpies[number] / len(atoms) if number in enthalpies else None for number in range(len(starts))]


def _move(atoms: Atoms, to: Atoms) -> None:
    atoms.set_cell(to.cell)
    atoms.positions[:] = to.positions
