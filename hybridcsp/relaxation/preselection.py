"""Selection of the most promising structure, among several, that a job then relaxes."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from hybridcsp.core.records import Candidate, FailureReason
from hybridcsp.relaxation.guards import JobEnded

#: Fall of the enthalpy (eV/atom) that a relaxation is expected to bring, per largest force on an atom (eV/Å), and the
#: largest force that counts, since the greater ones are those of two atoms that are too close.
FALL_PER_FORCE, LARGEST_FORCE = 0.07, 20.0

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


@dataclass(frozen=True, slots=True)
class Starts:
    """The structures from which a job could have started.

    Attributes
    ----------
    enthalpies
        Enthalpy per atom of each structure in eV; ``None`` for a skipped one.
    estimates
        Estimate of the enthalpy per atom in eV that each relaxes to; ``None`` for a skipped one.
    """

    enthalpies: tuple[float | None, ...] = ()
    estimates: tuple[float | None, ...] = ()


def start_from_most_promising(atoms: Atoms, candidate: Candidate) -> Starts:
    """Move the atoms to the most promising of the structures of a candidate, with one force call for each.

    A structure promises the more, the lower its enthalpy and the larger the forces that it can follow: its estimate is
    the enthalpy minus :data:`FALL_PER_FORCE` times the largest force. Structures that cannot be evaluated, or that a
    guard would reject during a relaxation, are skipped.

    Parameters
    ----------
    atoms
        The first structure, with a guarded calculator; its positions and its cell are changed.
    candidate
        The candidate whose further structures are evaluated too.

    Raises
    ------
    JobEnded
        If a limit of the job is reached, or if every structure is skipped.

    Notes
    -----
    The factor was chosen on 1,900 relaxations of random starts in 17 systems (EMT, Lennard-Jones and ionic pair
    potentials, 5 to 16 atoms; ``benchmarks/racing.py``). Where two of six starts are relaxed, those of lowest estimate
    reach one of the lowest 3 to 8 % of minima with 0.71 of the force calls of single starts (geometric mean), and with
    no more than 1.3 times as many in any system. With twelve starts and three relaxations these numbers are 0.72 and
    4.2, or 0.88 and 4.5 with energies alone, which lead astray in alloys, where loose starts fall far. Further rounds,
    in which the better half is relaxed for 6 to 12 steps (successive halving: Jamieson, Talwalkar, arXiv:1502.07943),
    gained nothing over that: 0.70 to 0.85.

    References
    ----------
    Look ahead based on quadratic approximation, which weighs energies and forces in the same way: Terayama, Yamashita,
    Oguchi, Tsuda, npj Comput. Mater. 4, 32 (2018), doi:10.1038/s41524-018-0090-y.
    """
    starts = [atoms.copy(), *candidate.starts[1:]]
    enthalpies: list[float | None] = [None] * len(starts)
    estimates: list[float | None] = [None] * len(starts)
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
        enthalpy = (energy + atoms.calc.pressure * float(atoms.get_volume())) / len(atoms)
        enthalpies[number] = enthalpy
        estimates[number] = enthalpy - FALL_PER_FORCE * min(atoms.calc.max_force or 0.0, LARGEST_FORCE)
    known = [(estimate, number) for number, estimate in enumerate(estimates) if estimate is not None]
    if not known:
        assert failure is not None, "there is at least one structure"
        raise failure
    _move(atoms, starts[min(known)[1]])
    return Starts(tuple(enthalpies), tuple(estimates))


def _move(atoms: Atoms, to: Atoms) -> None:
    atoms.set_cell(to.cell)
    atoms.positions[:] = to.positions
