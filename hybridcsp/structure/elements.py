"""Properties of the chemical elements, and the similarity of two elements in crystal structures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

#: Weights of the properties in the distance of two elements: differences, in the property's own unit, are multiplied by
#: these before they are squared and summed. Fitted to nine tenths of the training data, each crystal predicted from
#: those of other formulas (benchmarks/prototypes.py).
PROPERTY_WEIGHTS = {
    "electronegativity": 8.3,
    "covalent_radius": 14.9,
    "ionic_radius": 7.24,
    "group": 0.281,
    "row": 1.73,
    "mendeleev": 0.352,
    "oxidation_state": 1.47,
}

#: Exponent with which the similarity of two crystals decays with the squared distance of their elements.
KERNEL_EXPONENT = 2.26

#: Number of similar elements by which one may be substituted.
N_SIMILAR = 8


@cache
def squared_distances() -> NDArray[np.float64]:
    """Return the squared distances between elements by atomic numbers, shape ``(119, 119)``."""
    scaled = properties() * np.array(list(PROPERTY_WEIGHTS.values()))
    squares: NDArray[np.float64] = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=-1)
    return squares


@cache
def properties() -> NDArray[np.float64]:
    """Return properties of the elements in the order of :data:`PROPERTY_WEIGHTS`, shape ``(119, 7)``, by atomic number.

    Pauling's electronegativity (2.0 where there is none); covalent radius in Å (Cordero, doi:10.1039/b801115j); mean
    ionic radius in Å (the covalent one where there is none); group, row and Mendeleev number (Pettifor,
    doi:10.1016/0038-1098(84)90765-8); the mean of the common oxidation states. The values are those of pymatgen and
    ASE, kept in a table so that neither has to be imported.
    """
    known = json.loads(files("hybridcsp").joinpath("data/elements.json").read_text(encoding="utf-8"))
    if known["columns"] != list(PROPERTY_WEIGHTS):
        raise ValueError(f"data/elements.json has the columns {known['columns']}, expected {list(PROPERTY_WEIGHTS)}")
    return np.array([[0.0] * len(PROPERTY_WEIGHTS), *known["properties"].values()])


def covalent_radii() -> NDArray[np.float64]:
    """Return covalent radii in Å by atomic number, shape ``(119,)``; 0.2 for number 0, as in ASE."""
    radii = properties()[:, list(PROPERTY_WEIGHTS).index("covalent_radius")].copy()
    radii[0] = 0.2
    return radii


def element_order(counts: Mapping[int, int]) -> tuple[int, ...]:
    """Return the elements (atomic numbers) in ascending order of their numbers of atoms, then electronegativities."""
    electronegativity = properties()[:, 0]
    return tuple(sorted(counts, key=lambda z: (counts[z], electronegativity[z], z)))


@cache
def similar_elements(element: int) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Return the elements up to americium by which one may be substituted, and their probabilities.

    They are the :data:`N_SIMILAR` most similar ones, with probabilities proportional to the similarity.
    """
    similarity = (1 + squared_distances()[element, :96] / (2 * KERNEL_EXPONENT)) ** -KERNEL_EXPONENT
    similarity[[0, *([element] if element < len(similarity) else [])]] = 0.0
    nearest = np.argsort(-similarity)[:N_SIMILAR]
    return nearest, similarity[nearest] / similarity[nearest].sum()
