"""Categories of elemental properties, with which CGCNN describes atoms (doi:10.1103/PhysRevLett.120.145301).

Nine properties are divided into categories, and the vector of an element has a 1 in the category of each of its
properties: 18 groups, 8 periods, 10 ranges of Pauling's electronegativity (0.5 to 4.0), 10 of the covalent radius (25
to 250 pm), 12 numbers of valence electrons, 10 ranges of the logarithm of the first ionisation energy in eV (1.3 to
3.3), 10 of the electron affinity (-3 to 3.7 eV), the blocks s, p, d and f, and 10 ranges of the logarithm of the molar
volume in cm³/mol (1.5 to 4.3): 92 components together. Values outside a range are in its first or last category; of a
property that is not known all categories are 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Number of components of the vector of an element.
N_FEATURES = 92


def _whole(count: int) -> tuple[int, Callable[[Any], int]]:
    return count, lambda value: int(value) - 1


def _range(low: float, high: float, count: int = 10) -> tuple[int, Callable[[Any], int]]:
    return count, lambda value: min(max(int((value - low) / (high - low) * count), 0), count - 1)


def _log_range(low: float, high: float) -> tuple[int, Callable[[Any], int]]:
    count, category = _range(low, high)
    return count, lambda value: category(math.log(value))


# Number of categories of each property, and the function that returns the category of a value.
_CATEGORIES: Mapping[str, tuple[int, Callable[[Any], int]]] = {
    "group": _whole(18),
    "period": _whole(8),
    "electronegativity": _range(0.5, 4.0),
    "covalent_radius_pm": _range(25, 250),
    "valence_electrons": _whole(12),
    "ionisation_energy_ev": _log_range(1.3, 3.3),
    "electron_affinity_ev": _range(-3.0, 3.7),
    "block": (4, "spdf".index),
    "molar_volume_cm3": _log_range(1.5, 4.3),
}


@cache
def elemental_features() -> NDArray[np.float32]:
    """Return the categories of the elements by atomic number, shape ``(119, 92)``.

    The rows of number 0 and of the elements beyond lawrencium, of which little is known, are 0. The values are those of
    pymatgen, and covalent radii those of ASE, kept in a table so that neither has to be imported. Valence electrons are
    those outside the noble gas and outside full d and f shells: the number of the group in the s and d blocks, ten less
    in the p block, and at most 12 in the f block.
    """
    known = json.loads(files("hybridcsp").joinpath("data/elemental_properties.json").read_text(encoding="utf-8"))
    if known["columns"] != list(_CATEGORIES):
        raise ValueError(f"data/elemental_properties.json has the columns {known['columns']}, expected {_CATEGORIES}")
    table = np.zeros((119, N_FEATURES), dtype=np.float32)
    for number, row in enumerate(known["properties"].values(), start=1):
        start = 0
        for value, (count, category) in zip(row, _CATEGORIES.values(), strict=True):
            if value is not None:
                table[number, start + category(value)] = 1
            start += count
    table.flags.writeable = False
    return table
