import csv
import io
import json
import math

import numpy as np
import pytest
from crystals import InlineBackend, ListSource, random_crystal, relaxed
from matplotlib.figure import Figure

from hybridcsp import Archive, Search
from hybridcsp.analysis.compare import Trace, as_csv, as_json, compare, plot, table, trace_of
from hybridcsp.records import Cost


def trace(strategy, seed, solved_at=None, problem="TiO2", relaxations=60, force_calls=3000):
    return Trace(
        problem=problem,
        strategy=strategy,
        seed=seed,
        relaxations=relaxations,
        failed=1,
        rejected=2,
        force_calls=force_calls,
        seconds=10.0,
        best=-9.0,
        solved_at=solved_at,
    )


def traces(strategy, costs, problem="TiO2"):
    """Runs that succeed at these numbers of relaxations (None: not), of 50 force calls each."""
    return [
        trace(strategy, seed, None if cost is None else (cost, 50 * cost), problem) for seed, cost in enumerate(costs)
    ]


def test_success_rates_have_wilsons_interval():
    (row,) = compare(traces("random", [5, 9, None, 20, None]))
    z, n, p = 1.959964, 5, 3 / 5
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (row.runs, row.solved, row.rate) == (5, 3, 0.6)
    assert (row.low, row.high) == (pytest.approx(centre - half, abs=1e-6), pytest.approx(centre + half, abs=1e-6))


def test_medians_are_kaplan_meiers():
    # Four of five succeed: S(5) = 0.8, S(9) = 0.6, S(20) = 0.4, so the median is 20.
    (row,) = compare(traces("random", [5, 9, None, 20, 40]))
    assert (row.relaxations, row.force_calls) == (20, 1000)
    # A run that was censored early counts among those at risk only until then.
    early = [*traces("random", [10, 30]), trace("random", 7, None, relaxations=20, force_calls=1000)]
    assert compare(early)[0].relaxations == 30


def test_there_is_no_median_where_half_were_not_reached():
    (row,) = compare(traces("random", [5, None, None]))
    assert row.relaxations is None
    assert row.mean_relaxations == pytest.approx((5 + 60 + 60) / 3)


def test_strategies_that_differ_have_a_small_p_value_and_a_ratio_below_one():
    baseline, better = compare([*traces("random", [40, 50, None, 45, None, 55]), *traces("good", [2, 3, 4, 2, 5, 3])])
    assert baseline.p_value is None
    assert better.p_value < 0.01
    assert better.ratio_low < better.ratio < better.ratio_high < 0.2


def test_equal_strategies_have_not():
    costs = [5, 9, None, 20, 40, 12]
    _, same = compare([*traces("random", costs), *traces("same", costs)])
    assert same.p_value == pytest.approx(1.0)
    assert (same.ratio, same.ratio_low, same.ratio_high) == (1.0, 1.0, 1.0)


def test_no_success_at_all_is_no_evidence():
    _, other = compare([*traces("random", [None, None]), *traces("other", [None, None])])
    assert (other.solved, other.p_value, other.ratio) == (0, 1.0, 1.0)


def test_the_log_rank_test_has_the_right_size():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        runs = []
        for strategy in ("a", "b"):
            costs = rng.geometric(0.05, 20)
            runs += traces(strategy, [int(cost) if cost < 60 else None for cost in costs])
        p_values.append(compare(runs)[1].p_value)
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.1


def test_ratios_are_resampled_over_problems():
    # On one problem twice as cheap, on the other twice as dear: the interval must hold both.
    runs = [
        *traces("random", [20, 20, 20], "A"),
        *traces("random", [20, 20, 20], "B"),
        *traces("other", [10, 10, 10], "A"),
        *traces("other", [40, 40, 40], "B"),
    ]
    row = compare(runs)[1]
    assert (row.ratio_low, row.ratio_high) == (0.5, 2.0)


def test_tables_and_files_hold_all_runs(tmp_path):
    from rich.console import Console

    runs = [*traces("random", [5, None]), *traces("evolution", [3, 4]), *traces("random+evolution+prototypes", [2, 3])]
    rows = compare(runs)
    text = io.StringIO()
    Console(file=text, width=80).print(table(rows, runs, "-9.41"))
    assert "evolution" in text.getvalue()
    assert "ratio (95 %)" in text.getvalue()  # numbers and headings are whole in a terminal of 80 columns
    assert "2/2 (34-100 %)" in text.getvalue()
    assert "…" not in text.getvalue()
    assert "360 relaxations of which 6 failed, 12 proposals rejected" in " ".join(text.getvalue().split())
    content = json.loads(as_json(rows, runs, {"target": "-9.41"}))
    assert (len(content["runs"]), content["rows"][1]["solved"]) == (6, 2)
    lines = list(csv.DictReader(io.StringIO(as_csv(runs))))
    assert (lines[0]["solved_at_force_calls"], lines[1]["solved_at_force_calls"]) == ("250", "")
    plot(runs, tmp_path / "profile.png", "-9.41")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_that_has_reached_1_goes_on_and_the_others_end_with_their_runs(tmp_path, monkeypatch):
    drawn = []

    def note(figure, *arguments, **options):
        drawn.append(figure)
        saved(figure, *arguments, **options)

    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", note)
    plot(traces("a", [3, 5, 9]) + traces("b", [4, None, 20]), tmp_path / "profile.png", "-9.41")
    for axis, unit in zip(drawn[0].axes, (1, 50), strict=True):
        a, b = (line.get_xydata() for line in axis.get_lines())
        right = axis.get_xlim()[1]
        assert right > 60 * unit
        assert a[-2:].tolist() == [[9 * unit, 1.0], [right, 1.0]]
        assert b[-1] == pytest.approx([60 * unit, 2 / 3])


class TestTraces:
    @pytest.fixture
    def run(self, tmp_path):
        rng = np.random.default_rng(0)
        self.structures = [random_crystal("Cu2", 20, rng) for _ in range(4)]
        energies = iter([-3.0, -2.0, -3.1, -3.05])
        search = Search(
            "Cu",
            calculator=None,
            directory=tmp_path,
            formula_units=2,
            distance_fraction=0.05,
            sources=[ListSource(self.structures)],
            backend=InlineBackend(
                lambda job: relaxed(job.candidate, next(energies), job.atoms, cost=Cost(force_calls=10))
            ),
        )
        search.run(relaxations=4, refine=0)
        search.close()
        return Archive(tmp_path)

    def test_an_enthalpy_is_reached_when_the_best_first_lies_within_two_mev(self, run):
        def solved(target):
            return trace_of(run, problem="Cu", strategy="list", seed=0, target=target).solved_at

        assert solved(-2.5) == (1, 10)
        assert solved(-3.1015) == (3, 30)
        assert solved(-3.2) is None
        assert solved(None) is None

    def test_a_structure_is_reached_when_a_minimum_matches_it(self, run):
        copy = self.structures[1].repeat((2, 1, 1))
        copy.rotate(20, "x", rotate_cell=True)
        trace = trace_of(run, problem="Cu", strategy="list", seed=0, target=copy)
        assert trace.solved_at == (2, 20)
        assert (trace.relaxations, trace.force_calls, trace.best) == (4, 40, pytest.approx(-3.1))
