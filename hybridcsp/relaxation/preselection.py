"""Selection of the structure of lowest enthalpy, among several, that a job then relaxes."""

from __future__ import annotations

from ase import Atoms

from hybridcsp.core.records import Candidate, FailureReason
from hybridcsp.relaxation.guards import JobEnded

#: Reasons for which one structure is skipped while the others are still evaluated.
_SKIPPED = frozenset(
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


def start_from_lowest(atoms: Atoms, candidate: Candidate) -> list[float | None]:
    """Move the atoms to the structure of lowest enthalpy among those of a candidate, with one force call for each.

    Structures that cannot be evaluated, or that a guard would reject during a relaxation, are skipped.

    Parameters
    ----------
    atoms
        The first structure, with a guarded calculator; its positions and its cell are changed.
    candidate
        The candidate whose further structures are evaluated too.

    Returns
    -------
    list of (float or None)
        Enthalpy per atom of each structure in eV; ``None`` for a skipped one.

    Raises
    ------
    JobEnded
        If a limit of the job is reached, or if every structure is skipped.
    """
    starts = [atoms.copy(), *candidate.starts[1:]]
    enthalpies: dict[int, float] = {}
    failure: JobEnded | None = None
    for number, start in enumerate(starts):
        _move(atoms, start)
        try:
            energy = float(atoms.get_potential_energy())
        except JobEnded as ended:
            if ended.reason not in _SKIPPED:
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
