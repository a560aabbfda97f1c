import io

import numpy as np
import pytest
from archives import record_proposals
from crystals import random_crystal, relaxed
from matplotlib.figure import Figure
from rich.console import Console

from hybridcsp.analysis.comparison_report import as_csv, comparison_table
from hybridcsp.analysis.plots import plot_comparison
from hybridcsp.analysis.report import sources_rows
from hybridcsp.analysis.run_results import RunResult, SourceActivity, SourceRole
from hybridcsp.analysis.source_activity import (
    IdenticalRuns,
    comparison_notes,
    identical_runs,
    improvements,
    niches_reached_alone,
)
from hybridcsp.analysis.statistics import compare
from hybridcsp.archive.archive import Archive
from hybridcsp.core.records import Cost

EVOLUTION = SourceRole(waiting_for="it starts after 6 minima")


def trace(strategy, seed, parts, candidates="", **more):
    made = sum(part.relaxations + part.random for part in parts)
    plain = {"failed": 0, "rejected": 0, "force_calls": 50 * made, "seconds": 1.0, "best": -9.0, "solved_at": (2, 100)}
    return RunResult(
        problem="TiO2",
        strategy=strategy,
        seed=seed,
        relaxations=made,
        parts=tuple(parts),
        candidates=candidates,
        **plain | more,
    )


def part(source, relaxations, random=0, **more):
    return SourceActivity(source=source, relaxations=relaxations, random=random, proposed=relaxations + random, **more)


def runs(strategy, *parts, n=2, **more):
    return [trace(strategy, seed, parts, **more) for seed in range(n)]


RANDOM = runs("random", part("random", 25))


@pytest.mark.parametrize(
    ("strategy", "parts", "expected"),
    [
        (
            "random+evolution",
            [part("random", 25), part("evolution", 0)],
            "random+evolution: evolution contributed 0 of 50 relaxations (it starts after 6 minima); "
            "this compares random with random.",
        ),
        (
            "evolution",
            [part("evolution", 0, random=25)],
            "evolution: evolution contributed 0 of 50 relaxations (it starts after 6 minima; it proposed 50 random "
            "crystals instead); this compares random with random.",
        ),
        (
            "random+prototypes",
            [part("random", 25), part("prototypes", 0)],
            "random+prototypes: prototypes contributed 0 of 50 relaxations (it proposed nothing); "
            "this compares random with random.",
        ),
        (
            "random+seeds:a.cif",
            [part("random", 25), SourceActivity(source="seeds", proposed=3, rejected=3)],
            "random+seeds:a.cif: seeds contributed 0 of 50 relaxations (all 6 proposals were rejected); "
            "this compares random with random.",
        ),
        (
            "random+mine",
            [part("random", 25), part("mine", 0, error="GeneratorError: no\nweights")],
            "random+mine: mine contributed 0 of 50 relaxations (it proposed nothing; its error: GeneratorError: "
            "no weights); this compares random with random.",
        ),
    ],
)
def test_inactive_sources_are_named(strategy, parts, expected):
    roles = {strategy: {"evolution": EVOLUTION}}
    assert comparison_notes([*RANDOM, *runs(strategy, *parts)], roles) == [expected]


def test_source_inactive_in_some_runs_is_named():
    acted = trace("random+evolution", 0, [part("random", 20), part("evolution", 5)])
    idle = trace("random+evolution", 1, [part("random", 25), part("evolution", 0)])
    (note,) = comparison_notes([*RANDOM, acted, idle], {"random+evolution": {"evolution": EVOLUTION}})
    assert note == "random+evolution: evolution contributed no relaxation in 1 of 2 runs (it starts after 6 minima)."


def test_no_note_if_all_sources_are_active():
    assert comparison_notes([*RANDOM, *runs("random+evolution", part("random", 20), part("evolution", 5))]) == []


def test_two_idle_strategies_are_the_same_method_whichever_is_the_baseline():
    idle = runs("random+evolution", part("random", 25), part("evolution", 0))
    assert comparison_notes([*idle, *RANDOM])[1] == "random: this compares random with random."


