"""Fingerprints, and "are these the same structure?".

Two structures are the same here when they have the same shape: equal up to rotation, reflection (enantiomorphs have
equal energies, so one minimum), translation, order of the atoms, choice of cell and uniform scale. How much their
volumes may differ is a tolerance of its own. Initial magnetic moments, charges and everything else that
:class:`ase.Atoms` carries beside elements, positions and cell are ignored.

:class:`StructureIndex` answers the question for one structure against many without ever comparing all with all:
energy and volume, then a fingerprint that cannot tell apart what is the same, then the environments of every atom, and
only where these leave a doubt pymatgen's ``StructureMatcher``.
"""

from hybridcsp.similarity.comparison import ENERGY_WINDOW, MINIMA, STARTS, Tolerances, same_structure
from hybridcsp.similarity.fingerprint import Descriptors, compute_descriptors, fingerprint
from hybridcsp.similarity.index import StructureIndex

__all__ = [
    "ENERGY_WINDOW",
    "MINIMA",
    "STARTS",
    "Descriptors",
    "StructureIndex",
    "Tolerances",
    "compute_descriptors",
    "fingerprint",
    "same_structure",
]
