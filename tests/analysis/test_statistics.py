import csv
import io
import json
import math

import numpy as np
import pytest
import scipy.stats
from crystals import InlineBackend, ListSource, random_crystal, relaxed
from matplotlib.figure import Figure
from rich.console import Console

from hybridcsp import Archive, Search
from hybridcsp.analysis.comparison_report import as_content, as_csv, comparison_table
from hybridcsp.analysis.plots import plot_comparison
from hybridcsp.analysis.run_results import RunResult, SourceRole, read_result
from hybridcsp.analysis.source_activity import comparison_notes
from hybridcsp.analysis.statistics import compare, expected_running_time
from hybridcsp.analysis.survival import common_horizons, restricted_costs, stratified_log_rank, success_costs
from hybridcsp.core.records import Cost
from hybridcsp.objectives.goals import BestValue


def trace(strategy, seed, solved_at=None, problem="TiO2", relaxations=60, force_calls=3000, **more):
    return RunResult(
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
        **more,
    )


def traces(strategy, costs, problem="TiO2"):
    """Runs that succeed at these numbers of relaxations (None: not), of 50 force calls each."""
    return [
        trace(strategy, seed, None if cost is None else (cost, 50 * cost), problem) for seed, cost in enumerate(costs)
    ]


def printed(shown, width):
    text = io.StringIO()
    Console(file=text, width=width).print(shown)
    return text.getvalue()


def test_success_rate_has_wilson_interval():
    (row,) = compare(traces("random", [5, 9, None, 20, None]))
    z, n, p = 1.959964, 5, 3 / 5
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (row.runs, row.solved, row.rate) == (5, 3, 0.6)
    assert (row.low, row.high) == (pytest.approx(centre - half, abs=1e-6), pytest.approx(centre + half, abs=1e-6))


def test_median_is_kaplan_meier():
    # Four of five succeed: S(5) = 0.8, S(9) = 0.6, S(20) = 0.4, so the median is 20.
    (row,) = compare(traces("random", [5, 9, None, 20, 40]))
    assert (row.relaxations, row.force_calls) == (20, 1000)
    # A run that was censored early counts among those at risk only until then.
    early = [*traces("random", [10, 30]), trace("random", 7, None, relaxations=20, force_calls=1000)]
    assert compare(early)[0].relaxations == 30


def test_median_is_undefined_below_half_success():
    (row,) = compare(traces("random", [5, None, None]))
    assert row.relaxations is None
    assert row.mean_relaxations == pytest.approx((5 + 60 + 60) / 3)


def test_better_strategy_has_small_p_value_and_ratio_below_one():
    baseline, better = compare([*traces("random", [40, 50, None, 45, None, 55]), *traces("good", [2, 3, 4, 2, 5, 3])])
    assert baseline.p_value is None
    assert better.p_value < 0.01
    assert better.ratio_low < better.ratio < better.ratio_high < 0.2


def test_equal_strategies_have_large_p_value():
    costs = [5, 9, None, 20, 40, 12]
    _, same = compare([*traces("random", costs), *traces("same", costs)])
    assert same.p_value == pytest.approx(1.0)
    assert (same.ratio, same.ratio_low, same.ratio_high) == (1.0, None, None)
    assert same.no_interval == "the ratio is the same for every seed"


def test_no_success_gives_no_ratio():
    _, other = compare([*traces("random", [None] * 5), *traces("other", [None] * 5)])
    assert (other.solved, other.rate, other.low) == (0, 0.0, 0.0)
    assert (other.p_value, other.ratio, other.ratio_low, other.no_interval) == (None, None, None, "nothing was solved")


def stratified_runs(rng, ratio, problems=12, seeds=3):
    """Runs of a baseline and of another strategy, on problems whose difficulty spans three orders of magnitude."""
    runs = []
    for strategy, factor in (("a", 1.0), ("b", ratio)):
        for problem in range(problems):
            costs = rng.exponential(factor * 10 ** (3 * problem / (problems - 1)), seeds)
            runs += traces(strategy, [int(cost) + 1 if cost < 60 else None for cost in costs], f"P{problem}")
    return runs


def groups(runs):
    return [[run for run in runs if run.strategy == name] for name in "ab"]


def test_log_rank_test_over_problems_of_very_different_difficulty_keeps_size_and_gains_power():
    rng = np.random.default_rng(0)
    found = [stratified_log_rank(*groups(stratified_runs(rng, 1.0))) < 0.05 for _ in range(150)]
    assert 0.01 < np.mean(found) < 0.1
    stratified, pooled = [], []
    for _ in range(60):
        a, b = groups(stratified_runs(rng, 0.4))
        censored = [scipy.stats.CensoredData.right_censored(*success_costs(group, 1)) for group in (a, b)]
        pooled.append(scipy.stats.logrank(*censored).pvalue < 0.05)
        stratified.append(stratified_log_rank(b, a) < 0.05)
    assert np.mean(stratified) > np.mean(pooled) + 0.2


