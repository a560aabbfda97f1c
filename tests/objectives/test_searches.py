"""Searches with objectives: values in the records, failures, conditions, resumption, and ask and tell."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import InlineBackend

from hybridcsp import Search
from hybridcsp.archive.archive import Archive
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.settings import SearchSettings


def failing() -> ObjectiveChoice:
    def fails_for_pairs(atoms) -> float:  # a function in a function is sent to workers by value
        if len(atoms) == 2:
            raise RuntimeError("two atoms are too many")
        return len(atoms)

    return ObjectiveChoice(objective=fails_for_pairs, goal="max")


FAILING = failing()


def search(directory: Path, **options) -> Search:
    options = {"objectives": ["density:max", FAILING], "where": "", **options}
    backend = InlineBackend(Relaxer(calculator="emt", objectives=search_objectives(options["objectives"]))())
    return Search(
        "Cu",
        formula_units=(1, 2),
        calculator="emt",
        sources=["random", "evolution"],
        backend=backend,
        directory=directory,
        **options,
    )


def search_objectives(given) -> tuple[ObjectiveChoice, ...]:
    return tuple(ObjectiveChoice.of(one) for one in given)


def events(directory: Path) -> list[tuple[str, dict]]:
    with sqlite3.connect(directory / "search.db") as database:
        rows = database.execute("SELECT kind, data FROM hybridcsp_events ORDER BY sequence").fetchall()
    found = [(kind, json.loads(data)) for kind, data in rows]
    for _, data in found:
        data.pop("cost", None)
    return found


class TestValues:
    def test_values_and_reasons_are_recorded_and_read_back(self, tmp_path):
        with search(tmp_path) as one:
            one.run(relaxations=8, refine=0)
        with Archive(tmp_path) as archive:
            minima = archive.minima()
            small = [minimum for minimum in minima if len(minimum.best.atoms) == 1]
            assert small, "some minimum has one atom"
            for minimum in minima:
                assert minimum.objectives["density"] > 1
                assert ("fails_for_pairs" in minimum.objectives) is (minimum in small)
            (name, reason), *_ = archive.state.objective_failures
            assert (name, reason) == ("fails_for_pairs", "RuntimeError: two atoms are too many")

    def test_force_calls_of_an_objective_are_counted(self, tmp_path):
        plain = search(tmp_path / "plain", objectives=[])
        with plain, search(tmp_path / "modulus", objectives=["bulk_modulus:report"]) as counted:
            for one in (plain, counted):
                one.run(relaxations=4, refine=0)
            more = counted.archive.state.cost.force_calls - plain.archive.state.cost.force_calls
            with_value = sum(bool(data["objectives"]) for kind, data in events(counted.directory) if kind == "relaxed")
            assert more >= 2 * with_value > 0

    def test_a_search_without_objectives_records_what_it_always_has(self, tmp_path):
        with search(tmp_path, objectives=[]) as one:
            one.run(relaxations=3, refine=0)
        opened, *others = events(tmp_path)
        assert not {"objectives", "where"} & opened[1]["settings"].keys()
        assert all("objective_failures" not in data for _, data in others)

    def test_told_structures_get_values_too(self, tmp_path):
        options = {"objectives": ["density:max", FAILING], "directory": tmp_path, "sources": ["random"]}
        with Search("Cu", calculator=None, **options) as one:
            copper = bulk("Cu", cubic=True)
            copper.calc = EMT()
            told = one.add(copper)
            assert told.objectives == {"density": pytest.approx(8.9, abs=0.1), "fails_for_pairs": 4.0}


class TestConditions:
    def test_minima_that_violate_the_condition_stay_in_the_archive_but_are_not_preferred(self, tmp_path):
        with search(tmp_path, objectives=["density:report"], where="density > 9") as one:
            one.run(relaxations=10, refine=0)
            everything = {minimum.id: minimum.objectives["density"] for minimum in one.archive.minima()}
            preferred = {one.minimum.id for one in one.archive.preferred_minima()}
            assert preferred == {id_ for id_, density in everything.items() if density > 9} != everything.keys()

    def test_height_can_be_limited(self, tmp_path):
        with search(tmp_path, where="height < 0.1") as one:
            one.run(relaxations=10, refine=0)
            lowest = one.archive.best_enthalpy_per_atom
            heights = [p.minimum.enthalpy_per_atom - lowest for p in one.archive.preferred_minima()]
            assert heights
            assert max(heights) < 0.1


class TestResumption:
    def test_a_resumed_search_equals_an_uninterrupted_one(self, tmp_path):
        def interrupt(progress) -> None:
            if progress.relaxations == 6:
                raise KeyboardInterrupt

        with search(tmp_path / "whole") as one:
            one.run(relaxations=14, refine=0)
        with search(tmp_path / "parts") as one, pytest.raises(KeyboardInterrupt):
            one.run(relaxations=14, refine=0, on_progress=interrupt)
        with search(tmp_path / "parts") as one:
            one.run(relaxations=14, refine=0)
        whole, parts = (
            [pair for pair in events(tmp_path / name) if pair[0] not in ("opened", "stopped")]
            for name in ("whole", "parts")
        )
        assert whole == parts

    def test_other_objectives_are_another_search(self, tmp_path):
        search(tmp_path).close()
        with pytest.raises(ArchiveError, match="objectives was"):
            search(tmp_path, objectives=["density:min"])
        with pytest.raises(ArchiveError, match="where was None, now 'height < 1'"):
            search(tmp_path, where="height < 1")


class TestInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"objectives": ["density"]}, "it has no direction; write density:max or density:min"),
            ({"objectives": ["densty:max"]}, "did you mean 'density'"),
            ({"objectives": ["density:max", "density:min"]}, "two objectives have this name"),
            ({"objectives": [], "where": "gap > 1"}, "gap is no objective of this search"),
            ({"objectives": [], "where": "density >"}, "it cannot be read"),
            (
                {"objectives": [], "where": "density > 3 and density < 1"},
                "no minimum can meet density > 3 and density < 1",
            ),
            ({"objectives": [], "where": "density > 1000"}, "may find has density <= 211.041"),
            (
                {"objectives": [ObjectiveChoice(objective=lambda atoms: atoms.no, goal="max", name="no")]},
                "it has failed for a test structure of Cu: AttributeError",
            ),
            (
                {"objectives": [ObjectiveChoice(objective=lambda _: "high", goal="max", name="word")]},
                "it returned str, which is not a number",
            ),
            (
                {"objectives": [ObjectiveChoice(objective=lambda _: float("nan"), goal="max", name="none")]},
                "for a test structure of Cu: ValueError: its value is nan",
            ),
            (
                {"objectives": [ObjectiveChoice(objective=lambda _: os._exit(7), goal="max", name="exits")]},
                r"it ended the process that called it \(worker 1 ended with exit status 7\)",
            ),
        ],
    )
    def test_bad_input_is_refused_before_the_directory_is_made(self, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            Search("Cu", calculator="emt", directory=tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()

    def test_a_search_whose_condition_was_accepted_before_can_be_resumed(self, tmp_path, monkeypatch):
        with monkeypatch.context() as earlier:
            earlier.setattr(SearchSettings, "check_condition", lambda *_: None)
            search(tmp_path, where="height < 0").close()
        with search(tmp_path, where="height < 0") as one:
            assert one.run(relaxations=2, refine=0).progress.relaxations == 2

    def test_a_file_that_ends_the_process_when_it_is_imported_is_refused(self, tmp_path):
        (tmp_path / "own.py").write_text("import os\nos._exit(0)\n")
        with pytest.raises(InputError, match="it ended the process that called it"):
            Search("Cu", calculator="emt", directory=tmp_path / "run", objectives=[f"{tmp_path}/own.py:gap:max"])

    def test_without_workers_no_objective_can_use_the_calculator(self, tmp_path):
        with pytest.raises(InputError, match="there is none with ask and tell"):
            Search("Cu", calculator=None, directory=tmp_path / "run", objectives=["bulk_modulus:max"])
