"""Measures of samples during a training."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.generators.sample_measures import SampleMeasures

CRYSTALS = [bulk("NaCl", "rocksalt", a=a) for a in np.linspace(5.3, 5.9, 6)]
THIN = Atoms("NaCl", positions=[(0, 0, 0), (30, 30, 0)], cell=[60, 60, 1e-5], pbc=True)


def test_crystals_cover_themselves_and_one_sample_does_not_cover_other_crystals():
    crystals = [*CRYSTALS, bulk("NaCl", "cesiumchloride", a=3.4), bulk("NaCl", "zincblende", a=6.4)]
    measures = SampleMeasures(crystals)
    assert measures.of(crystals) == {"contents": 1.0, "validity": 1.0, "coverage": 1.0, "diversity": 1.0}
    found = measures.of([crystals[0], *[None] * 7])
    assert (found["contents"], found["validity"]) == (0.125, 0.125)
    assert 0 < found["coverage"] < 1
    assert measures.of([None] * 8) == {"contents": 0.0, "validity": 0.0, "coverage": 0.0}


def test_crystals_that_cannot_be_compared_are_left_out():
    measures = SampleMeasures([THIN, *CRYSTALS])
    assert [len(atoms) for atoms in measures.crystals] == [2] * 6
    assert all(atoms is not THIN for atoms in measures.crystals)
    assert measures.of([THIN, *CRYSTALS[1:]])["contents"] == 1.0
    with pytest.raises(InputError, match="their cells are too thin"):
        SampleMeasures([THIN])
