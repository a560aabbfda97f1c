"""Niches of minima: near-copies of one structure, and stackings of the same layers."""

from __future__ import annotations

from bisect import bisect_left, insort

from ase import Atoms

from hybridcsp.similarity.comparison import Tolerances
from hybridcsp.similarity.fingerprint import Descriptors, compute_descriptors
from hybridcsp.similarity.index import StructureIndex
from hybridcsp.similarity.layers import Layers, find_layers, layer_distance

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
        self._layers: dict[int, tuple[Layers, float]] = {}
        self._by_energy: list[tuple[float, int]] = []  # the keys of these, sorted

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
        nearby = self._layered_near(energy_per_atom)
        if not nearby or (own := find_layers(descriptors.crystal)) is None:
            return None
        distance, key = min((layer_distance(own, self._layers[key][0]), key) for key in nearby)
        return key if distance <= SAME_LAYERS else None

    def add(self, key: int, structure: Atoms | Descriptors, energy_per_atom: float) -> None:
        """Add a niche with the structure and the energy (eV/atom) of a member, under a new key."""
        descriptors = compute_descriptors(structure) if isinstance(structure, Atoms) else structure
        self._copies.add(key, descriptors, energy_per_atom)
        layers = find_layers(descriptors.crystal)
        if layers is not None:
            self._layers[key] = layers, energy_per_atom
            insort(self._by_energy, (energy_per_atom, key))

    def remove(self, key: int) -> None:
        """Remove a niche."""
        self._copies.remove(key)
        if key in self._layers:
            _, energy = self._layers.pop(key)
            del self._by_energy[bisect_left(self._by_energy, (energy, key))]

    def _layered_near(self, energy_per_atom: float) -> list[int]:
        """Return the keys of the niches of layered structures with similar energies."""
        # A little wider than the window, which decides: rounding must not exclude its ends.
        first = bisect_left(self._by_energy, (energy_per_atom - 1.001 * NICHE_WINDOW, 0))
        last = bisect_left(self._by_energy, (energy_per_atom + 1.001 * NICHE_WINDOW, 0))
        return [key for energy, key in self._by_energy[first:last] if abs(energy - energy_per_atom) <= NICHE_WINDOW]
