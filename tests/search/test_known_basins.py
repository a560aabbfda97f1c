"""Jobs take known minima along, and relaxations that end in their basins are rediscoveries."""

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import ListSource

from hybridcsp import Search
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.search import lowest_minima

TWO_ATOMS = {"formula_units": 2, "workers": 1}


def distorted(n):
    copies = []
    for seed in range(n):
        copies.append(bulk("Cu", "hcp", a=2.6, c=4.3))
        copies[-1].rattle(0.15, seed=seed)
    return copies


def test_relaxations_end_in_the_basin_of_a_known_minimum(tmp_path):
    with Search("Cu", calculator="emt", directory=tmp_path, sources=[ListSource(distorted(4))], **TWO_ATOMS) as run:
        run.run(relaxations=4, refine=0)
        ends = [outcome for outcome in run.archive.history() if isinstance(outcome, Relaxed)]
        hcp = ends[0].minimum
        assert ends[0].captured_by is None
        assert any(end.captured_by == hcp for end in ends[1:])
        assert all(end.minimum == end.captured_by for end in ends if end.captured_by is not None)
        best = next(minimum for minimum in run.minima() if minimum.id == hcp)
        assert best.best.captured_by is None
        assert best.multiplicity == sum(end.minimum == hcp for end in ends)


def test_added_structures_capture_nothing_because_they_may_be_saddle_points(tmp_path):
    with Search("Cu", calculator="emt", directory=tmp_path, sources=[ListSource(distorted(1))], **TWO_ATOMS) as run:
        run.run(relaxations=1, refine=0)
        minima = lowest_minima.LowestMinima(run.archive)
        (known,) = minima.lowest(1)
        assert known.enthalpy_per_atom == pytest.approx(run.minima()[0].enthalpy_per_atom)
        added = bulk("Cu", "bcc", a=2.85, cubic=True)
        added.calc = EMT()
        run.add(added)
        assert len(run.minima()) == 2
        assert [one.id for one in minima.lowest(1)] == [known.id]
