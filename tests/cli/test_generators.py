"""``hybridcsp generators``, ``train``, ``sample`` and ``evaluate``."""

import csv
import json
import os
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from crystals import InlineBackend, P1Source, instant_relaxation
from toys import Toy, install
from typer.testing import CliRunner

from hybridcsp import Problem, Search
from hybridcsp.cli.app import app
from hybridcsp.core.registry import Entry
from hybridcsp.errors import CommandLineError, GeneratorError, InputError
from hybridcsp.generators.base import Epoch, Reject
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.sources.registry import SOURCES

TESTS = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """Register the toy generator, as another package would, and work in an empty folder."""
    entry = Entry(name="toy", target="toys:Toy", summary="a toy", package="toys", base=GENERATORS.base)
    entries = GENERATORS.entries()
    monkeypatch.setattr(GENERATORS, "entries", lambda: entries | {"toy": entry})
    monkeypatch.chdir(tmp_path)


def hybridcsp(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_generators_lists_names_and_training_data():
    output = hybridcsp("generators").output
    assert "wyckoff" in output
    assert "from toys" in output
    assert "trained on" in output or "no weights" in output


def test_generators_as_json_and_csv():
    listed = json.loads(hybridcsp("generators", "--json").stdout)
    assert {row["name"] for row in listed} >= {"wyckoff", "flow", "toy"}
    assert hybridcsp("generators", "--csv").stdout.startswith("name,summary,trained_on,package\n")


class TestSample:
    def test_samples_are_distributed_over_formula_units(self):
        output = hybridcsp(
            *("sample", "toy", "--formula", "TiO2", "--formula-units", "1-4", "--n", "10", "--output", "x.extxyz")
        ).output
        frames = ase.io.read("x.extxyz", ":")
        assert "10 of 10 crystals" in output
        assert [len(frame) for frame in frames] == [3] * 3 + [6] * 3 + [9] * 2 + [12] * 2
        assert [frame.info["request"] for frame in frames] == [0] * 3 + [1] * 3 + [2] * 2 + [3] * 2
        assert all(frame.pbc.all() and "log_likelihood" in frame.info for frame in frames)

    def test_few_samples_are_explained(self):
        arguments = ("sample", "toy", "--formula", "TiO2", "--formula-units", "1-4", "--n", "3", "--output", "x.extxyz")
        output = " ".join(hybridcsp(*arguments).output.split())
        assert (
            "3 of 3 crystals in x.extxyz; by number of formula units: 1 with 1, 1 with 2, 1 with 3, 0 with 4" in output
        )
        assert "No crystals with 4 formula units" in output
        output = " ".join(hybridcsp(*arguments, "--each").output.split())
        assert "12 of 12 crystals in x.extxyz, 3 per number of formula units" in output
        frames = ase.io.read("x.extxyz", ":")
        assert [frame.info["formula_units"] for frame in frames] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3

    def test_missing_crystals_are_named_and_others_written(self, monkeypatch):
        answer = Toy.answer
        monkeypatch.setattr(
            Toy,
            "answer",
            lambda self, i, asked, rng: (
                Reject(request=i, reason="too large") if len(asked.contents) > 1 else answer(self, i, asked, rng)
            ),
        )
        Path("cells.txt").write_text("Cu4\nCuAu\n")
        done = hybridcsp("sample", "toy", "--formulas", "cells.txt", "--n", "2", "--output", "x.extxyz")
        assert done.exit_code == 1
        assert "2 of 4 crystals in x.extxyz, 2 per line of cells.txt" in " ".join(done.output.split())
        assert "2 crystals are missing:" in done.stderr
        assert "Cu1Au1: 2 too large" in done.stderr
        assert len(ase.io.read("x.extxyz", ":")) == 2

    def test_samples_become_seeds_for_another_code(self):
        done = hybridcsp(
            *("sample", "toy", "--formula", "TiO2", "--formula-units", "1-2", "--n", "4"),
            *("--format", "uspex", "--output", "uspex_run"),
        )
        assert "4 seeds in uspex_run/Seeds/POSCARS" in " ".join(done.output.split())
        assert Path("uspex_run/Seeds/POSCARS").read_text().count("Direct") == 4
        with pytest.raises(InputError, match="did you mean 'uspex'"):
            hybridcsp("sample", "toy", "--formula", "TiO2", "--format", "uspx", "--output", "elsewhere")
        assert not Path("elsewhere").exists()

    def test_each_line_of_file_is_a_cell(self):
        Path("cells.txt").write_text("Ti2O4\n\nMgSiO3\n # copper\nCu4\n")
        output = hybridcsp("sample", "toy", "--formulas", "cells.txt", "--n", "2", "--output", "x.extxyz").output
        assert "6 of 6 crystals" in output
        frames = ase.io.read("x.extxyz", ":")
        assert [(f.info["request"], f.get_chemical_formula()) for f in frames] == [
            (0, "O4Ti2"),
            (0, "O4Ti2"),
            (2, "MgO3Si"),
            (2, "MgO3Si"),
            (4, "Cu4"),
            (4, "Cu4"),
        ]

    def test_same_seed_gives_same_crystals(self):
        for seed, name in ((1, "a.extxyz"), (1, "b.extxyz"), (2, "c.extxyz")):
            hybridcsp("sample", "toy", "--formula", "Cu2", "--n", "3", "--seed", seed, "--output", name)
        a, b, c = (Path(name).read_text() for name in ("a.extxyz", "b.extxyz", "c.extxyz"))
        assert a == b != c

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["toyy", "--formula", "Cu"], "did you mean 'toy'"),
            (["./nowhere", "--formula", "Cu"], "card.json"),
            (["toy"], "either --formula FORMULA or --formulas"),
            (["toy", "--formula", "Cu", "--formulas", "cells.txt"], "either --formula FORMULA or --formulas"),
            (["toy", "--formula", "Xx2"], "--formula = 'Xx2'"),
            (["toy", "--formula", "Cu", "--formula-units", "0-2"], "--formula-units"),
            (["toy", "--formula", "Cu", "--formula-units", "many"], "--formula-units"),
            (["toy", "--formula", "Cu", "--formula-units", "3-2"], "a range such as 1-4"),
            (["toy", "--formula", "CuO", "--formula-units", "1-1000000000"], "a cell of at most 1000 atoms"),
            (["toy", "--formula", "Cu1001"], "1 formula unit is 1001 atoms"),
            (["toy", "--formulas", "cells.txt"], "line 2 = 'Qz'"),
            (["toy", "--formulas", "nothing.txt"], "nothing.txt"),
            (["toy", "--formulas", "comments.txt"], "at least one formula"),
            (["toy", "--formula", "Cu", "--spacegroup", "225"], "the supported conditions are none"),
            (
                ["toy", "--formula", "Cu", "--energy-quantile", "0.1"],
                "--energy-quantile = 0.1 cannot be used: toy does not support",
            ),
            (["toy", "--formula", "Cu", "--pressure", "5"], "--pressure = 5.0 cannot be used: toy does not support"),
            (["toy", "--formula", "Cu", "--energy-quantile", "2"], "a number from 0 to 1"),
            (["toy", "--formula", "Cu", "--pressure", "nan"], "a pressure in GPa"),
            (["toy", "--formulas", "cells.txt", "--formula-units", "2"], "only with --formula"),
            (["toy", "--formula", "Cu", "--output", "x.pdb"], "a known extension: .extxyz"),
            (["toy", "--formulas", "cells.txt", "--each"], "only with --formula"),
            (["toy", "--formula", "Cu", "--output", "cells.txt/x.extxyz"], "a file is in its place"),
        ],
    )
    def test_wrong_input_leaves_no_files(self, arguments, expected):
        Path("cells.txt").write_text("Cu\nQz\n")
        Path("comments.txt").write_text("# Cu\n\n")
        output = [] if "--output" in arguments else ["--output", "x.extxyz"]
        with pytest.raises((CommandLineError, InputError)) as raised:
            hybridcsp("sample", *arguments, *output)
        assert expected in str(raised.value)
        assert sorted(path.name for path in Path().iterdir()) == ["cells.txt", "comments.txt"]

    def test_no_sample_at_all_is_an_error(self, monkeypatch):
        monkeypatch.setattr(Toy, "answer", lambda _, i, *more: Reject(request=i, reason="out of luck"))
        with pytest.raises(GeneratorError, match="none of the 2 requested crystals: 2 times: out of luck"):
            hybridcsp("sample", "toy", "--formula", "Cu", "--n", "2", "--output", "x.extxyz")
        assert list(Path().iterdir()) == []


