"""Reading of crystals of requested contents from decoded matrices.

A latent vector determines the elements and their numbers, so that the method has no exact condition on the contents.
As published, crystals of other contents are discarded (:class:`Filtering`). By default the contents are honoured in the
reading (:class:`Assignment`): the columns of the matrix are assigned to the requested elements, and as many rows of
sites to each as it has atoms, so that the decoded probabilities are largest together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.fourier import ELEMENTS, FourierProperties

Array = NDArray[np.float64]

# Smallest number whose logarithm is taken.
_TINY = 1e-6

# Sites with smaller occupancies are not assigned to atoms: the matrix has fewer sites than the contents.
_SMALLEST_OCCUPANCY = 0.05


class Decoding(ABC):
    """Abstract base class of a way to read a crystal of given contents from a matrix."""

    @abstractmethod
    def crystal(self, matrix: Array, representation: FourierProperties, contents: Mapping[int, int]) -> Atoms:
        """Return a crystal with exactly these contents.

        Parameters
        ----------
        matrix
            Matrix in the units of the representation.
        representation
            Its representation.
        contents
            Number of atoms by atomic number.

        Raises
        ------
        DecodingError
            If the matrix describes no crystal, or one of other contents.
        """


class Filtering(Decoding):
    """Reading of whatever crystal a matrix describes; others than the requested ones are rejected, as published."""

    def crystal(self, matrix: Array, representation: FourierProperties, contents: Mapping[int, int]) -> Atoms:
        """Return the crystal if it has the contents."""
        atoms = representation.decode(matrix)
        found = Counter(int(number) for number in atoms.numbers)
        if set(found) != set(contents):
            raise DecodingError("other elements")
        if found != Counter(contents):
            raise DecodingError("other numbers of atoms")
        return atoms


class Assignment(Decoding):
    """Reading of the most probable crystal of the requested contents."""

    def crystal(self, matrix: Array, representation: FourierProperties, contents: Mapping[int, int]) -> Atoms:
        """Return the crystal of the contents whose elements and sites have the largest product of probabilities."""
        from scipy.optimize import linear_sum_assignment

        _, coordinates, occupancies, _, _ = representation.rows()
        cell = representation.cell(matrix)
        elements = np.array(list(contents))
        present = np.log(np.maximum(matrix[:ELEMENTS, : representation.elements], _TINY))[elements - 1]
        _, columns = linear_sum_assignment(-present)
        slots = np.repeat(np.arange(len(elements)), list(contents.values()))
        sites = matrix[occupancies, : representation.elements][:, columns[slots]]
        rows, places = linear_sum_assignment(-np.log(np.maximum(sites, _TINY)))
        if (sites[rows, places] < _SMALLEST_OCCUPANCY).any():
            raise DecodingError("other numbers of atoms")
        fractions = matrix[coordinates, :3][rows]
        return Atoms(elements[slots[places]], scaled_positions=fractions % 1.0, cell=cell, pbc=True)
