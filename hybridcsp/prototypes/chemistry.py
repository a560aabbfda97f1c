"""How alike elements are to a crystal structure."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray

#: How much each property tells two elements apart: differences, in the property's own unit, are multiplied by these
#: before they are squared and added. Fitted to nine tenths of the training data, each crystal predicted from those of
#: other formulas (benchmarks/prototypes.py).
WEIGHTS = {
    "electronegativity": 8.3,
    "covalent_radius": 14.9,
    "ionic_radius": 7.24,
    "group": 0.281,
    "row": 1.73,
    "mendeleev": 0.352,
    "oxidation_state": 1.47,
}

#: The exponent with which the similarity of two crystals falls off with the squared distance of their elements.
TAIL = 2.26


@cache
def squared_distances() -> NDArray[np.float64]:
    """How different any two elements are, shape ``(119, 119)``: squares of weighted differences, added up."""
    scaled = properties() * np.array(list(WEIGHTS.values()))
    squares: NDArray[np.float64] = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=-1)
    return squares


@cache
def properties() -> NDArray[np.float64]:
    """Properties of the elements in the order of :data:`WEIGHTS`, shape ``(119, 7)``; pymatgen's data.

    Pauling's electronegativity; covalent radius in Å (Cordero, doi:10.1039/b801115j); mean ionic radius in Å (the
    covalent one where there is none); group, row and Mendeleev number (Pettifor, doi:10.1016/0038-1098(84)90765-8);
    the mean of the common oxidation states.
    """
    from ase.data import covalent_radii
    from pymatgen.core import Element

    table = np.zeros((119, len(WEIGHTS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1, 119):
            element = Element.from_Z(number)
            electronegativity = float(element.X)
            states = element.common_oxidation_states
            table[number] = (
                electronegativity if np.isfinite(electronegativity) else 2.0,
                covalent_radii[number],
                float(element.average_ionic_radius) or covalent_radii[number],
                element.group,
                element.row,
                element.mendeleev_no or 60.0,
                sum(states) / len(states) if states else 0.0,
            )
    return table