class TestTrain:
    def write(self, name="data.extxyz"):
        solids = [bulk(s, "fcc", a=a) for s, a in (("Cu", 3.6), ("Ag", 4.1), ("Au", 4.1), ("Al", 4.0))]
        ase.io.write(name, solids)

    def test_train_prints_epochs_and_writes_usable_folder(self):
        self.write()
        output = hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "mine", "--epochs", "2").output
        assert "4 crystals" in output
        assert "epoch 2" in output
        assert "held_out 1.0000  best" in output
        card = json.loads(Path("mine/card.json").read_text())
        assert card["data"]["files"][0]["name"] == "data.extxyz"
        hybridcsp("sample", "./mine", "--formula", "Cu", "--n", "4", "--output", "new/x.extxyz")
        assert len(ase.io.read("new/x.extxyz", ":")) == 4

    def test_train_ends_with_curve_and_assessment(self):
        self.write()
        output = " ".join(hybridcsp("train", "toy", "--data", "data.extxyz", "--epochs", "8").output.split())
        assert "Held-out loss 2.0000 █" in output
        assert "Assessment: best epoch 8 of 8, held-out loss 0.2500; still falling" in output
        assert Path("toy-trained/curve.png").read_bytes().startswith(b"\x89PNG")
        assert len(Path("toy-trained/curve.csv").read_text().splitlines()) == 9
        hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "second", "--plot", "loss.svg")
        assert "<svg" in Path("loss.svg").read_text()

    def test_curve_contains_epochs_of_interrupted_training(self, monkeypatch):
        def fit(self, examples, *, checkpoint, on_epoch, **_):
            first = 3 if checkpoint.exists() else 1
            for number in range(first, first + 3):
                on_epoch(Epoch(number=number, losses={"train": 1.0, "held_out": 1 / number}, at_start=3.0))
            if first == 1:
                checkpoint.write_text("after epoch 2")
                raise KeyboardInterrupt

        self.write()
        monkeypatch.setattr(Toy, "fit", fit)
        assert hybridcsp("train", "toy", "--data", "data.extxyz").exit_code == 130
        assert "best epoch 5 of 5" in hybridcsp("train", "toy", "--data", "data.extxyz").output
        rows = Path("toy-trained/curve.csv").read_text().splitlines()
        assert [row.split(",")[1] for row in rows[1:]] == ["1", "2", "3", "4", "5"]

    def test_folder_of_weights_is_trained_further(self):
        self.write()
        hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "first")
        hybridcsp("train", "./first", "--data", "data.extxyz", "--set", "batch_size=3", "--learning-rate", "1e-3")
        assert json.loads(Path("toy-trained/card.json").read_text())["settings"] == ["batch_size", "learning_rate"]

    def test_unknown_setting_leaves_no_folder(self):
        self.write()
        Path("empty").mkdir()
        for output in ("new", "empty"):
            with pytest.raises(InputError, match=r"^--set = 'foo' is not valid: it must be one of .*batch_size"):
                hybridcsp("train", "flow", "--data", "data.extxyz", "--output", output, "--set", "foo=3")
        assert sorted(path.name for path in Path().iterdir()) == ["data.extxyz", "empty"]

    def test_what_a_model_cannot_learn_is_an_error_of_its_option(self, monkeypatch):
        def fit(self, examples, *, checkpoint, batch_size=0, **_):
            raise InputError("batch_size", batch_size, "more") if batch_size else InputError("examples", 3, "more")

        self.write()
        monkeypatch.setattr(Toy, "fit", fit)
        with pytest.raises(InputError, match=r"^--data = 'data\.extxyz' is not valid"):
            hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "new")
        with pytest.raises(InputError, match=r"^--set batch_size = 7 is not valid"):
            hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "new", "--set", "batch_size=7")

    def test_failed_training_keeps_checkpoint(self, monkeypatch):
        def fit(self, examples, *, checkpoint, **_):
            checkpoint.write_text("half way")
            raise InputError("learning_rate", 9.0, "less")

        self.write()
        monkeypatch.setattr(Toy, "fit", fit)
        with pytest.raises(InputError, match="less"):
            hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "new")
        assert [path.read_text() for path in Path("new").iterdir()] == ["half way"]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["tyo", "--data", "data.extxyz"], "did you mean 'toy'"),
            (["toy", "--data", "nothing"], "no such file"),
            (["toy", "--data", "data.extxyz", "--set", "epochs"], "KEY=VALUE"),
            (["toy", "--data", "data.extxyz", "--set", "seed=3"], "--seed"),
            (["toy", "--data", "data.extxyz", "--learning-rate", "fast"], "--learning-rate = 'fast'"),
            (["toy", "--data", "data.extxyz", "--output", "taken"], "already contains weights"),
            (["toy", "--data", "data.extxyz", "--plot", "curve.txt"], "a file whose name ends in .png"),
            (["toy", "--data", "data.extxyz", "--output", "data.extxyz"], "a file is in its place"),
        ],
    )
    def test_wrong_input_is_reported_before_computing(self, arguments, expected):
        self.write()
        Path("taken").mkdir()
        Path("taken/card.json").write_text("{}")
        before = sorted(Path().rglob("*"))
        with pytest.raises((CommandLineError, InputError)) as raised:
            hybridcsp("train", *arguments)
        assert expected in str(raised.value)
        assert sorted(Path().rglob("*")) == before