def test_generators_without_retraining_are_named():
    roles = {"wyckoff": {"wyckoff": SourceRole(learns=True)}}
    never = comparison_notes(runs("wyckoff", part("wyckoff", 25, trainings=0)), roles)
    assert never == ["wyckoff: wyckoff was not retrained in any of 2 runs; the runs were too short."]
    assert comparison_notes(runs("wyckoff", part("wyckoff", 25, trainings=1)), roles) == []


def test_identical_runs_are_flagged():
    ours = [trace("random", seed, [part("random", 5)], f"hash-{seed}") for seed in range(3)]
    theirs = [trace("copy", seed, [part("copy", 5)], f"hash-{min(seed, 1)}") for seed in range(3)]
    assert identical_runs([*ours, *theirs]) == [IdenticalRuns(strategies=("random", "copy"), runs=2, of=3)]
    assert comparison_notes([*ours, *theirs]) == [
        "copy and random relaxed identical candidates in 2 of 3 runs; these runs are not independent evidence."
    ]


def test_runs_without_candidates_are_not_identical():
    assert identical_runs([trace("a", 0, [], "empty"), trace("b", 0, [], "empty")]) == []


def test_table_file_and_plot_name_active_sources(tmp_path, monkeypatch):
    all_runs = [*RANDOM, *runs("evolution", part("evolution", 4, random=21))]
    rows = compare(all_runs)
    assert [(share.source, share.relaxations, share.share) for share in rows[1].shares] == [("evolution", 8, 0.16)]
    notes = ["A sentence with [brackets] and $dollars$ that is kept as it is."]
    text = io.StringIO()
    Console(file=text, width=80).print(comparison_table(rows, all_runs, "-9", notes))
    printed = " ".join(text.getvalue().split())
    assert "Relaxations of evolution by source: evolution 8 (16 %) and 42 random crystals." in printed
    assert notes[0] in printed
    assert "evolution 4; random crystals by evolution 21" in as_csv(all_runs)

    drawn = []
    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), saved(figure, *a, **k)))
    plot_comparison(all_runs, tmp_path / "profile.png", "-9", notes)
    assert drawn[0].get_supxlabel() == notes[0]


@pytest.fixture
def archive(tmp_path):
    """A search of three sources: evolution and swarm lower the best, and random crystals reach one minimum twice."""
    rng = np.random.default_rng(0)
    first, *others = [random_crystal("Cu4", 12, rng) for _ in range(4)]
    found = [("random", first, -3.25), ("evolution", others[0], -3.28), ("random", first, -3.25)]
    found += [("random", others[1], -3.0), ("swarm", others[2], -3.29)]
    with Archive(tmp_path, write=True) as archive:
        for source, atoms, enthalpy in found:
            (candidate,) = record_proposals(archive, [atoms], source=source)
            archive.record_outcomes([relaxed(candidate, enthalpy, atoms, cost=Cost(force_calls=10))])
        yield archive


def test_improvements_name_the_source_that_lowered_the_best(archive):
    expected = [
        (1, 12, -3.25, "random", "made"),
        (2, 24, -3.28, "evolution", "made"),
        (5, 60, -3.29, "swarm", "made"),
    ]
    assert [(*one[:2], round(one[2], 6), *one[3:]) for one in improvements(archive)] == expected
    with Archive(archive.directory) as reopened:
        assert improvements(reopened) == improvements(archive)


def test_falls_by_a_tenth_of_a_milli_electronvolt_are_no_improvements(archive):
    atoms = archive.minima()[0].atoms
    (candidate,) = record_proposals(archive, [atoms], source="shake")
    archive.record_outcomes([relaxed(candidate, -3.29005, atoms)])
    assert improvements(archive)[-1].source == "swarm"


def test_niches_reached_alone_are_low_and_were_reached_once(archive):
    assert niches_reached_alone(archive.state) == {("evolution", "made"): 1, ("swarm", "made"): 1}


def test_rows_of_sources_hold_improvements_and_niches_reached_alone(archive):
    rows = {row["source"]: row for row in sources_rows(archive)}
    assert {name: row["times_lowered_best"] for name, row in rows.items()} == {"random": 1, "evolution": 1, "swarm": 1}
    assert [rows[name]["low_niches_reached_alone"] for name in ("random", "evolution", "swarm")] == [0, 1, 1]
