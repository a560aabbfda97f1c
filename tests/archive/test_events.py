import json

import pytest

from hybridcsp.archive.basins import Basin
from hybridcsp.archive.events import CandidateFailed, CandidateRelaxed, SourceCalled, event_from_json

# One line of each kind, as every version of hybridcsp has written it so far.
LINES = {
    "opened": '{"format": 1, "settings": {"seed": 1, "problem": {"formula": "Cu"}}}',
    "called": '{"source": "random", "call": 0, "requested": 2, "owner": "workers", "candidates": [1, 2], '
    '"cost": {"force_calls": 0, "seconds": 0.25}, "error": ""}',
    "proposed": '{"candidate": 2, "source": "evolution", "operator": "heredity", "parents": [1, 7], '
    '"tag": {"mode": 1, "path": [1, {"a": null}]}, "cost": {"force_calls": 0, "seconds": 0.1}, "level": "relax", '
    '"owner": "workers"}',
    "rejected": '{"candidate": 2, "source": "random", "operator": "random", "reason": "distance", "detail": "Cu-Cu"}',
    "failed": '{"candidate": 2, "source": "random", "operator": "random", "level": "relax", '
    '"cost": {"force_calls": 3, "seconds": 0.5}, "detail": "it exploded", "start_enthalpies": [-3.5, null], '
    '"start_estimates": [-3.75, null], "relaxation": 4, "force_calls": 120, "reason": "force-explosion"}',
    "relaxed": '{"candidate": 2, "source": "random", "operator": "random", "level": "lowest", '
    '"cost": {"force_calls": 3, "seconds": 0.5}, "detail": "", "start_enthalpies": [], '
    '"start_estimates": [], "relaxation": null, '
    '"force_calls": 120, "calculator": "emt (ase 3.29)", "energy": -3.5, "enthalpy": -3.25, '
    '"enthalpy_per_atom": -3.25, "max_force": 0.01, "max_stress_residual": null, "converged": true, '
    '"objectives": {}, "spacegroup": 225, "spacegroup_loose": 225, "minimum": 1, "opened": true, "absorbed": null, '
    '"niche": 1, "suspect": false, "captured_by": null, "suspects": null}',
    "follow-up-failed": '{"candidate": 2, "source": "random", "operator": "random", "of": 1, "number": 1, '
    '"spec": "lj", "calculator": "", "cost": {"force_calls": 3, "seconds": 0.5}, "detail": "it exploded", '
    '"relaxation": 4, "reason": "force-explosion"}',
    "followed-up": '{"candidate": 2, "source": "random", "operator": "random", "of": 1, "number": 1, "spec": "lj", '
    '"calculator": "lj (ase 3.29)", "cost": {"force_calls": 3, "seconds": 0.5}, "detail": "", "relaxation": 4, '
    '"energy": -3.5, "enthalpy": -3.25, "enthalpy_per_atom": -3.25, "max_force": 0.01, "max_stress_residual": null, '
    '"converged": true, "spacegroup": 225, "spacegroup_loose": 225, "minimum": 1, "opened": true, '
    '"same_structure": true, "start_enthalpy": -3.125}',
    "adopted": '{"source": "flow", "versions": [0, 2], "cost": {"force_calls": 0, "seconds": 9.5}, "detail": "better", '
    '"training": {"version": 2}}',
    "stopped": '{"reason": "relaxations used up"}',
}

# Fields that earlier versions did not write, or that are written for their sake only.
ADDED_LATER = ("objectives", "start_enthalpies", "start_estimates", "niche", "suspect", "captured_by", "suspects")


@pytest.mark.parametrize("kind", LINES)
def test_events_are_written_as_they_were_read_byte_for_byte(kind):
    event = event_from_json(kind, json.loads(LINES[kind]), 5, 3)
    assert (event.kind, event.sequence, event.row) == (kind, 5, 3)
    assert json.dumps(event.to_json()) == LINES[kind]


def test_fields_have_their_types():
    called = event_from_json("called", json.loads(LINES["called"]))
    assert isinstance(called, SourceCalled)
    assert called.candidates == (1, 2)
    assert called.cost.seconds == 0.25
    relaxed = event_from_json("relaxed", json.loads(LINES["relaxed"]))
    assert isinstance(relaxed, CandidateRelaxed)
    assert relaxed.is_new_minimum


def test_unknown_fields_are_ignored_and_fields_of_later_versions_may_be_missing():
    data = json.loads(LINES["failed"]) | {"invented": 1, "kind": "other", "to_json": 0}
    del data["start_enthalpies"]
    event = event_from_json("failed", data)
    assert isinstance(event, CandidateFailed)
    assert event.start_enthalpies == ()
    assert event.kind == "failed"
    assert json.loads(json.dumps(event.to_json()))["reason"] == "force-explosion"


def test_relaxations_of_versions_without_niches_begin_niches_of_their_own():
    data = json.loads(LINES["relaxed"])
    for name in ADDED_LATER:
        data.pop(name, None)
    event = event_from_json("relaxed", data)
    basin = Basin(id=7, found_by=2, first_relaxation=1, first_force_calls=3, best=event)
    assert (basin.niche, basin.suspect, event.captured_by) == (7, False, None)


@pytest.mark.parametrize("kind", LINES)
def test_a_missing_field_is_an_error_when_the_event_is_read(kind):
    for name in json.loads(LINES[kind]):
        if name in ADDED_LATER:
            continue
        data = json.loads(LINES[kind])
        del data[name]
        with pytest.raises(KeyError, match=name):
            event_from_json(kind, data)


def test_events_of_unknown_kinds_are_left_to_later_versions():
    assert event_from_json("invented", {}) is None


def test_events_do_not_change():
    event = event_from_json("stopped", {"reason": "enough"})
    with pytest.raises(AttributeError):
        event.reason = "other"


def test_the_dimension_that_earlier_versions_wrote_is_not_a_difference_between_sessions():
    data = {"format": 1, "settings": {"seed": 1, "problem": {"formula": "Cu", "dimension": 3}}}
    assert event_from_json("opened", data).settings == {"seed": 1, "problem": {"formula": "Cu"}}
    data["settings"]["problem"]["dimension"] = 2
    assert event_from_json("opened", data).settings == data["settings"]
