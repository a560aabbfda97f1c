from ase.build import bulk

from hybridcsp.allocation import EqualShares
from hybridcsp.records import Candidate, Proposal, Rejected, RejectionReason


def candidate(source):
    return Candidate(proposal=Proposal(atoms=bulk("Cu"), operator="made"), id=1, source=source)


def test_every_source_gets_the_same_number():
    allocation = EqualShares()
    given = []
    for _ in range(7):
        given.append(allocation.choose(["a", "b", "c"]))
        allocation.proposed([candidate(given[-1])])
    assert given == ["a", "b", "c", "a", "b", "c", "a"]


def test_what_was_rejected_was_not_given():
    allocation = EqualShares()
    allocation.proposed([candidate("a")])
    allocation.observe([Rejected(candidate=candidate("a"), reason=RejectionReason.VOLUME)])
    assert allocation.choose(["a", "b"]) == "a"


def test_only_what_is_available_is_chosen():
    assert EqualShares().choose(["b"]) == "b"
