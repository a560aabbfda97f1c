import time

import pytest
from copper import COPPER, crystals, search
from crystals import InlineBackend, ListSource, P1Source, instant_relaxation

from hybridcsp import Search
from hybridcsp.sources.base import SourceStatus


def test_sources_observe_every_outcome_in_order(tmp_path):
    source = P1Source()
    run = search(tmp_path, source)
    run.run(relaxations=5, refine=0)
    assert [o.sequence for o in source.heard] == sorted(o.sequence for o in source.heard)
    assert {o.candidate.id for o in source.heard} == set(range(1, run.archive.candidates + 1)) - {
        c.id for c in run.archive.pending("workers")
    }


def test_source_that_raises_does_not_end_the_search(tmp_path):
    class Broken(P1Source):
        name = "broken"

        def propose(self, n, context):
            raise RuntimeError("no idea")

    run = Search(
        "Cu",
        calculator=None,
        directory=tmp_path,
        sources=[Broken(), P1Source()],
        backend=InlineBackend(instant_relaxation),
        **COPPER,
    )
    assert run.run(relaxations=5).stopped == "relaxations used up"
    assert any("no idea" in getattr(event, "error", "") for event in run.archive.history())


def test_equal_allocation_shares_relaxations(tmp_path):
    run = Search(
        "Cu",
        calculator=None,
        directory=tmp_path,
        sources=[P1Source(), P1Source()],
        allocation="equal",
        backend=InlineBackend(instant_relaxation),
        **COPPER,
    )
    run.run(relaxations=10)
    shares = {source: tally.relaxed for (source, _), tally in run.archive.state.tallies.items()}
    assert shares == {"p1": 5, "p1-2": 5}


def test_waiting_source_is_called_after_ready_ones(tmp_path):
    class Hesitant(P1Source):
        name = "hesitant"

        def status(self):
            return SourceStatus.READY if len(self.heard) >= 7 else SourceStatus.WAITING

    def asked(directory, sources):
        run = search(directory, *sources, allocation="equal")
        run.run(relaxations=12)
        return [run.archive.candidate(number).source for number in range(1, 13)]

    given = ListSource(crystals(3))
    beside_another = asked(tmp_path / "ready", [Hesitant(), P1Source()])
    assert beside_another[:7] == ["p1"] * 7
    assert "hesitant" in beside_another
    # Where no other source has anything it is called all the same.
    assert asked(tmp_path / "exhausted", [Hesitant(), given]) == ["list"] * 3 + ["hesitant"] * 9
    assert asked(tmp_path / "alone", [Hesitant()]) == ["hesitant"] * 12


def test_dependent_source_is_not_called_while_it_waits(tmp_path):
    class Dependent(P1Source):
        name = "dependent"
        needs_others = True

        def status(self):
            return SourceStatus.WAITING

    run = search(tmp_path, Dependent(), ListSource(crystals(3)))
    assert run.run(relaxations=8).progress.relaxations == 3
    assert run.archive.state.calls["dependent"] == 0


def test_source_without_proposals_after_an_error_is_called_rarely(tmp_path):
    class Flaky(P1Source):
        name = "flaky"
        calls = 0

        def propose(self, n, context):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("not yet")
            return []

    flaky = Flaky()
    search(tmp_path, flaky, ListSource(crystals(5))).run(relaxations=8)
    assert flaky.calls < 20


def test_search_waits_for_busy_source_without_calling_it(tmp_path):
    class Slow(P1Source):
        name = "slow"
        calls = 0
        until = None

        def status(self):
            busy = self.until is not None and time.monotonic() < self.until
            return SourceStatus.BUSY if busy else SourceStatus.READY

        def propose(self, n, context):
            self.calls += 1
            if self.until is not None:
                self.until = None
                return super().propose(n, context)
            self.until = time.monotonic() + 0.5
            return []

    class Empty(P1Source):
        name = "empty"

        def propose(self, n, context):
            return []

    slow = Slow()
    run = search(tmp_path, slow, Empty())
    assert run.run(relaxations=3).progress.relaxations == 3
    assert slow.calls <= 8  # one to begin and one to collect
    assert run.archive.state.calls["empty"] <= 12


def test_search_does_not_wait_for_a_source_with_too_many_errors(tmp_path):
    class Stuck(P1Source):
        name = "stuck"
        max_errors = 1
        calls = 0

        def status(self):
            return SourceStatus.BUSY if self.calls else SourceStatus.READY

        def propose(self, n, context):
            self.calls += 1
            raise RuntimeError("never")

    run = search(tmp_path, Stuck(), ListSource(crystals(3)))
    assert run.run(relaxations=8, hours=30 / 3600).stopped == "sources exhausted"


def test_every_source_is_closed_even_if_one_fails_to_close(tmp_path):
    closed = []

    class Bad(P1Source):
        name = "bad"

        def close(self):
            raise RuntimeError("cannot")

    class Good(P1Source):
        name = "good"

        def close(self):
            closed.append(True)

    run = search(tmp_path, Good(), Bad(), Good())
    with pytest.raises(RuntimeError, match="cannot"):
        run.close()
    assert closed == [True, True]
    search(tmp_path, Good(), Bad(), Good())  # the directory is free again


@pytest.mark.parametrize("proposals", [["no proposal"], [None], 3])
def test_proposals_of_the_wrong_kind_are_errors_of_the_source(tmp_path, proposals):
    class Wrong(P1Source):
        name = "wrong"

        def propose(self, n, context):
            return proposals

    run = search(tmp_path, Wrong(), P1Source())
    assert run.run(relaxations=4, refine=0).stopped == "relaxations used up"
    assert run.archive.state.errors["wrong"] > 0


def test_proposals_may_be_yielded(tmp_path):
    class Yielding(P1Source):
        name = "yielding"

        def propose(self, n, context):
            yield from super().propose(n, context)

    run = search(tmp_path, Yielding())
    assert run.run(relaxations=4, refine=0).stopped == "relaxations used up"


def test_status_that_raises_does_not_end_the_search(tmp_path):
    class Broken(P1Source):
        name = "broken"

        def status(self):
            raise RuntimeError("no status")

    run = search(tmp_path, Broken(), P1Source())
    assert run.run(relaxations=4, refine=0).stopped == "relaxations used up"
