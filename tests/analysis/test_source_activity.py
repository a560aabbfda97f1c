import io

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from hybridcsp.analysis import source_activity
from hybridcsp.analysis.run_results import Part, Role, Trace
from hybridcsp.analysis.statistics import as_csv, compare, plot, table

EVOLUTION = Role(starts="it starts after 6 minima")


def trace(strategy, seed, parts, candidates="", **more):
    made = sum(part.relaxations + part.random for part in parts)
    plain = {"failed": 0, "rejected": 0, "force_calls": 50 * made, "seconds": 1.0, "best": -9.0, "solved_at": (2, 100)}
    return Trace(
        problem="TiO2",
        strategy=strategy,
        seed=seed,
        relaxations=made,
        parts=tuple(parts),
        candidates=candidates,
        **plain | more,
    )


def part(source, relaxations, random=0, **more):
    return Part(source=source, relaxations=relaxations, random=random, proposed=relaxations + random, **more)


def runs(strategy, *parts, n=2, **more):
    return [trace(strategy, seed, parts, **more) for seed in range(n)]


RANDOM = runs("random", part("random", 25))


@pytest.mark.parametrize(
    ("strategy", "parts", "said"),
    [
        (
            "random+evolution",
            [part("random", 25), part("evolution", 0)],
            "random+evolution: evolution made 0 of 50 relaxations (it starts after 6 minima); "
            "this compares random with random.",
        ),
        (
            "evolution",
            [part("evolution", 0, random=25)],
            "evolution: evolution made 0 of 50 relaxations (it starts after 6 minima; 50 were random crystals in its "
            "name); this compares random with random.",
        ),
        (
            "random+prototypes",
            [part("random", 25), part("prototypes", 0)],
            "random+prototypes: prototypes made 0 of 50 relaxations (it proposed nothing); "
            "this compares random with random.",
        ),
        (
            "random+seeds:a.cif",
            [part("random", 25), Part(source="seeds", proposed=3, rejected=3)],
            "random+seeds:a.cif: seeds made 0 of 50 relaxations (all 6 proposals were rejected); "
            "this compares random with random.",
        ),
        (
            "random+mine",
            [part("random", 25), part("mine", 0, error="GeneratorError: no\nweights")],
            "random+mine: mine made 0 of 50 relaxations (it proposed nothing; its error: GeneratorError: no weights); "
            "this compares random with random.",
        ),
    ],
)
def test_sources_that_never_acted_are_named(strategy, parts, said):
    roles = {strategy: {"evolution": EVOLUTION}}
    assert source_activity.notes([*RANDOM, *runs(strategy, *parts)], roles) == [said]


def test_a_source_that_acted_in_some_runs_only_is_named():
    acted = trace("random+evolution", 0, [part("random", 20), part("evolution", 5)])
    idle = trace("random+evolution", 1, [part("random", 25), part("evolution", 0)])
    (note,) = source_activity.notes([*RANDOM, acted, idle], {"random+evolution": {"evolution": EVOLUTION}})
    assert note == "random+evolution: evolution made no relaxation in 1 of 2 runs (it starts after 6 minima)."


def test_nothing_is_said_where_all_did_what_their_names_say():
    assert source_activity.notes([*RANDOM, *runs("random+evolution", part("random", 20), part("evolution", 5))]) == []


def test_two_idle_strategies_are_the_same_method_whichever_is_the_baseline():
    idle = runs("random+evolution", part("random", 25), part("evolution", 0))
    assert source_activity.notes([*idle, *RANDOM])[1] == "random: this compares random with random."


def test_generators_that_were_never_retrained_are_named():
    roles = {"wyckoff": {"wyckoff": Role(learns=True)}}
    never = source_activity.notes(runs("wyckoff", part("wyckoff", 25, trainings=0)), roles)
    assert never == ["wyckoff: wyckoff was not retrained in any of 2 runs, which were too short for that."]
    assert source_activity.notes(runs("wyckoff", part("wyckoff", 25, trainings=1)), roles) == []


def test_runs_that_are_the_same_candidate_by_candidate_are_flagged():
    ours = [trace("random", seed, [part("random", 5)], f"hash-{seed}") for seed in range(3)]
    theirs = [trace("copy", seed, [part("copy", 5)], f"hash-{min(seed, 1)}") for seed in range(3)]
    assert source_activity.same_runs([*ours, *theirs]) == [
        source_activity.Same(strategies=("random", "copy"), runs=2, of=3)
    ]
    assert source_activity.notes([*ours, *theirs]) == [
        "copy and random relaxed the same candidates, one by one, in 2 of 3 runs: these are no independent evidence."
    ]


def test_runs_without_a_candidate_are_not_the_same():
    assert source_activity.same_runs([trace("a", 0, [], "empty"), trace("b", 0, [], "empty")]) == []


def test_table_file_and_plot_say_who_acted(tmp_path, monkeypatch):
    all_runs = [*RANDOM, *runs("evolution", part("evolution", 4, random=21))]
    rows = compare(all_runs)
    assert [(share.source, share.relaxations, share.share) for share in rows[1].shares] == [("evolution", 8, 0.16)]
    notes = ["A sentence with [brackets] and $dollars$ that is kept as it is."]
    text = io.StringIO()
    Console(file=text, width=80).print(table(rows, all_runs, "-9", notes))
    printed = " ".join(text.getvalue().split())
    assert "Relaxations of evolution by source: evolution 8 (16 %) and 42 random crystals." in printed
    assert notes[0] in printed
    assert "evolution 4; random crystals by evolution 21" in as_csv(all_runs)

    drawn = []
    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), saved(figure, *a, **k)))
    plot(all_runs, tmp_path / "profile.png", "-9", notes)
    assert drawn[0].get_supxlabel() == notes[0]
