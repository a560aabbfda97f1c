"""Jobs of several structures: what their tags hold, and what becomes of the structures that they do not relax."""

import json
from dataclasses import replace

import numpy as np
import pytest
from crystals import instant_relaxation, random_crystal

from hybridcsp.core.outcomes import Failed, FailureReason, Rejected, RejectionReason
from hybridcsp.core.records import Candidate, Job
from hybridcsp.errors import InputError
from hybridcsp.sources.preselection import (
    RELAXATIONS_PER_JOB,
    Alternative,
    Leftovers,
    alternatives_of,
    check_samples_per_job,
    make_proposal,
)


def some(n, first=0):
    rng = np.random.default_rng(first)
    return [Alternative(random_crystal("Cu2Ag2", 15.0, rng), {"number": first + i, "why": "x"}) for i in range(n)]


def sent(leftovers, starts, id_=1):
    candidate = Candidate(proposal=make_proposal("made", starts, {}, 0.0), id=id_, source="test")
    leftovers.proposed(candidate.id, alternatives_of(candidate))
    return candidate


def relaxed_of(candidate):
    return instant_relaxation(Job(candidate=candidate, atoms=candidate.atoms, level=candidate.proposal.level))


@pytest.fixture
def leftovers():
    return Leftovers(lambda tag: tag["number"])


def test_one_is_a_plain_proposal():
    (start,) = some(1)
    made = make_proposal("made", [start], {"more": 1}, 0.5)
    assert (made.level, made.operator, made.tag) == ("relax", "made", {"number": 0, "why": "x", "more": 1})
    assert made.cost.seconds == 0.5


def test_tag_of_a_job_of_several_describes_each_structure():
    starts = some(3)
    starts[1] = replace(starts[1], atoms=starts[1].atoms[[3, 0, 2, 1]])
    made = make_proposal("made", starts, {}, 0.0)
    assert (made.level, made.operator) == ("lowest", "made")
    read = alternatives_of(Candidate(proposal=replace(made, tag=json.loads(json.dumps(made.tag))), id=1, source="test"))
    assert [one.tag for one in read] == [one.tag for one in starts]
    for one, start in zip(read, starts, strict=True):
        for symbol in ("Cu", "Ag"):
            own, other = (atoms.positions[atoms.symbols == symbol] for atoms in (one.atoms, start.atoms))
            assert own == pytest.approx(other)


def test_the_lowest_follow_until_the_next_job_is_due(leftovers):
    starts = some(6)
    outcome = relaxed_of(sent(leftovers, starts))
    assert leftovers.next is None  # nobody knows yet
    leftovers.observe(outcome)
    order = np.argsort(outcome.start_enthalpies)
    assert [one.tag["number"] for one in leftovers.ranked()] == order[1:].tolist()
    for place in range(1, RELAXATIONS_PER_JOB):
        assert leftovers.next.tag["number"] == order[place]
        assert leftovers.next.estimate == outcome.start_enthalpies[order[place]]
        sent(leftovers, [leftovers.next], id_=1 + place)
    assert leftovers.next is None
    assert len(leftovers.ranked()) == 6 - RELAXATIONS_PER_JOB
    again = relaxed_of(sent(leftovers, [*some(2, first=10), leftovers.ranked()[0]], id_=9))
    leftovers.observe(again)
    assert leftovers.next is not None
    assert {one.tag["number"] for one in leftovers.ranked()} <= {*range(6), 10, 11}


def test_structures_that_cannot_be_evaluated_are_dropped(leftovers):
    candidate = sent(leftovers, some(3))
    leftovers.observe(replace(relaxed_of(candidate), start_enthalpies=(-1.0, None, -2.0)))
    assert [one.tag["number"] for one in leftovers.ranked()] == [0]


def test_estimates_go_before_enthalpies(leftovers):
    candidate = sent(leftovers, some(3))
    outcome = replace(relaxed_of(candidate), start_enthalpies=(-1.0, -2.0, -3.0), start_estimates=(-3.5, -3.2, -3.1))
    assert outcome.chosen == 0
    leftovers.observe(outcome)
    assert [one.tag["number"] for one in leftovers.ranked()] == [1, 2]


@pytest.mark.parametrize("what", [Failed, Rejected])
def test_nothing_waits_of_a_job_that_was_lost(leftovers, what):
    candidate = sent(leftovers, some(3))
    reason = FailureReason.WORKER_DIED if what is Failed else RejectionReason.DUPLICATE
    leftovers.observe(what(candidate=candidate, reason=reason))
    assert leftovers.ranked() == []
    assert leftovers.next is None


def test_outcomes_of_others_make_no_difference(leftovers):
    sent(leftovers, some(3))
    other = Candidate(proposal=make_proposal("made", some(4, first=20), {}, 0.0), id=7, source="other")
    leftovers.observe(relaxed_of(other))
    assert leftovers.ranked() == []


def test_a_start_knows_where_it_belongs(leftovers):
    candidate = sent(leftovers, some(4))
    leftovers.observe(relaxed_of(candidate))
    assert leftovers.ranked()[0].tag in leftovers
    assert {"number": 77} not in leftovers


def test_no_job_can_be_made_of_nothing():
    with pytest.raises(InputError, match="one_shot"):
        check_samples_per_job(0)
