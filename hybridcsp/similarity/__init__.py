"""Fingerprints and comparison of crystal structures.

Two structures are the same if they are equal up to rotation, reflection (enantiomorphs have equal energies and are one
minimum), translation, order of the atoms, choice of cell and uniform scale; a separate tolerance limits the difference
of their volumes. Initial magnetic moments, charges and all other data of :class:`ase.Atoms` except elements, positions
and cell are ignored.

:class:`StructureIndex` compares one structure with many in stages: energy and volume, an invariant fingerprint, the
environments of all atoms, and pymatgen's ``StructureMatcher`` for the few cases that remain undecided.
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