class TestEvaluate:
    def test_evaluate_prints_fractions_and_writes_scores(self):
        ase.io.write("data.extxyz", [bulk("Cu"), bulk("Ag"), bulk("NaCl", "rocksalt", a=5.6)])
        output = hybridcsp(
            *("evaluate", "toy", "--data", "data.extxyz", "--samples", "3", "--crystals", "2", "--output", "new/s.json")
        ).output
        assert "match rate at 3" in output
        assert [line.split() for line in output.splitlines() if "tolerance" in line] == [
            ["tolerance:", "stol", "0.5", "0.06"],
            ["tolerance:", "ltol", "0.3", "0.03"],
            ["tolerance:", "angle_tol", "10", "2"],
            ["tolerance:", "volume", "scaled", "0.06"],
        ]
        assert "samples per second" in output
        kept = json.loads(Path("new/s.json").read_text())
        assert kept["summary"]["crystals"] == 2
        assert kept["tolerances"]["match"]["stol"] == 0.5
        assert kept["tolerances"]["strict match"]["stol"] == 0.06
        assert [len(one["same"]) for one in kept["crystals"]] == [3, 3]
        assert [len(one["displacements"]) for one in kept["crystals"]] == [3, 3]

    def test_standard_output_contains_only_the_table(self):
        ase.io.write("data.extxyz", [bulk("Cu"), bulk("Ag")])
        arguments = ("evaluate", "toy", "--data", "data.extxyz", "--samples", "2")
        printed = json.loads(hybridcsp(*arguments, "--json", "--output", "s.json").stdout)
        kept = json.loads(Path("s.json").read_text())
        assert printed == {key: kept[key] for key in ("generator", "tolerances", "summary")}
        assert printed["summary"]["samples"] == 4
        (row,) = csv.DictReader(hybridcsp(*arguments, "--csv").stdout.splitlines())
        assert float(row["match rate at 2"]) == printed["summary"]["match rate at 2"]

    def test_training_formulas_are_skipped(self):
        ase.io.write("data.extxyz", [bulk("Cu"), bulk("Ag")])
        hybridcsp("train", "toy", "--data", "data.extxyz", "--output", "mine")
        card = json.loads(Path("mine/card.json").read_text())
        Path("mine/card.json").write_text(json.dumps(card | {"training_formulas": "Ag Au"}))
        output = hybridcsp("evaluate", "./mine", "--data", "data.extxyz", "--samples", "1").output
        assert "crystals of 1 formulas" in output
        Path("mine/card.json").write_text(json.dumps(card | {"training_formulas": "Ag Cu"}))
        with pytest.raises(InputError, match="--everything"):
            hybridcsp("evaluate", "./mine", "--data", "data.extxyz")

    def test_unwritable_scores_are_reported_before_computing(self):
        ase.io.write("data.extxyz", bulk("Cu"))
        with pytest.raises(InputError, match=r"data.extxyz/new.*a file is in its place"):
            hybridcsp("evaluate", "toy", "--data", "data.extxyz", "--output", "data.extxyz/new/s.json")
        Path("folder").mkdir()
        with pytest.raises(InputError, match="a file, not a folder"):
            hybridcsp("evaluate", "toy", "--data", "data.extxyz", "--output", "folder")
        assert sorted(path.name for path in Path().iterdir()) == ["data.extxyz", "folder"]

    def test_missing_data_is_reported(self):
        with pytest.raises(InputError, match="no such file"):
            hybridcsp("evaluate", "toy", "--data", "nothing")
        ase.io.write("data.extxyz", bulk("Cu"))
        with pytest.raises(InputError, match="--known = 'nothing'"):
            hybridcsp("evaluate", "toy", "--data", "data.extxyz", "--known", "nothing")


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
def test_help_has_examples(command):
    assert f"hybridcsp {command}" in hybridcsp(command, "--help").output