@pytest.mark.parametrize("seed", range(4))
def test_log_rank_test_of_one_problem_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    a, b = (traces(name, [int(c) if c < 40 else None for c in rng.geometric(0.04, 12)]) for name in "ab")
    censored = [scipy.stats.CensoredData.right_censored(*success_costs(group, 1)) for group in (a, b)]
    assert stratified_log_rank(a, b) == pytest.approx(scipy.stats.logrank(*censored).pvalue, rel=1e-9)


def test_stratified_log_rank_test_agrees_with_a_calculation_by_hand():
    # P: a succeeds at 1, b at 2. Q: b at 1, a at 2 and b censored at 3.
    a = [*traces("a", [1], "P"), *traces("a", [2], "Q")]
    b = [*traces("b", [2], "P"), *traces("b", [1], "Q"), trace("b", 1, None, "Q", 3, 150)]
    difference = (1 - 1 / 2) + (0 - 0 / 1) + (0 - 1 / 3) + (1 - 1 / 2)
    variance = 1 / 4 + 0 + (1 / 3) * (2 / 3) + 1 / 4
    assert stratified_log_rank(a, b) == pytest.approx(scipy.stats.chi2.sf(difference**2 / variance, 1))


def test_expected_running_time_counts_the_calls_of_runs_without_success():
    (row,) = compare(traces("random", [10, None, 30]))
    assert row.expected_force_calls == (500 + 3000 + 1500) / 2
    assert compare(traces("random", [None] * 3))[0].expected_force_calls is None
    assert expected_running_time([5, 7], [True, False]).value == 12
    assert expected_running_time([5, 7], [True, False]).low is None


def test_expected_running_time_does_not_depend_on_the_budget_but_the_restricted_mean_does():
    rng = np.random.default_rng(0)
    costs = rng.geometric(0.01, 1000)
    short, long = (
        [trace("a", n, (int(c), int(c)) if c <= end else None, "P", end, end) for n, c in enumerate(costs)]
        for end in (50, 200)
    )
    times = [compare(runs)[0] for runs in (short, long)]
    assert times[0].expected_force_calls == pytest.approx(times[1].expected_force_calls, rel=0.15)
    assert times[0].expected_force_calls == pytest.approx(100, rel=0.15)
    assert times[0].mean_force_calls < 0.6 * times[1].mean_force_calls


