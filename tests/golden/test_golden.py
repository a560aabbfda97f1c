"""Searches go as they were recorded: the same seeds give the same events, and old run directories stay readable.

Where a change of behaviour is meant, ``python tests/golden/record.py`` records it.
"""

import copy

import golden_searches as golden
import pytest


def test_an_uninterrupted_search_is_the_recorded_one(tmp_path):
    """One is enough: the others are compared with their records after an interruption, which must not matter."""
    record, found = golden.read_record("hopping"), golden.read_search(golden.run(golden.SEARCHES["hopping"], tmp_path))
    assert not (text := golden.difference(record["events"], found["events"])), text
    assert not (text := golden.difference(record["minima"], found["minima"], "minimum")), text


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.SEARCHES)
def test_a_search_that_was_killed_and_resumed_is_the_recorded_one(name, tmp_path):
    record = golden.read_record(name)
    found = golden.read_search(golden.run_with_interruption(golden.SEARCHES[name], tmp_path))
    expected, events = (golden.without_sessions(side["events"]) for side in (record, found))
    assert not (text := golden.difference(expected, events)), text
    assert not (text := golden.difference(record["minima"], found["minima"], "minimum")), text


def test_an_old_run_directory_is_shown_and_resumed_as_recorded(tmp_path):
    record, found = golden.read_record("old_run"), golden.continue_old_run(tmp_path)
    assert not (text := golden.difference([record["shown"]], [found["shown"]], "what is shown")), text
    assert not (text := golden.difference(record["events"], found["events"])), text
    assert not (text := golden.difference(record["minima"], found["minima"], "minimum")), text


def test_the_searches_reach_all_that_they_are_for():
    events = [event for name in golden.SEARCHES for event in golden.read_record(name)["events"]]
    kinds = {event["kind"] for event in events}
    assert kinds == {"opened", "called", "proposed", "relaxed", "failed", "rejected", "adopted", "stopped"}
    assert {event.get("level") for event in events} >= {"relax", "lowest", "refine"}
    assert {event["source"] for event in events if "source" in event} >= {
        *("random", "prototypes", "seeds", "swarm", "evolution", "basin-hopping", "shake", "program"),
        *("wyckoff", "flow"),
    }
    assert any("passes" in event.get("training", {}) for event in events)
    assert any("given up" in event.get("detail", "") for event in events if event["kind"] == "adopted")
    assert any("kept" in event.get("detail", "") for event in events if event["kind"] == "adopted")


class TestComparison:
    EVENTS = golden.read_record("hopping")["events"]

    def test_numbers_within_the_tolerance_are_the_same(self):
        events = copy.deepcopy(self.EVENTS)
        for event in events:
            if "enthalpy" in event:
                event["enthalpy"] += 5e-5
        assert not golden.difference(self.EVENTS, events)

    @pytest.mark.parametrize(
        ("field", "value"), [("enthalpy", -7.0), ("minimum", 99), ("converged", "yes"), ("operator", None), ("new", 1)]
    )
    def test_the_first_difference_is_named(self, field, value):
        events = copy.deepcopy(self.EVENTS)
        number = [event["kind"] for event in events].index("relaxed")
        events[number][field] = value
        text = golden.difference(self.EVENTS, events)
        assert text.startswith(f"event {number + 1} of {len(events)} differs:\n  {field}: ")

    def test_an_event_too_few_is_named(self):
        assert "then the record goes on with" in golden.difference(self.EVENTS, self.EVENTS[:-1])