FOREIGN = """
import os, time
from toys import Toy
class Foreign(Toy):
    name = "foreign"
    def answer(self, number, request, rng):
        mode = os.environ.get("FOREIGN", "")
        if mode == "crash":
            os.abort()
        if mode == "hang":
            time.sleep(600)
        if mode == "raise":
            raise RuntimeError("no idea")
        return super().answer(number, request, rng)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["", "crash", "hang", "raise"])
def test_generators_of_other_packages_run_in_subprocess(tmp_path, monkeypatch, mode):
    """Whatever they do there, the search goes on."""
    install(tmp_path, FOREIGN)
    monkeypatch.undo()  # the toy; this one is found as an installed package is
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(TESTS)]))
    monkeypatch.setenv("FOREIGN", mode)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("hybridcsp.sources.generative.TIMEOUT", 60.0 if mode != "hang" else 8.0)
    problem = Problem("Cu", formula_units=(1, 2), distance_fraction=0.05)
    source = SOURCES["generative"].build(problem, "foreign")
    backend = InlineBackend(instant_relaxation)
    run = Search(problem, calculator=None, directory=tmp_path / "run", sources=[source, P1Source()], backend=backend)
    assert run.run(relaxations=6, refine=0).stopped == "relaxations used up"
    made = [run.archive.candidate(i) for i in range(1, run.archive.candidates + 1)]
    assert any(candidate.source == "foreign" for candidate in made) == (mode == "")
    assert run.archive.state.errors["foreign"] == (0 if mode == "" else source.max_errors)
