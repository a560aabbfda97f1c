"""Capture of relaxations by known minima: one that has come close enough to a known minimum need not go on."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from hybridcsp.core.records import KnownMinimum
from hybridcsp.relaxation.guards import GuardedCalculator
from hybridcsp.similarity import Descriptors, compute_descriptors
from hybridcsp.similarity.fingerprint import environment_distance

#: A relaxation is captured if its largest force (eV/Å), its enthalpy above that of the known minimum (eV/atom), the
#: logarithm of the ratio of the volumes, and the mean difference of the environments of the atoms (in cube roots of the
#: volume per atom) are no larger. It must not lie below the minimum by more than DEPTH.
MAX_FORCE = 0.5
WINDOW = 0.01
VOLUME = 0.05
ENVIRONMENTS = 0.05
DEPTH = 0.001

#: Largest ratio of the difference to that one force call before: what passes by a minimum does not come nearer so fast.
APPROACH = 0.8


class Captor:
    """Find the known minimum in whose basin a relaxation is.

    Replaying 243 relaxations of model potentials, EMT and CHGNet (TiO2) against the minima of the others, these limits
    saved 8 % of all force calls, and 2 of 114 captures were false: one relaxation would have ended in a structure
    5 meV/atom lower that consists of the same layers, one (EMT) in another that is 53 meV/atom lower. The limits were
    chosen on the same relaxations. Environments within 0.12 would have saved 11 %, with 5 false captures. Without the
    condition that the minimum comes nearer, 4 were false. Most false captures were by saddle points, from which
    relaxations go on (:mod:`hybridcsp.relaxation.saddle`) before they are minima.

    Parameters
    ----------
    known
        The known minima, at least one.

    Attributes
    ----------
    lowest
        Enthalpy of the lowest of them in eV/atom.
    """

    def __init__(self, known: Sequence[KnownMinimum]) -> None:
        self._known = known
        self.lowest = min(one.enthalpy_per_atom for one in known)
        self._before: dict[int, float] = {}  # differences one force call before, by minimum

    def capture(self, atoms: Atoms, guarded: GuardedCalculator) -> int | None:
        """Return the id of the known minimum that captures a structure that was just evaluated, or ``None``.

        Called after every force call.
        """
        before, self._before = self._before, {}
        if (guarded.max_force or 0.0) > MAX_FORCE:
            return None
        self._before = self._differences(atoms, guarded)
        found = [
            (difference, id_)
            for id_, difference in self._before.items()
            if difference <= min(ENVIRONMENTS, APPROACH * before.get(id_, 0.0))
        ]
        return min(found)[1] if found else None

    def is_known(self, atoms: Atoms, guarded: GuardedCalculator) -> bool:
        """Return whether a structure that was just evaluated, the end of a relaxation, is one of the known minima."""
        return any(difference <= ENVIRONMENTS for difference in self._differences(atoms, guarded).values())

    def _differences(self, atoms: Atoms, guarded: GuardedCalculator) -> dict[int, float]:
        """Return the differences from the known minima of similar enthalpy, by minimum."""
        enthalpy = guarded.evaluated().enthalpy_per_atom
        near = [one for one in self._known if -DEPTH <= enthalpy - one.enthalpy_per_atom <= WINDOW]
        if not near:
            return {}
        own = compute_descriptors(atoms)
        return {one.id: _difference(own, one) for one in near}


def _difference(own: Descriptors, known: KnownMinimum) -> float:
    """Return the mean difference of the environments of atoms; infinite if volumes or contents differ."""
    # Descriptors are cached, so that a minimum is described once for all jobs of a worker.
    other = compute_descriptors(Atoms(known.numbers, positions=known.positions, cell=known.cell, pbc=True))
    if own.crystal.composition != other.crystal.composition:
        return float("inf")
    if abs(own.fingerprint[-1] - other.fingerprint[-1]) > VOLUME:
        return float("inf")
    mean, largest = environment_distance(own, other.crystal)
    return mean if largest < float("inf") else largest
