"""Results of runs on chemical systems: known phases, distances of hulls, and statistics over runs."""

import io
import json
import math

import pytest
from crystals import InlineBackend, instant_relaxation
from rich.console import Console

from hybridcsp import Archive, Search, System
from hybridcsp.analysis.comparison_report import as_content, as_csv
from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.statistics import paired_ratio
from hybridcsp.analysis.system_comparison import compare_on_systems, plot_systems, system_table
from hybridcsp.analysis.system_results import (
    LoweredMinimum,
    SystemRunResult,
    _lowering,
    _measured,
    _side_by_side,
    known_phases,
    read_system_results,
    with_areas,
)
from hybridcsp.errors import InputError
from hybridcsp.workflows.compare import PlannedRun
from hybridcsp.workflows.compare_systems import SystemRun

CU_AU = System("Cu-Au", composition_grid=2)

#: A hull with CuAu 0.1 eV/atom below the elements.
BEST = [LoweredMinimum(1, 10, "Cu", -3.5), LoweredMinimum(2, 20, "Au", -3.2), LoweredMinimum(3, 40, "CuAu", -3.45)]


def totals(strategy="random", seed=0, force_calls=100, problem="Cu-Au"):
    return RunResult(
        problem=problem,
        strategy=strategy,
        seed=seed,
        relaxations=10,
        failed=0,
        rejected=0,
        force_calls=force_calls,
        seconds=1.0,
        best=None,
    )


def result_of(course, **labels):
    known = known_phases(CU_AU, None, [BEST])
    (result,) = with_areas([_measured(totals(**labels), course, known)])
    return result


def test_run_is_measured_by_the_phases_on_the_hull():
    result = result_of(BEST)
    assert (result.phases, result.found, result.solved_at) == (3, 3, (3, 40))
    assert result.curve == ((0, pytest.approx(100)), (40, pytest.approx(0)))
    assert result.area_mev == pytest.approx(40)  # 100 meV/atom during 40 of 100 force calls
    assert result.distance_mev == pytest.approx(0)


def test_phase_that_is_not_low_enough_counts_by_its_distance():
    result = result_of([*BEST[:2], LoweredMinimum(3, 50, "CuAu", -3.40)])
    assert (result.found, result.solved_at) == (2, None)
    assert result.distance_mev == pytest.approx(50)
    assert result.area_mev == pytest.approx((50 * 100 + 50 * 50) / 100)


def test_lower_phase_is_found_and_named():
    result = result_of([*BEST[:2], LoweredMinimum(3, 50, "CuAu", -3.50)])
    assert result.found == 3
    assert result.lower == {"CuAu": pytest.approx(-50)}
    assert result.distance_mev == 0


def test_rounding_errors_of_relaxations_are_no_distance():
    result = result_of([*BEST[:2], LoweredMinimum(3, 50, "CuAu", -3.45 + 5e-8)])
    assert result.distance_mev == 0


def test_known_phases_need_a_minimum_of_every_element():
    with pytest.raises(InputError, match="no run of Cu-Au has found a minimum of Au, without which there is no convex"):
        known_phases(CU_AU, None, [BEST[:1]])


def test_distances_are_averaged_up_to_the_shortest_run():
    known = known_phases(CU_AU, None, [BEST])
    long, short = with_areas([_measured(totals(force_calls=calls), BEST, known) for calls in (1000, 80)])
    assert long.area_mev == short.area_mev == pytest.approx(100 * 40 / 80)


def test_separate_searches_take_turns():
    minima = [[LoweredMinimum(1, 5, "Cu", -3.5), LoweredMinimum(2, 9, "Cu", -3.6)], [LoweredMinimum(2, 60, "Au", -3.2)]]
    merged = _lowering(_side_by_side(minima, [[0, 5, 9], [0, 20, 60]]))
    assert [(one.formula, one.relaxation, one.force_calls) for one in merged] == [
        ("Cu", 1, 5),
        ("Cu", 3, 29),
        ("Au", 4, 69),
    ]


def runs_of(strategy, areas, problem="Cu-Au"):
    return [
        SystemRunResult(
            **vars(totals(strategy, seed, problem=problem)) | {"solved_at": (5, int(area))},
            phases=3,
            found=3,
            distance_mev=0.0,
            area_mev=area,
            found_at={"Cu": (1, 10), "Au": (2, 20), "CuAu": (5, int(area))},
            curve=((0, 100.0), (int(area), 0.0)),
        )
        for seed, area in enumerate(areas)
    ]


