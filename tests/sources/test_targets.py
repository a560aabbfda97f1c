"""Conditions on properties reach generators, and samples that are estimated not to meet them come last."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from cubes import Cubes

from hybridcsp import Problem
from hybridcsp.archive.archive import Archive
from hybridcsp.core.records import Candidate
from hybridcsp.generators.base import Sample
from hybridcsp.objectives.conditions import Condition
from hybridcsp.objectives.goals import Goal, Goals
from hybridcsp.sources.base import Context
from hybridcsp.sources.generative import GenerativeSource

GOALS = Goals((Goal(name="volume", unit="", goal="report"),), Condition("volume >= 15"))


class Conditioned(Cubes):
    """Cubes that note the targets of their requests."""

    targets = frozenset({"volume"})
    seen: list[dict[str, tuple[float, float]]]

    def sample(self, requests, rng):
        self.seen = [dict(request.targets) for request in requests]
        return super().sample(requests, rng)


class Boxes(Cubes):
    """One atom in boxes of random edges, which are all different."""

    def sample(self, requests, rng):
        return [
            Sample(atoms=Atoms("Al", cell=rng.uniform(2, 3.2, 3), pbc=True), request=i) for i in range(len(requests))
        ]


def first_proposals(source, tmp_path, n):
    """Return the first structures that a source proposes."""
    problem = Problem("Al", formula_units=1)
    found = []
    with Archive(tmp_path / "run", write=True) as archive:
        for number in range(n):
            rng = np.random.default_rng([0, number])
            (proposal,) = source.propose(1, Context(problem=problem, archive=archive, rng=rng))
            source.proposed([Candidate(proposal=proposal, id=number, source="cubes")])
            found.append(proposal.atoms)
    return found


def test_intervals_of_a_condition_are_those_of_comparisons_with_numbers():
    condition = Condition("1 < gap <= 3 and gap < 5 and density >= 2 and gap < density")
    assert condition.intervals() == {"gap": (1.0, 3.0), "density": (2.0, math.inf)}


@pytest.mark.parametrize(("kind", "wanted"), [(Conditioned, {"volume": (15.0, math.inf)}), (Cubes, None)])
def test_condition_is_the_target_of_a_generator_that_has_learned_the_property(kind, wanted, tmp_path):
    generator = kind()
    source = GenerativeSource(Problem("Al", formula_units=1), generator=generator, posterior=False)
    source.pursue(GOALS)
    first_proposals(source, tmp_path, 1)
    if wanted is not None:
        assert generator.seen[0] == wanted


def test_samples_that_are_estimated_not_to_meet_the_condition_come_last(tmp_path):
    volumes = {}
    for name, goals in (("plain", GOALS), ("judged", GOALS.with_estimators({"volume": lambda a: a.get_volume()}))):
        source = GenerativeSource(Problem("Al", formula_units=1), generator=Boxes(), posterior=False)
        source.pursue(goals)
        volumes[name] = [atoms.get_volume() for atoms in first_proposals(source, tmp_path / name, 3)]
    assert min(volumes["judged"]) >= 15
    assert min(volumes["plain"]) < 15


def test_structure_whose_value_cannot_be_estimated_may_meet_the_condition():
    def fails(atoms):
        raise ValueError("no value")

    atoms = Atoms("Al", cell=[2, 2, 2], pbc=True)
    assert GOALS.with_estimators({"volume": fails}).promises(atoms)
    assert not GOALS.with_estimators({"volume": lambda _: 1.0}).promises(atoms)
