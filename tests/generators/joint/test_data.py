"""Training data of coordinates and lattice."""

from __future__ import annotations

import numpy as np
from ase.build import bulk
from crystals import rutile

from hybridcsp.generators.joint.data import canonical_handedness
from hybridcsp.structure.lattice import canonical_cell, encode_lattice_point


def test_crystal_and_inverse_have_one_canonical_handedness():
    zincblende = bulk("ZnS", "zincblende", a=5.41)
    inverse = zincblende.copy()
    inverse.positions *= -1
    first, second = (
        canonical_handedness(encode_lattice_point(canonical_cell(atoms))) for atoms in (zincblende, inverse)
    )
    apart = np.diff(first.positions, axis=0) - np.diff(second.positions, axis=0)
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=1e-9)
    same = encode_lattice_point(canonical_cell(rutile()))
    assert canonical_handedness(same) is same  # it has a centre