def test_areas_are_compared_on_common_seeds():
    results = runs_of("random", [40.0, 60.0, 80.0]) + runs_of("evolution", [20.0, 30.0, 30.0, 999.0])
    _, row = compare_on_systems(results)
    assert row.area_ratio == pytest.approx(80 / 180)
    assert 30 / 80 <= row.area_low < row.area_ratio < row.area_high <= 1 / 2
    assert (row.found, row.phases, row.solved) == (12, 12, 4)


def test_paired_ratio_without_enough_seeds_has_no_interval():
    ours, theirs = {("Cu-Au", 0): 1.0, ("Cu-Au", 1): 2.0}, {("Cu-Au", 0): 2.0, ("Cu-Au", 1): 2.0, ("Cu-Au", 2): 7.0}
    ratio = paired_ratio(ours, theirs)
    assert (ratio.value, ratio.low, ratio.high) == (0.75, None, None)
    assert paired_ratio(ours, {("Cu-Au", 5): 1.0}).value is None


def test_table_files_and_plot(tmp_path):
    results = runs_of("random", [40.0, 60.0, 80.0]) + runs_of("evolution", [20.0, 30.0, 30.0])
    rows = compare_on_systems(results)
    text = io.StringIO()
    Console(file=text, width=160).print(system_table(rows, results, "the known phases", ["A note."]))
    printed = " ".join(text.getvalue().split())
    assert "Search for the known phases" in printed
    assert "evolution 9/9 3/3 (44-100 %)" in printed
    assert "A note." in printed
    content = json.loads(json.dumps(as_content(rows, results, {}), allow_nan=False))
    assert content["rows"][1]["area_ratio"] == pytest.approx(80 / 180)
    assert content["runs"][0]["found_at"]["CuAu"] == [5, 40]
    assert "found_at" not in as_csv(results).splitlines()[0]
    plot_systems(results, tmp_path / "comparison.svg")
    assert "fraction of the known phases found" in (tmp_path / "comparison.svg").read_text()


def searched(problem, directory, seed=0, relaxations=2, **settings):
    backend = InlineBackend(instant_relaxation)
    with Search(
        problem, directory=directory, backend=backend, calculator=None, sources=["random"], seed=seed, **settings
    ) as one:
        one.run(relaxations=relaxations, refine=0)
    return PlannedRun(
        problem=problem if isinstance(problem, str) else problem.formula,
        strategy="random",
        seed=seed,
        directory=directory,
        raw={"budget": {"relaxations": relaxations}},
    )


def test_archives_of_a_system_and_of_separate_formulas_are_read(tmp_path):
    system = System("Cu-Au", composition_grid=2, max_atoms=2)
    together = searched(system, tmp_path / "together", relaxations=6)
    alone = [searched(system.problem(formula), tmp_path / formula) for formula in system.compositions]
    labels = {"problem": "Cu-Au", "seed": 0, "system": system}
    runs = [
        SystemRun(strategy="random", parts=(together,), **labels),
        SystemRun(strategy="separate:random", parts=tuple(alone), **labels),
    ]
    results, known = read_system_results(runs, {})
    assert [result.relaxations for result in results] == [6, 6]
    assert set(known["Cu-Au"].enthalpies) >= {"Cu", "Au"}
    assert all(math.isfinite(result.area_mev) for result in results)
    best = min(result.distance_mev for result in results)
    assert best <= known["Cu-Au"].distance({})
    assert {formula for result in results for formula in result.found_at} == set(known["Cu-Au"].enthalpies)


def test_given_phases_are_what_runs_are_measured_by(tmp_path):
    from ase.build import bulk
    from ase.io import write

    system = System("Cu-Au", composition_grid=2, max_atoms=2)
    layered = bulk("Cu", "fcc", a=3.85, cubic=True)
    layered.symbols[:] = ["Cu", "Cu", "Au", "Au"]
    write(tmp_path / "known.extxyz", [bulk("Cu"), bulk("Au"), layered])
    reference = searched(system, tmp_path / "known", relaxations=3, references=(str(tmp_path / "known.extxyz"),))
    run = searched(system, tmp_path / "run", relaxations=4)
    runs = [SystemRun(problem="Cu-Au", strategy="random", seed=0, system=system, parts=(run,))]
    _, known = read_system_results(runs, {"Cu-Au": reference.directory})
    given = {one.composition: one.enthalpy_per_atom for one in Archive(reference.directory).minima()}
    assert known["Cu-Au"].hull.enthalpies == given
    assert known["Cu-Au"].notes == ()


def test_distance_never_rises_when_a_poor_element_is_found():
    result = result_of([LoweredMinimum(1, 10, "Cu", -3.0), *BEST[1:]])
    distances = [value for _, value in result.curve]
    assert distances == sorted(distances, reverse=True)
    assert result.found == 2
