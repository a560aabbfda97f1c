"""Shaking: which minima are pushed off what may be a saddle point, in which order, and how often."""

from itertools import count

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import InlineBackend, ListSource, random_crystal, relaxed, rutile
from numpy.random import default_rng

from hybridcsp import Search
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import InputError
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.allocation import Allocation
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.registry import DEFAULT_SOURCES, SOURCES
from hybridcsp.sources.shake import SHAKES, ShakeSource

LOOSE = Problem("TiO2", formula_units=2, distance_fraction=0.05, volume_per_atom=(5.0, 40.0))


def anatase_like():
    return rutile(a=4.0, c=3.6, u=0.25)


def stretched():
    return rutile(a=4.3, c=3.4, u=0.28)


def without_symmetry(seed=0):
    return random_crystal("Ti2O4", 12, default_rng(seed))


class GivenFirst(Allocation):
    """Gives every job to what was given, until that is exhausted."""

    def choose(self, available):
        return "list" if "list" in available else "shake"


def search(directory, given, *, end=None, falls=(), **options):
    """A search in which crystals of these energies relax to themselves or to ``end``.

    What is shaken ends at one of the energies that a list of ``falls`` holds, by the candidate that is shaken and in
    order, and then far above.
    """
    levels = {round(atoms.get_volume(), 3): energy for atoms, energy in given}
    left = {parent: iter(energies) for parent, energies in dict(falls).items()}

    def landscape(job):
        if job.candidate.operator == "given":
            energy = levels[round(job.atoms.get_volume(), 3)]
        else:
            energy = next(left.get(job.candidate.proposal.parents[0], iter(())), 1.0)
        return relaxed(job.candidate, energy, end if end is not None else job.atoms)

    return Search(
        LOOSE,
        calculator=None,
        directory=directory,
        sources=[ListSource([atoms for atoms, _ in given]), "shake"],
        backend=InlineBackend(landscape),
        **options,
    )


THREE = ((rutile(), -3.0), (anatase_like(), -3.1), (stretched(), -3.05))


def shaken(search):
    """The candidates that were shaken, in order."""
    candidates = [search.archive.candidate(id_) for id_ in range(1, search.archive.candidates + 1)]
    return [candidate.proposal.parents[0] for candidate in candidates if candidate.source == "shake"]


def test_it_is_no_default_source_and_takes_no_argument():
    assert "shake" not in DEFAULT_SOURCES  # workers leave saddle points
    assert isinstance(SOURCES["shake"].build(LOOSE), ShakeSource)
    with pytest.raises(InputError, match="shake takes no argument"):
        ShakeSource(LOOSE, "harder")


def test_low_symmetric_minima_are_shaken_and_then_there_is_nothing_to_do(tmp_path):
    found = search(tmp_path, [(without_symmetry(), -3.1), (rutile(), -3.0), (stretched(), -2.85)])
    summary = found.run(relaxations=50, refine=0)
    # The first has no symmetry to lose, the last lies 0.25 eV/atom above the best.
    assert shaken(found) == [2]  # the numbers of candidates
    assert summary.progress.relaxations == 4
    assert summary.stopped == "no acceptable proposals"


def test_the_lowest_is_shaken_first(tmp_path):
    found = search(tmp_path, THREE, allocation=GivenFirst())
    found.run(relaxations=50, refine=0)
    assert shaken(found) == [2, 3, 1]


def test_saddle_point_is_shaken_until_a_shake_finds_nothing_new_below_it(tmp_path):
    found = search(tmp_path, [(rutile(), -3.0)], falls={1: [-3.1, -3.05, -2.9, -3.2]})
    found.run(relaxations=50, refine=0)
    assert shaken(found) == [1, 1, 1]


def test_one_minimum_is_shaken_four_times_at_most(tmp_path):
    found = search(tmp_path, [(rutile(), -3.0)], falls={1: [-3.1, -3.05, -3.2, -3.15, -3.3]})
    found.run(relaxations=50, refine=0)
    assert shaken(found) == [1] * SHAKES


def test_the_one_that_led_lowest_is_shaken_first():
    source = ShakeSource(LOOSE)
    numbers = count(1)

    def candidate(proposal):
        return Candidate(proposal=proposal, id=next(numbers), source="shake")

    def shake():
        (proposal,) = source.propose(1, Context(problem=LOOSE, archive=None, rng=default_rng(0)))
        shaken = candidate(proposal)
        source.proposed([shaken])
        return shaken

    for minimum, (atoms, energy) in enumerate(THREE):
        given = candidate(Proposal(atoms=atoms, operator="given"))
        source.observe([relaxed(given, energy, minimum=minimum, is_new_minimum=True)])
    first, second = shake(), shake()
    assert (first.proposal.parents, second.proposal.parents) == ((2,), (3,))
    source.observe([relaxed(second, -3.15, without_symmetry(), minimum=3, is_new_minimum=True)])
    source.observe([relaxed(first, -3.12, without_symmetry(1), minimum=4, is_new_minimum=True)])
    assert [shake().proposal.parents for _ in range(3)] == [(3,), (2,), (1,)]


def test_minimum_that_lost_its_symmetry_is_not_shaken(tmp_path):
    found = search(tmp_path, [(rutile(), -3.0)], end=without_symmetry())
    found.run(relaxations=50, refine=0)
    assert shaken(found) == []


def test_minimum_reached_from_an_asymmetric_start_is_not_shaken(tmp_path):
    given = [(rutile(), -3.0), (without_symmetry(0), -3.0), (without_symmetry(1), -3.0)]
    found = search(tmp_path, given, end=rutile(), allocation=GivenFirst())
    found.run(relaxations=50, refine=0)
    assert len(found.minima()) == 1
    assert shaken(found) == []


def test_resumed_search_shakes_the_remaining_minima(tmp_path):
    whole = search(tmp_path / "whole", THREE)
    whole.run(relaxations=6, refine=0)
    for relaxations in (2, 3, 5, 20):
        part = search(tmp_path / "parts", THREE)
        part.run(relaxations=relaxations, refine=0)
        part.close()
    assert sorted(shaken(whole)) == sorted(shaken(part))
    assert len(shaken(whole)) == 3


def test_nothing_can_be_shaken_in_a_fixed_cell_with_one_atom():
    fixed = Problem("Cu", formula_units=1, cell=(2.5, 2.5, 2.5, 60, 60, 60))
    assert ShakeSource(fixed).status() is SourceStatus.EXHAUSTED
    assert ShakeSource(Problem("Cu", formula_units=1)).status() is SourceStatus.WAITING


def test_simple_cubic_copper_falls_to_the_close_packed_minimum(tmp_path, monkeypatch):
    """A relaxation that does not leave saddle points keeps simple cubic copper as it is, which is no minimum."""
    monkeypatch.setattr("hybridcsp.relaxation.relax.is_symmetric", lambda atoms: False)
    problem = Problem("Cu", formula_units=2)
    start = bulk("Cu", "sc", a=2.4).repeat((2, 1, 1))
    found = Search(
        problem,
        calculator=None,
        directory=tmp_path,
        sources=[ListSource([start]), "shake"],
        backend=InlineBackend(Relaxer(calculator=EMT())()),
    )
    found.run(relaxations=10, refine=0)
    saddle = min(found.minima(), key=lambda minimum: minimum.first_relaxation)
    lowest = found.minima()[0]
    assert lowest.enthalpy_per_atom < saddle.enthalpy_per_atom - 0.1
    assert lowest.best.candidate.operator == "shake"
