"""Crystals as matrices of real-space and reciprocal-space features of their elements' properties.

The representation of FTCP, Fourier-transformed crystal properties (Ren et al., Matter 5, 314 (2022),
doi:10.1016/j.matt.2021.11.032). The rows are, from the top: one row per element of the periodic table, lengths and
angles of the cell, one row of fractional coordinates per site, one row of occupancies per site, the lengths of the
reciprocal lattice vectors, and one row per elemental property. The first columns are for the elements of the crystal
(and for the three components of vectors), the others for reciprocal lattice vectors.

The two versions have different components: reciprocal space holds structure factors (:class:`StructureFactors`,
default) or, as published, projections on the vectors without the complex exponential (:class:`LinearProjections`);
sites are read with :class:`OccupiedSites` (default) or, as published, with :class:`LeadingSites`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.structure.representations.base import (
    DecodingError,
    Representation,
    cell_of_parameters,
    right_handed_fractions,
)

if TYPE_CHECKING:
    from ase import Atoms
    from ase.cell import Cell

Array = NDArray[np.float64]

#: Number of elements of the periodic table that have a row.
ELEMENTS = 103
#: Number of reciprocal lattice vectors.
VECTORS = 59
#: Radii (1/Å) around the origin in which the vectors are searched, the next if there are too few in one.
RADII = (1.297, 1.4, 2.8)
#: Sites with smaller occupancies are empty.
SMALLEST_OCCUPANCY = 0.05


class ReciprocalFeatures(ABC):
    """Abstract base class of a transformation of the properties at the sites to reciprocal space."""

    #: Number of columns of each reciprocal lattice vector.
    columns: ClassVar[int]

    @abstractmethod
    def features(self, properties: Array, indices: NDArray[np.integer], fractions: Array) -> Array:
        """Return the features, shape ``(n_properties, n_vectors * columns)``.

        Parameters
        ----------
        properties
            Properties of the element of each site, shape ``(n_properties, n_sites)``.
        indices
            Miller indices of the vectors, shape ``(n_vectors, 3)``.
        fractions
            Fractional coordinates of the sites, shape ``(n_sites, 3)``.
        """


class StructureFactors(ReciprocalFeatures):
    """Structure factors of the properties, as cosine and sine sums in two columns of each vector."""

    columns = 2

    def features(self, properties: Array, indices: NDArray[np.integer], fractions: Array) -> Array:
        """Return the sums of properties times cos(2π h·r) and sin(2π h·r)."""
        phases = 2 * np.pi * fractions @ indices.T
        return np.stack([properties @ np.cos(phases), properties @ np.sin(phases)], axis=-1).reshape(
            len(properties), -1
        )


class LinearProjections(ReciprocalFeatures):
    """Sums of the properties times π h·r, without an exponential, as in the authors' code."""

    columns = 1

    def features(self, properties: Array, indices: NDArray[np.integer], fractions: Array) -> Array:
        """Return the sums of properties times π h·r."""
        return np.asarray(properties @ (np.pi * fractions @ indices.T))


class SiteReading(ABC):
    """Abstract base class of a way to read the sites of a crystal from the occupancies."""

    @abstractmethod
    def sites(self, occupancies: Array) -> list[tuple[int, int | None]]:
        """Return the rows of the sites and the columns of their elements.

        Parameters
        ----------
        occupancies
            Rows of occupancies, shape ``(n_rows, n_elements)``.

        Returns
        -------
        list of (int, int or None)
            Row of coordinates of each site, and column of its element. ``None`` stands for the first element of the
            periodic table, which the published decoding takes for an empty site between others.
        """


class OccupiedSites(SiteReading):
    """Reading of the sites whose largest occupancy is not small."""

    def sites(self, occupancies: Array) -> list[tuple[int, int | None]]:
        """Return the occupied rows."""
        columns = occupancies.argmax(axis=1)
        return [
            (row, int(columns[row])) for row in range(len(occupancies)) if occupancies[row].max() >= SMALLEST_OCCUPANCY
        ]


class LeadingSites(SiteReading):
    """Reading of all sites up to the last occupied one, as published: an empty one between others is hydrogen."""

    def sites(self, occupancies: Array) -> list[tuple[int, int | None]]:
        """Return the rows up to the last occupied one."""
        occupied = dict(OccupiedSites().sites(occupancies))
        return [(row, occupied.get(row)) for row in range(max(occupied, default=-1) + 1)]