def test_interval_of_expected_running_time_agrees_with_scipy_bootstrap():
    rng = np.random.default_rng(2)
    calls, solved = rng.integers(100, 3000, 20), rng.random(20) < 0.5
    found = expected_running_time(calls, solved, range(20))
    witness = scipy.stats.bootstrap(
        (calls, solved),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20000,
        rng=rng,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((witness.low, witness.high), rel=0.05)


def test_interval_of_few_successes_has_no_upper_end(tmp_path):
    runs = [run for n in range(8) for run in traces("random", [40, 20], f"P{n}")]
    runs += [run for n in range(8) for run in traces("other", [10 if n == 0 else None, None], f"P{n}")]
    rows = compare(runs)
    assert rows[1].ratio_high == rows[1].expected_high == math.inf
    assert rows[1].ratio_low > 1
    assert f"({rows[1].ratio_low:.2f}-∞)" in printed(comparison_table(rows, runs, "-9"), 160)
    content = json.loads(json.dumps(as_content(rows, runs, {}), allow_nan=False))
    assert content["rows"][1]["ratio_high"] is None
    assert content["rows"][1]["ratio_low"] == rows[1].ratio_low
    plot_comparison(runs, tmp_path / "profile.png", "-9")
    assert (tmp_path / "profile.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("baseline", "other", "why"),
    [([None] * 3, [5, 9, 4], "the baseline solved nothing"), ([5, 9, 4], [None] * 3, "it solved nothing")],
)
def test_without_success_of_one_strategy_only_means_are_compared(baseline, other, why):
    row = compare([*traces("random", baseline), *traces("other", other)])[1]
    assert (row.ratio, row.ratio_low, row.no_interval) == (None, None, why)
    assert row.mean_ratio_low < row.mean_ratio < row.mean_ratio_high


def test_restricted_means_have_one_horizon_for_all_strategies_of_a_problem():
    # Relaxations of the second strategy cost twice as much: its unsolved run would count with twice the calls.
    cheap = [trace("cheap", n, None, "P", 60, 3000) for n in range(2)] + traces("cheap", [1, 2, 3], "Q")
    dear = [trace("dear", n, None, "P", 60, 6000) for n in range(2)] + traces("dear", [1, 2, 8], "Q")
    assert common_horizons([*cheap, *dear], 1) == {"P": 3000, "Q": 400}
    rows = compare([*cheap, *dear])
    assert rows[0].mean_force_calls == (2 * 3000 + 50 + 100 + 150) / 5
    assert rows[1].mean_force_calls == (2 * 3000 + 50 + 100 + 400) / 5
    late = trace("dear", 0, (59, 5900), "P", 59, 5900)
    assert restricted_costs([late], 1, {"P": 3000}).tolist() == [3000]


def test_run_that_has_not_begun_does_not_shorten_the_horizon():
    runs = [*traces("random", [5, None]), trace("random", 2, None, relaxations=0, force_calls=0)]
    assert common_horizons(runs, 1) == {"TiO2": 3000}


def test_the_log_rank_test_has_the_right_size():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        runs = []
        for strategy in ("a", "b"):
            costs = rng.geometric(0.05, 20)
            runs += traces(strategy, [int(cost) if cost < 60 else None for cost in costs])
        p_values.append(stratified_log_rank(runs[:20], runs[20:]))
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.1


def test_ratios_are_resampled_over_problems():
    # On one problem twice as cheap, on another as dear, on another twice as dear: the interval must hold all.
    costs = {"A": 10, "B": 20, "C": 40}
    runs = [run for problem in costs for run in traces("random", [20, 20, 20], problem)]
    runs += [run for problem, cost in costs.items() for run in traces("other", [cost] * 3, problem)]
    row = compare(runs)[1]
    assert (row.ratio_low, row.ratio_high, row.resampled) == (0.5, 2.0, "problems")


@pytest.mark.parametrize(
    ("problems", "seeds", "why"),
    [(1, 1, "one seed"), (1, 2, "only 2 seeds"), (2, 5, "only 2 problems"), (1, 3, ""), (3, 1, "")],
)
def test_undefined_interval_has_reason(problems, seeds, why):
    rng = np.random.default_rng(3)
    runs = [
        run
        for strategy in ("random", "other")
        for problem in range(problems)
        for run in traces(strategy, rng.integers(2, 50, seeds).tolist(), f"P{problem}")
    ]
    rows = compare(runs)
    row = rows[1]
    assert row.ratio > 0
    assert row.no_interval == why
    if why:
        assert row.ratio_low is row.ratio_high is None
        assert f"no interval: {why}" in " ".join(printed(comparison_table(rows, runs, "-9"), 80).split())
        assert json.loads(json.dumps(as_content(rows, runs, {}), allow_nan=False))["rows"][1]["ratio_low"] is None
    else:
        assert row.ratio_low < row.ratio < row.ratio_high
    assert (row.p_value is None) == (problems * seeds == 1)


def test_interval_of_three_seeds_spans_all_ratios():
    # Each of the three alone is one resample of 27, more than 2.5 %.
    row = compare([*traces("random", [10, 20, 30]), *traces("other", [20, 20, 15])])[1]
    assert (row.ratio_low, row.ratio_high) == (0.5, 2.0)


def test_intervals_agree_with_scipy_bootstrap():
    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(2, 50, (2, 12))
    row = compare([*traces("random", theirs.tolist()), *traces("other", ours.tolist())])[1]
    witness = scipy.stats.bootstrap(
        (ours, theirs),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20000,
        rng=rng,
    ).confidence_interval
    assert (row.ratio_low, row.ratio_high) == pytest.approx((witness.low, witness.high), rel=0.03)


def test_baseline_without_force_calls_gives_no_ratio():
    free = [trace("random", seed, (1, 0), force_calls=0) for seed in range(3)]
    row = compare([*free, *traces("other", [3, 4, 5])])[1]
    assert (row.ratio, row.no_interval) == (None, "the baseline took no force calls")


def test_exhausted_runs_count_to_longest_run():
    # The seeds were used up after two relaxations, in vain; random found it after ten.
    gave_up = [trace("seeds", n, None, relaxations=2, force_calls=100, ended="sources exhausted") for n in range(3)]
    rows = compare([*traces("random", [10, 12, None]), *gave_up])
    assert rows[1].mean_force_calls == 3000
    assert rows[1].mean_ratio > 1
    assert rows[1].relaxations is None
    (note,) = comparison_notes([*traces("random", [10, 12, None]), *gave_up])
    assert note.startswith("seeds: 3 of 3 runs ended early without success (sources exhausted); they count as")


def test_p_value_uses_common_problems():
    easy, hard = traces("random", [2, 3, 4, 5], "easy"), traces("random", [40, 45, 50, None], "hard")
    other = traces("other", [41, 44, 52, None], "hard")
    assert compare([*easy, *hard, *other])[1].p_value == compare([*hard, *other])[1].p_value > 0.5


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_fits_terminal_without_broken_words(width):
    runs = [*traces("random", [5, None]), *traces("evolution", [3, 4]), *traces("random+evolution+prototypes", [2, 3])]
    text = printed(comparison_table(compare(runs), runs, "-9.41"), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for whole in ("evolution", "ratio (95 %)", "2/2 (34-100 %)"):
        assert whole in text
    words = " ".join(text.split())
    assert "360 relaxations (6 failed), 12 proposals rejected" in words
    assert ("Hidden columns" in words) == (width < 120)


def test_files_contain_all_runs(tmp_path):
    runs = [*traces("random", [5, None]), *traces("evolution", [3, 4]), *traces("random+evolution+prototypes", [2, 3])]
    rows = compare(runs)
    content = json.loads(json.dumps(as_content(rows, runs, {"target": "-9.41"}), allow_nan=False))
    assert (len(content["runs"]), content["rows"][1]["solved"]) == (6, 2)
    lines = list(csv.DictReader(io.StringIO(as_csv(runs))))
    assert (lines[0]["solved_at_force_calls"], lines[1]["solved_at_force_calls"]) == ("250", "")
    plot_comparison(runs, tmp_path / "profile.png", "-9.41")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_only_complete_curves_are_extended(tmp_path, monkeypatch):
    drawn = []

    def note(figure, *arguments, **options):
        drawn.append(figure)
        saved(figure, *arguments, **options)

    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", note)
    plot_comparison(traces("a", [3, 5, 9]) + traces("b", [4, None, 20]), tmp_path / "profile.png", "-9.41")
    for axis, unit in zip(drawn[0].axes[:2], (1, 50), strict=True):
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
            return read_result(run, problem="Cu", strategy="list", seed=0, target=target).solved_at

        assert solved(-2.5) == (1, 10)
        assert solved(-3.1015) == (3, 30)
        assert solved(-3.2) is None
        assert solved(None) is None

    def test_what_a_longer_run_did_beyond_the_budget_does_not_count(self, run):
        def within(relaxations, target=-3.1):
            return read_result(run, problem="Cu", strategy="list", seed=0, target=target, relaxations=relaxations)

        assert (within(3).relaxations, within(3).force_calls, within(3).best) == (3, 30, pytest.approx(-3.1))
        assert within(2).solved_at is None
        assert within(2).best == pytest.approx(-3.0)
        assert within(9) == within(None)
        assert within(1, self.structures[1]).solved_at is None
        assert within(2, self.structures[1]).solved_at == (2, 20)
        assert within(3).candidates != within(4).candidates

    def test_it_tells_which_sources_made_the_relaxations(self, run):
        roles = {"list": SourceRole(), "evolution": SourceRole(waiting_for="it starts after 6 minima")}
        trace = read_result(run, problem="Cu", strategy="list+evolution", seed=0, target=None, roles=roles)
        assert [(part.source, part.relaxations, part.random) for part in trace.parts] == [
            ("list", 4, 0),
            ("evolution", 0, 0),
        ]

    def test_a_structure_is_reached_when_a_minimum_matches_it(self, run):
        copy = self.structures[1].repeat((2, 1, 1))
        copy.rotate(20, "x", rotate_cell=True)
        trace = read_result(run, problem="Cu", strategy="list", seed=0, target=copy)
        assert trace.solved_at == (2, 20)
        assert (trace.relaxations, trace.force_calls, trace.best) == (4, 40, pytest.approx(-3.1))


def test_the_table_has_the_mean_best_values_of_objectives():
    def best(value):
        return {"objectives": (BestValue(name="density", unit="g/cm³", goal="max", value=value),)}

    runs = [trace("earnings", 0, (9, 450), **best(4.0)), trace("earnings", 1, (9, 450), **best(5.0))]
    runs += [trace("random", 0, **best(3.5)), trace("random", 1, **best(None))]
    text = printed(comparison_table(compare(runs), runs, "-9"), 200)
    assert "density: mean over runs of the best, g/cm³, as large as possible" in " ".join(text.split())
    cells = {
        line.split()[0]: line.split()[-1]
        for line in text.splitlines()
        if line.split()[:1] in (["earnings"], ["random"])
    }
    assert cells == {"earnings": "4.5", "random": "3.5"}
    head, *lines = as_csv(runs).splitlines()
    column = head.split(",").index("objective_density")
    assert [line.split(",")[column] for line in lines] == ["4.0", "5.0", "3.5", ""]
    content = json.loads(json.dumps(as_content(compare(runs), runs, {}), allow_nan=False))
    assert content["runs"][0]["objectives"] == [{"name": "density", "unit": "g/cm³", "goal": "max", "value": 4.0}]
