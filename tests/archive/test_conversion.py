"""Records that are written as events and read again."""

import numpy as np
from crystals import random_crystal

from hybridcsp.archive.conversion import candidate, candidate_event
from hybridcsp.core.records import LOWEST, WORKERS, Candidate, Proposal


def test_alternatives_are_stored_in_the_tag_and_read_again():
    rng = np.random.default_rng(0)
    first, *others = (random_crystal("Cu2Ag2", 15.0, rng) for _ in range(3))
    others[0] = others[0][[3, 0, 2, 1]]
    proposal = Proposal(atoms=first, operator="made", tag={"batch": 3}, level=LOWEST, alternatives=tuple(others))
    event = candidate_event(Candidate(proposal=proposal, id=1, source="test"), WORKERS)
    assert sorted(event.tag) == ["batch", "rivals"]
    found = candidate(event, first).proposal
    assert found.tag == {"batch": 3}
    assert found.alternatives == proposal.alternatives


def test_tag_of_a_single_structure_is_stored_as_it_is():
    crystal = random_crystal("Cu2", 15.0, np.random.default_rng(0))
    proposal = Proposal(atoms=crystal, operator="made", tag={"rivals": "of the user"})
    event = candidate_event(Candidate(proposal=proposal, id=1, source="test"), WORKERS)
    assert candidate(event, crystal).proposal.tag == {"rivals": "of the user"}