class FourierProperties(Representation[Array]):
    """Representation of crystals as matrices of shape ``(rows, columns)``.

    Parameters
    ----------
    properties
        Elemental properties by atomic number minus 1, shape ``(103, n_properties)``.
    elements
        Largest number of elements of a crystal.
    sites
        Largest number of sites of a crystal.
    reciprocal
        Transformation to reciprocal space.
    reading
        Reading of the sites.
    """

    name = "FTCP"

    def __init__(
        self,
        properties: Array,
        *,
        elements: int = 3,
        sites: int = 20,
        reciprocal: ReciprocalFeatures | None = None,
        reading: SiteReading | None = None,
    ) -> None:
        if len(properties) != ELEMENTS:
            raise InputError("properties", len(properties), f"a table with one row for each of {ELEMENTS} elements")
        self.properties = properties
        self.elements = elements
        self.sites = sites
        self.reciprocal = reciprocal or StructureFactors()
        self.reading = reading or OccupiedSites()

    @classmethod
    def published(cls, properties: Array, *, elements: int = 3, sites: int = 20) -> FourierProperties:
        """Return the representation of the authors' code."""
        return cls(properties, elements=elements, sites=sites, reciprocal=LinearProjections(), reading=LeadingSites())

    @property
    def leading(self) -> int:
        """Number of columns before those of reciprocal space."""
        return max(self.elements, 3)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrices."""
        rows = ELEMENTS + 2 + 2 * self.sites + 1 + self.properties.shape[1]
        return rows, self.leading + VECTORS * self.reciprocal.columns

    def _own_limit(self, atoms: Atoms) -> str:
        """Return why a crystal has no matrix: its number of elements or sites, or an element beyond lawrencium."""
        if len(atoms) > self.sites:
            return f"it has {len(atoms)} atoms, more than {self.sites}"
        if (elements := len(set(atoms.numbers))) > self.elements:
            return f"it has {elements} elements, more than {self.elements}"
        if atoms.numbers.max() > ELEMENTS or atoms.numbers.min() < 1:
            return f"its atomic numbers must be between 1 and {ELEMENTS}"
        return ""

    def encode(self, atoms: Atoms) -> Array:
        """Return the matrix of a crystal in its own axes, elements in the order of its sites.

        Raises
        ------
        InputError
            If the crystal is beyond the limits.
        """
        self.check(atoms)
        return self.encode_with(atoms, reciprocal_vectors(atoms.cell.array))

    def encode_with(self, atoms: Atoms, vectors: tuple[NDArray[np.integer], Array]) -> Array:
        """Return the matrix of a crystal within the limits, whose reciprocal lattice vectors are known.

        Parameters
        ----------
        atoms
            A crystal.
        vectors
            Miller indices and lengths of the reciprocal lattice vectors of its cell (:func:`reciprocal_vectors`).
        """
        fractions = right_handed_fractions(atoms)
        present = list(dict.fromkeys(int(number) for number in atoms.numbers))
        column = np.array([present.index(number) for number in atoms.numbers])
        lattice, coordinates, occupancies, lengths, properties = self.rows()
        matrix = np.zeros(self.shape)
        for place, number in enumerate(present):
            matrix[number - 1, place] = 1.0
            matrix[properties, place] = self.properties[number - 1]
        matrix[lattice, :3] = atoms.cell.lengths(), atoms.cell.angles()
        matrix[coordinates.start : coordinates.start + len(atoms), :3] = fractions
        matrix[occupancies.start + np.arange(len(atoms)), column] = 1.0
        indices, norms = vectors
        matrix[lengths, self.leading :] = np.repeat(norms, self.reciprocal.columns)
        sites = self.properties[atoms.numbers - 1].T
        matrix[properties, self.leading :] = self.reciprocal.features(sites, indices, fractions)
        return matrix

    def decode(self, encoded: Array) -> Atoms:
        """Return the crystal that the rows of real space describe.

        Raises
        ------
        DecodingError
            If no site is occupied, or the lengths and angles make no cell.
        """
        from ase import Atoms

        _, coordinates, occupancies, _, _ = self.rows()
        cell = self.cell(encoded)
        found = self.reading.sites(encoded[occupancies, : self.elements])
        if not found:
            raise DecodingError("no site is occupied")
        elements = 1 + encoded[:ELEMENTS, : self.elements].argmax(axis=0)
        numbers = [1 if column is None else int(elements[column]) for _, column in found]
        fractions = encoded[coordinates, :3][[row for row, _ in found]]
        return Atoms(numbers, scaled_positions=fractions % 1.0, cell=cell, pbc=True)

    def cell(self, encoded: Array) -> Cell:
        """Return the cell of a matrix.

        Raises
        ------
        DecodingError
            If its lengths and angles make no cell.
        """
        lengths, angles = encoded[self.rows()[0], :3]
        return cell_of_parameters(lengths, angles)

    def rows(self) -> tuple[slice, slice, slice, int, slice]:
        """Return the rows of the lattice, coordinates, occupancies, lengths of vectors, and properties."""
        first = ELEMENTS + 2
        second, third = first + self.sites, first + 2 * self.sites
        return slice(ELEMENTS, first), slice(first, second), slice(second, third), third, slice(third + 1, None)


def reciprocal_vectors(cell: Array) -> tuple[NDArray[np.integer], Array]:
    """Return the Miller indices and lengths (1/Å) of reciprocal lattice vectors, in the order of the authors' code.

    Of the vectors within a radius around the origin these are the first, sorted by the sum of the absolute values of
    their indices, and then in descending order of h, k, and l.
    """
    from pymatgen.core import Lattice

    reciprocal = Lattice(cell).reciprocal_lattice_crystallographic
    for radius in RADII:
        points, distances, _, _ = reciprocal.get_points_in_sphere([[0, 0, 0]], [0, 0, 0], radius, zip_results=False)
        if len(points) > VECTORS:
            break
    indices = np.rint(points).astype(int)
    apart = np.abs(indices).sum(axis=1) > 0
    indices, distances = indices[apart], distances[apart]
    order = np.lexsort((-indices[:, 2], -indices[:, 1], -indices[:, 0], np.abs(indices).sum(axis=1)))[:VECTORS]
    return indices[order], distances[order]
