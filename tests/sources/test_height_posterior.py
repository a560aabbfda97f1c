"""The posterior of heights: from which relaxations a search learns, and how it puts samples in order."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import relaxed
from toys import Toy

from hybridcsp import Problem
from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.generators.base import Sample
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.height_posterior import FEWEST, HeightPosterior, structure_features
from hybridcsp.structure.symmetry import spacegroup

RNG = np.random.default_rng(0)


def symmetric(number: int) -> Atoms:
    """Return a tetragonal crystal of copper with four atoms."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell([3.6, 3.6, 3.8 + 0.1 * number], scale_atoms=True)
    return atoms


def distorted(number: int) -> Atoms:
    """Return a crystal of copper with four atoms and no symmetry."""
    atoms = symmetric(number % 10)
    atoms.rattle(0.3, seed=number)
    return atoms


def outcome(atoms, enthalpy, *, source="toy", parents=(), id=1, **others):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator=source, parents=parents), id=id, source=source)
    return replace(relaxed(candidate, enthalpy, atoms), **others)


def taught(*lessons):
    posterior = HeightPosterior()
    for lesson in lessons:
        posterior.observe(lesson)
    return posterior


def preference(posterior, n=200):
    """Return how often a symmetric structure is expected to end lower than one without symmetry."""
    asked = [structure_features(symmetric(90)), structure_features(distorted(90))]
    drawn = [posterior.draw(asked, rng) for rng in map(np.random.default_rng, range(n))]
    return np.mean([heights[0] < heights[1] for heights in drawn])


def low_if(is_low, n=12):
    """Return relaxations of symmetric and distorted structures in turn."""
    made = [(symmetric, distorted)[number % 2](number) for number in range(n)]
    return [outcome(atoms, -3.5 if is_low(atoms) else -3.2, id=i + 1) for i, atoms in enumerate(made)]


def test_structures_like_those_that_ended_low_are_expected_to_end_low():
    assert preference(taught(*low_if(lambda atoms: spacegroup(atoms) > 2))) > 0.9
    assert preference(taught(*low_if(lambda atoms: spacegroup(atoms) <= 2))) < 0.1


def test_few_relaxations_say_nothing():
    lessons = low_if(lambda atoms: spacegroup(atoms) > 2)
    asked = [structure_features(symmetric(1))]
    assert taught(*lessons[: FEWEST - 1]).draw(asked, RNG) is None
    assert taught(*lessons[:FEWEST]).draw(asked, RNG) is not None


def test_holes_teach_nothing_even_if_they_are_told_later():
    hole = outcome(distorted(50), -30.0, id=50, minimum=50)
    lessons = low_if(lambda atoms: spacegroup(atoms) > 2)
    later = replace(lessons[-1], suspects=(50,))
    asked = [structure_features(symmetric(1)), structure_features(distorted(1))]
    with_hole, without = (
        taught(*given, *lessons[:-1], later).draw(asked, np.random.default_rng(0)) for given in ([hole], [])
    )
    assert np.array_equal(with_hole, without)


def test_failures_are_as_bad_as_high_ends():
    lessons = [
        Failed(candidate=one.candidate, reason=FailureReason.OVERLAP) if number % 2 else one
        for number, one in enumerate(low_if(lambda _: True))
    ]
    assert preference(taught(*lessons)) > 0.9


def test_sources_that_are_better_on_the_whole_do_not_make_their_kind_of_structures_better():
    lessons = [
        replace(one, candidate=replace(one.candidate, source=("one", "other")[number % 2]))
        for number, one in enumerate(low_if(lambda atoms: spacegroup(atoms) > 2))
    ]
    assert 0.3 < preference(taught(*lessons)) < 0.7


@pytest.mark.parametrize("hidden", [{"suspect": True}, {"parents": (1,)}])
def test_holes_of_the_potential_and_children_teach_nothing(hidden):
    posterior = taught(*[outcome(symmetric(n), -9.0 + n, minimum=n + 1, **hidden) for n in range(2 * FEWEST)])
    assert posterior.draw([structure_features(symmetric(1))], RNG) is None


def test_a_relaxation_that_was_ended_in_a_known_basin_counts_as_this_minimum():
    deep = outcome(symmetric(0), -4.0, minimum=1)
    ended = [outcome(symmetric(number), -3.3, minimum=1, captured_by=1) for number in range(1, 8)]
    others = [outcome(distorted(number), -3.3, minimum=number + 2) for number in range(8)]
    assert preference(taught(deep, *ended, *others)) > 0.9


@pytest.mark.parametrize(("sign", "lower"), [(1, 0), (-1, 1)])
def test_it_learns_whether_energies_before_relaxation_tell_where_it_ends(sign, lower):
    estimates = np.linspace(-3.4, -3.0, 16)
    lessons = []
    for number, estimate in enumerate(estimates):
        one = outcome(symmetric(number % 10), -3.3 + sign * (estimate + 3.2), id=number + 1)
        lessons.append(replace(one, start_enthalpies=(estimate,), start_estimates=(estimate,)))
    asked = [structure_features(symmetric(3))] * 2
    for seed in range(20):
        heights = taught(*lessons).draw(asked, np.random.default_rng(seed), [-3.35, -3.05])
        assert np.argmin(heights) == lower


def test_nothing_is_said_if_every_relaxation_failed():
    lessons = [Failed(candidate=one.candidate, reason=FailureReason.OVERLAP) for one in low_if(lambda _: True)]
    assert taught(*lessons).draw([structure_features(symmetric(1))], RNG) is None


def test_features_do_not_depend_on_the_description_of_a_crystal():
    atoms = symmetric(2)
    moved = atoms[[2, 0, 3, 1]]
    moved.positions += [0.3, 0.7, 0.1]
    moved.rotate(30, "z", rotate_cell=True)
    assert structure_features(moved) == pytest.approx(structure_features(atoms))


class Mixed(Toy):
    """Samples of which every second has no symmetry."""

    batch_size = 24

    def answer(self, number, request, rng):
        seed = int(rng.integers(1000))
        return Sample(atoms=distorted(seed) if number % 2 else symmetric(seed % 10), request=number)


@pytest.mark.parametrize(("posterior", "found"), [(True, {False}), (False, {True, False})])
def test_a_source_proposes_first_what_is_expected_to_end_low(tmp_path, posterior, found):
    from hybridcsp.archive.archive import Archive
    from hybridcsp.sources.base import Context

    problem = Problem("Cu", formula_units=4, distance_fraction=0.05)
    source = GenerativeSource(problem, generator=Mixed(), posterior=posterior)
    source.observe(low_if(lambda atoms: spacegroup(atoms) > 2, 40))
    with Archive(tmp_path / "archive", write=True) as archive:
        proposed = []
        for call in range(5):
            (proposal,) = source.propose(1, Context(problem=problem, archive=archive, rng=np.random.default_rng(call)))
            candidate = Candidate(proposal=proposal, id=call + 1, source="toy")
            source.proposed([candidate])
            proposed.append(spacegroup(candidate.atoms) <= 2)
    assert set(proposed) == found
