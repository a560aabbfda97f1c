"""Tests of the live display of a search in a terminal, a notebook and a log file."""

import io
import sys
import types
from dataclasses import replace

import pytest
from rich.console import Console

from hybridcsp import Search
from hybridcsp.analysis.live_display import LineDisplay, NotebookDisplay, TerminalDisplay, View, display, fraction_done
from hybridcsp.objectives.goals import BestValue
from hybridcsp.relaxation.backends.base import RunningJob
from hybridcsp.search.progress import Progress
from hybridcsp.search.stopping import StoppingCriteria

BUDGET = StoppingCriteria(relaxations=100)
NOTHING = Progress(
    relaxations=0,
    failed=0,
    rejected=0,
    running=0,
    minima=0,
    best=None,
    force_calls=0,
    run_relaxations=0,
    run_force_calls=0,
    run_seconds=0.1,
    level="relax",
    activity="loading chgnet in 2 workers",
)
HALF = replace(
    NOTHING,
    relaxations=50,
    failed=2,
    minima=31,
    best=-9.3891,
    best_from="wyckoff",
    spacegroup=136,
    run_relaxations=50,
    run_force_calls=4000,
    run_seconds=100.0,
    activity="",
    jobs=(
        RunningJob(
            candidate=52,
            source="evolution",
            operator="heredity",
            level="relax",
            seconds=3.2,
            force_calls=41,
            enthalpy_per_atom=-9.31234,
        ),
        RunningJob(candidate=53, source="random", operator="random", level="relax", seconds=0.1),
    ),
    training=("training flow: epoch 3 of 20", "wyckoff learns after 6 more new minima"),
)


def shown(progress, width=80, height=40):
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)
    view = View(BUDGET)
    view.progress = progress
    with console.capture() as capture:
        console.print(view)
    return capture.get().splitlines()


def test_phase_before_first_relaxation_is_named():
    assert shown(None) == ["starting"]
    assert any("loading chgnet in 2 workers" in line for line in shown(NOTHING))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_live_display_fits_terminal_with_a_line_per_relaxation(width):
    lines = shown(HALF, width)
    assert all(len(line) <= width for line in lines)
    assert "50/100 relaxations" in lines[0]
    assert "best -9.3891 eV/atom P4_2/mnm" in lines[1]
    assert lines[2].split()[:2] == ["#52", "evolution/heredity"]
    assert lines[3].split()[:2] == ["#53", "random"]
    assert lines[4].startswith("training flow: epoch 3 of 20")
    if width >= 80:
        assert "41 force calls" in lines[2] and "-9.3123 eV/atom" in lines[2] and lines[2].rstrip().endswith("3 s")
        assert "0:01:40 left" in lines[1]
    if width >= 100:
        assert lines[1].rstrip().endswith("best from wyckoff")


def test_the_best_values_of_objectives_are_shown_and_a_better_one_is_news():
    density = BestValue(name="density", unit="g/cm³", goal="max", value=4.25)
    lines = shown(replace(HALF, objectives=(density, replace(density, name="gap", value=None))), width=120)
    assert "best -9.3891 eV/atom P4_2/mnm · best density 4.25 g/cm³ · " in lines[1]
    assert "gap" not in lines[1]
    out = io.StringIO()
    with display(BUDGET, Console(file=out, width=80)) as live:
        for seconds, value in ((1.0, 4.25), (3.0, 4.25), (5.0, 4.5)):
            live.update(replace(HALF, run_seconds=seconds, objectives=(replace(density, value=value),)))
    assert ["best density 4.25" in line for line in out.getvalue().splitlines()] == [True, False]


FOLLOWED = replace(
    HALF,
    relaxations=100,
    level="follow-up",
    follow_ups_done=5,
    follow_ups_left=15,
    jobs=(RunningJob(candidate=7, source="random", operator="random", level="follow-up", seconds=2.0),),
)


def test_follow_ups_are_shown_with_the_numbers_done_and_to_do():
    lines = shown(FOLLOWED)
    assert "5 of 20 follow-ups done" in lines[1]
    assert "force calls/s" not in lines[1] and " left" not in lines[1]
    assert lines[2].split()[:4] == ["#7", "random", "(followed", "up)"]
    assert fraction_done(FOLLOWED, BUDGET) == 0.25
    assert "follow-ups" not in shown(HALF)[1]
    during = shown(replace(HALF, follow_ups_done=2, follow_ups_left=3), width=120)[1]
    assert "2 of 5 follow-ups done" in during and "0:01:40 left" in during


def test_log_file_gets_a_line_when_the_follow_ups_begin():
    out = io.StringIO()
    with display(BUDGET, Console(file=out, width=80)) as live:
        live.update(replace(HALF, run_seconds=1.0))
        live.update(replace(FOLLOWED, run_seconds=3.0))
        live.update(replace(FOLLOWED, run_seconds=4.0, follow_ups_done=6))
    first, second = out.getvalue().splitlines()
    assert "follow-ups" not in first
    assert "5 of 20 follow-ups done" in second


def test_low_terminal_gets_one_line():
    assert len(shown(HALF, height=8)) == 1


def test_control_characters_in_names_are_escaped():
    job = RunningJob(candidate=1, source="mine\x1b]0;owned\x07", operator="", level="relax", seconds=0.0)
    assert not any("\x1b" in line or "\x07" in line for line in shown(replace(HALF, jobs=(job,))))


def test_log_file_gets_first_line_news_and_occasional_lines():
    out = io.StringIO()
    console = Console(file=out, width=80)
    told = [NOTHING, replace(NOTHING, run_seconds=2.0), replace(HALF, run_seconds=3.0), replace(HALF, run_seconds=5.0)]
    told += [replace(HALF, run_seconds=14.0, relaxations=51), replace(HALF, run_seconds=16.0, best=-9.4)]
    with display(BUDGET, console) as live:
        assert isinstance(live, LineDisplay)
        for progress in told:
            live.update(progress)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0/100", "50/100", "51/100", "50/100"]
    assert "\x1b" not in out.getvalue()


def test_terminal_gets_live_display():
    console = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(display(BUDGET, console), TerminalDisplay)


@pytest.fixture
def notebook(monkeypatch):
    contents = []

    class Handle:
        def update(self, content):
            contents.append(content)

    def show(content, display_id):
        contents.append(content)
        return Handle()

    module = types.ModuleType("IPython.display")
    module.HTML, module.display = str, show
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return contents


def test_notebook_cell_is_updated_in_place(notebook):
    seconds = iter([0.0, 0.0, 0.1, 0.7, 0.7])
    with NotebookDisplay(BUDGET, clock=lambda: next(seconds)) as live:
        live.update(NOTHING)
        live.update(NOTHING)  # too soon
        live.update(replace(HALF, activity="a < b"))
    assert notebook[0] == "<pre>starting</pre>"
    assert "loading chgnet" in notebook[1]
    assert len(notebook) == 4 and "50/100 relaxations" in notebook[2] and "a &lt; b" in notebook[3]


def test_notebook_cell_of_finished_search_says_so(notebook):
    with NotebookDisplay(BUDGET):
        pass
    assert notebook == ["<pre>starting</pre>", "<pre>nothing left to do</pre>"]


@pytest.mark.parametrize("on", [False, True])
def test_python_shows_progress_only_on_request(tmp_path, capfd, on):
    heard = []
    with Search("Cu", formula_units=1, calculator="emt", workers=1, sources=["random"], directory=tmp_path) as search:
        search.run(relaxations=2, refine=0, progress=on, on_progress=heard.append)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("relaxations" in err) == on
    assert heard[-1].relaxations == 2
