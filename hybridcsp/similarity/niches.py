"""Niches of minima: near-copies of one structure, and stackings of the same layers."""

from __future__ import annotations

from ase import Atoms

from hybridcsp.similarity.comparison import Tolerances
from hybridcsp.similarity.fingerprint import Descriptors, compute_descriptors
from hybridcsp.similarity.index import StructureIndex
from hybridcsp.similarity.layer_index import LayerIndex
from hybridcsp.similarity.layers import find_layers

#: Tolerances for near-copies, which are decided by the environments of the atoms alone. Displacements of 0.1 Å in all
#: directions, tilts of octahedra by 6° and a ferroelectric shift of 0.2 Å are within; hcp and dhcp are just beyond
#: (0.13), fcc and hcp (0.27), zincblende and wurtzite (0.42), rutile and the α-PbO₂ form of TiO₂ (0.25) well beyond.
NEAR_COPIES = Tolerances(
    volume=0.15,
    displacement=0.12,
    lattice=0.1,
    angle=5.0,
    component=0.25,
    fingerprint=0.06,
    environments=0.12,
    certain=1e6,
    neighbours=16,
    exact_comparisons=0,
)

#: Largest mean difference of the environments of atoms in their layers, in Å. In 60 relaxations of TiO₂, stackings of
#: one layer differed by up to 0.12, different layers by 0.26 and more.
SAME_LAYERS = 0.15

#: Energy window in eV/atom of a niche: minima that are further apart teach different things.
NICHE_WINDOW = 0.05


class NicheIndex:
    """Index of niches, each by the structure of one member, that finds the niche of another structure.

    A structure belongs to a niche if it is a near-copy of that member, with at most small distortions between them, or
    if both consist of the same layers, whatever their spacing and stacking, and if their energies are similar.

    Examples
    --------
    >>> from ase.build import graphene
    >>> from hybridcsp.similarity.niches import NicheIndex
    >>> near, far = (graphene(vacuum=vacuum) for vacuum in (3.3, 4.5))
    >>> for sheet in (near, far):
    ...     sheet.pbc = True
    >>> niches = NicheIndex()
    >>> niches.add(1, near, -9.2)
    >>> niches.find(far, -9.19)
    1
    """

    def __init__(self) -> None:
        self._copies = StructureIndex(energy_window=NICHE_WINDOW, tolerances=NEAR_COPIES)
        self._layers = LayerIndex(NICHE_WINDOW, SAME_LAYERS)

    def __contains__(self, key: int) -> bool:
        return key in self._copies

    def find(self, structure: Atoms | Descriptors, energy_per_atom: float) -> int | None:
        """Return the key of the niche that a structure belongs to, or ``None`` if there is none.

        Parameters
        ----------
        structure
            The structure or its descriptors.
        energy_per_atom
            Its energy in eV/atom.
        """
        descriptors = compute_descriptors(structure) if isinstance(structure, Atoms) else structure
        found = self._copies.find(descriptors, energy_per_atom)
        if found is not None:
            return found
        if not self._layers.any_near(energy_per_atom) or (own := find_layers(descriptors.crystal)) is None:
            return None
        return self._layers.find(own, energy_per_atom)

    def add(self, key: int, structure: Atoms | Descriptors, energy_per_atom: float) -> None:
        """Add a niche with the structure and the energy (eV/atom) of a member, under a new key."""
        descriptors = compute_descriptors(structure) if isinstance(structure, Atoms) else structure
        self._copies.add(key, descriptors, energy_per_atom)
        layers = find_layers(descriptors.crystal)
        if layers is not None:
            self._layers.add(key, layers, energy_per_atom)

    def remove(self, key: int) -> None:
        """Remove a niche."""
        self._copies.remove(key)
        self._layers.remove(key)
