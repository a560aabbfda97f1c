import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hybridcsp.errors import BackendError, InputError, UnknownNameError
from hybridcsp.workflows import compare

COPPER = {
    "problem": {"formula": "Cu", "max_atoms": 2},
    "search": {"calculator": "emt"},
    "budget": {"relaxations": 3, "refine": 0},
}


def test_each_strategy_and_seed_runs_in_a_separate_directory(tmp_path):
    runs = compare.plan({"Cu": COPPER}, ["random", "random+evolution:strain", "random"], range(2), tmp_path)
    assert [(run.strategy, run.seed) for run in runs] == [
        ("random", 0),
        ("random+evolution:strain", 0),
        ("random", 1),
        ("random+evolution:strain", 1),
    ]
    assert len({run.directory for run in runs}) == 4
    assert runs[1].raw["search"]["sources"] == ["random", "evolution:strain"]
    assert list(runs[1].sources) == ["random", "evolution"]
    assert runs[1].sources["evolution"].waiting_for == "it starts after 6 minima"
    assert not any(run.trust for run in runs)


def test_mistakes_are_reported_before_any_run_starts(tmp_path):
    with pytest.raises(InputError, match="joined by"):
        compare.plan({"Cu": COPPER}, ["random+"], range(1), tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        compare.plan({"Cu": COPPER}, ["random", "random+randm"], range(1), tmp_path)
    with pytest.raises(InputError, match="sources = 'shake' cannot be used: it cannot run alone; add another source"):
        compare.plan({"Cu": COPPER}, ["random+shake", "shake"], range(1), tmp_path)
    with pytest.raises(InputError, match="did you mean 'emt'"):
        compare.plan({"Cu": COPPER | {"search": {"calculator": "emtt"}}}, ["random"], range(1), tmp_path)
    with pytest.raises(InputError, match="relaxations"):
        compare.plan({"Cu": COPPER | {"budget": {"relaxations": 0}}}, ["random"], range(1), tmp_path)
    with pytest.raises(InputError, match=r"budget\.relaxations"):
        compare.plan({"Cu": COPPER | {"budget": {"hours": 1}}}, ["random"], range(1), tmp_path)
    with pytest.raises(InputError, match="no such file"):
        compare.plan({"Cu": COPPER}, ["random", "seeds:nothing.cif"], range(1), tmp_path)
    with pytest.raises(InputError, match="seeds is missing"):
        compare.plan({"Cu": COPPER}, ["random"], range(0), tmp_path)
    followed_up = {
        "then": {"calculators": ["lj"], "every": 2, "counts": True},
        "budget": {"relaxations": 3, "stop_at": -3},
    }
    with pytest.raises(InputError, match="this is an enthalpy of the last follow-up calculator"):
        compare.plan({"Cu": COPPER | followed_up}, ["random"], [0], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_strategies_that_would_share_a_directory_are_refused(tmp_path):
    for name in ("a/b", "a_b"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "POSCAR").write_text("Cu\n1\n2.6 0 0\n0 2.6 0\n0 0 2.6\nCu\n1\nDirect\n0 0 0\n")
    strategies = [f"seeds:{tmp_path}/a/b", f"seeds:{tmp_path}/a_b"]
    with pytest.raises(InputError, match="has the same run directory"):
        compare.plan({"Cu": COPPER}, strategies, range(1), tmp_path / "runs")


class TestTrust:
    @pytest.fixture
    def theirs(self, tmp_path, monkeypatch):
        """Make a package that leaves a trace when it is imported."""
        package = tmp_path / "somebodys_package"
        package.mkdir()
        (package / "__init__.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').close()\n")
        (package / "inner.py").write_text("from ase.calculators.emt import EMT as make\n")
        monkeypatch.syspath_prepend(tmp_path)
        yield COPPER | {"search": {"calculator": "somebodys_package.inner:make"}}
        sys.modules.pop("somebodys_package", None)

    @pytest.mark.parametrize("trust", [False, True])
    def test_module_named_by_a_calculator_is_not_imported(self, tmp_path, theirs, trust):
        if trust:
            (run,) = compare.plan({"Cu": theirs}, ["random"], range(1), tmp_path / "runs", trust=True)
            assert run.trust
        else:
            with pytest.raises(InputError, match="add --trust"):
                compare.plan({"Cu": theirs}, ["random"], range(1), tmp_path / "runs")
        assert not (tmp_path / "RAN").exists()

    def test_trust_in_the_calculator_does_not_cover_commands(self, tmp_path):
        tables = COPPER | {"external": {"theirs": {"command": ["touch", "{output}"]}}}
        with pytest.raises(InputError, match=r"external\.theirs\.command.*add --trust"):
            compare.plan({"Cu": tables}, ["random+external:theirs"], range(1), tmp_path / "runs", trust=True)


@pytest.mark.slow
def test_only_missing_relaxations_are_done(tmp_path):
    seen = []
    first = compare.plan({"Cu": COPPER}, ["random"], range(1), tmp_path)
    compare.execute(first, parallel=2, on_progress=seen.append)
    before = (first[0].directory / "search.db").stat().st_mtime_ns
    assert first[0].finished
    assert (seen[-1].relaxations, seen[-1].planned, seen[-1].ended, seen[-1].runs) == (3, 3, 1, 1)
    assert seen[-1].seconds_left == 0

    runs = compare.plan({"Cu": COPPER}, ["random"], range(2), tmp_path)
    assert [run.done() for run in runs] == [3, 0]
    compare.execute(runs, parallel=2)
    assert (first[0].directory / "search.db").stat().st_mtime_ns == before

    longer = compare.plan({"Cu": COPPER | {"budget": {"relaxations": 5, "refine": 0}}}, ["random"], range(1), tmp_path)
    compare.execute(longer)
    assert longer[0].done() == 5

    with pytest.raises(InputError, match="as in the existing run"):
        target = {"budget": {"relaxations": 5, "refine": 0, "stop_at": -1.0}}
        compare.plan({"Cu": COPPER | target}, ["random"], range(1), tmp_path)
    with pytest.raises(InputError, match=r"search\.calculator = 'lj' .* the value 'emt' as in the .*seed-0"):
        compare.plan({"Cu": COPPER | {"search": {"calculator": "lj"}}}, ["random"], range(1), tmp_path)
    (tmp_path / "copper.xy").write_text("".join(f"{20 + 0.1 * i} {i % 7}\n" for i in range(200)))
    with pytest.raises(InputError, match=r"xrd\.pattern = .*copper\.xy.* the value None as in the existing run"):
        measured = {"xrd": {"pattern": str(tmp_path / "copper.xy"), "wavelength": "CuKa"}}
        compare.plan({"Cu": COPPER | measured}, ["random"], range(1), tmp_path)
    with pytest.raises(InputError, match=r"problem\.max_atoms = 4 .* the value 2 as in the existing run"):
        compare.plan({"Cu": COPPER | {"problem": {"formula": "Cu", "max_atoms": 4}}}, ["random"], range(1), tmp_path)


@pytest.mark.slow
def test_error_of_a_run_is_raised_after_the_other_runs(tmp_path):
    runs = compare.plan({"Cu": COPPER}, ["random", "evolution"], range(1), tmp_path)
    runs[0].directory.mkdir(parents=True)
    (runs[0].directory / "workers").write_text("in the way of the folder of logs\n")
    with pytest.raises(BackendError, match=r"seed-0 ended before its 3 relaxations(?s:.*)workers"):
        compare.execute(runs)
    assert runs[1].finished


SCRIPT = """
import json, sys
from pathlib import Path
from hybridcsp.workflows import compare
runs = compare.plan(json.loads(sys.argv[1]), ["random"], range(1), Path(sys.argv[2]))
compare.execute(runs)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_searches_end_with_the_comparison(tmp_path, number):
    tables = {"Cu": COPPER | {"problem": {"formula": "Cu", "max_atoms": 4}, "budget": {"relaxations": 100000}}}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(tables), str(tmp_path)],
        stderr=(tmp_path / "errors").open("wb"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    database = tmp_path / "Cu" / "random" / "seed-0" / "search.db"

    def is_searching():
        assert process.poll() is None, (tmp_path / "errors").read_text()  # at once, instead of when the time is up
        return database.exists() and len(psutil.Process(process.pid).children(recursive=True)) >= 2

    wait_for(is_searching)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.wait()
    wait_for(lambda: all(gone(child) for child in started))

    (run,) = compare.plan(tables, ["random"], range(1), tmp_path)
    done = run.done()
    assert not run.finished
    more = {"Cu": tables["Cu"] | {"budget": {"relaxations": done + 1, "refine": 0}}}
    (run,) = compare.plan(more, ["random"], range(1), tmp_path)
    compare.execute([run])
    assert run.done() == done + 1


def wait_for(condition, seconds=120):  # a loaded machine takes long to start three interpreters
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_modules_of_the_working_directory_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("typer", "numpy", "json", "hybridcsp"):
        Path(f"{name}.py").write_text(f"open('RAN-{name}', 'w').close()\nraise ImportError\n")
    (run,) = compare.plan({"Cu": COPPER | {"budget": {"relaxations": 1, "refine": 0}}}, ["random"], range(1), tmp_path)
    compare.execute([run])
    assert run.finished
    assert list(tmp_path.glob("RAN-*")) == []


@pytest.mark.slow
def test_logs_are_not_written_through_symbolic_links(tmp_path):
    (run,) = compare.plan({"Cu": COPPER}, ["random"], range(1), tmp_path)
    run.directory.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (run.directory.parent / "seed-0.log").symlink_to(victim)
    with pytest.raises(InputError, match="not a symbolic link"):
        compare.execute([run])
    assert victim.read_text() == "untouched"
