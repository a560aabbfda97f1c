"""Measure what the tree of the source ``tree-search`` gains over its policy alone, by replay of recorded relaxations.

    python benchmarks/tree_search.py record           # relax random completions of the development models
    python benchmarks/tree_search.py replay           # search them with and without a tree

For each model potential (``model_potentials.py``, odd seeds), 300 completions of the random policy are relaxed, with
the formula units, space group and orbits of each. In a replay, the tree search draws its completions from these instead
of building them, so that a search costs milliseconds and can be repeated with many seeds. Reported are the mean numbers
of relaxations and of force calls until one of the three lowest enthalpies is reached, and their ratios to those of
draws without a tree. A complete growth that is drawn again ends as one of its recorded relaxations did. Whole searches
are compared by ``evolution.py`` with ``--arms random tree-search``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from model_potentials import FAMILIES, InProcess, make
from run_lines import append_line, read_lines

from hybridcsp import Search
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.sources.search_tree import Growth, SearchTree, values_of
from hybridcsp.sources.tree_search import TreeSearchSource
from hybridcsp.structure.wyckoff import point_group_order

RESULTS = Path(__file__).parent / "results" / "tree_search_ends.jsonl"

#: Seeds of the models, numbers of atoms, and number of relaxations of each.
MODELS, SIZES, RELAXATIONS = (1, 3, 5), (12, 8), 300

#: Number of lowest enthalpies that count as found.
WANTED = 3


class WithoutTree(SearchTree):
    """A tree that is never used."""

    def select(self, values: Any, draw: Any, failures: Any) -> Growth | None:
        """Return a completion of the beginning."""
        return draw(Growth())


def command_record(options: argparse.Namespace) -> None:
    plan = [(family, number, size) for size in SIZES for number in MODELS for family in FAMILIES]
    done = {line["problem"] for line in read_lines(options.output)}
    todo = [model for model in (make(*one) for one in plan) if model.name not in done]
    print(f"{len(todo)} of {len(plan)} models to do, about {0.01 * len(todo):.2f} core-hours", flush=True)
    for model in todo:
        with tempfile.TemporaryDirectory() as folder:
            source = TreeSearchSource(model.problem)
            source.tree = WithoutTree()
            backend = InProcess(model.calculator)
            search = Search(
                model.problem,
                directory=Path(folder) / "run",
                sources=[source],
                seed=1,
                backend=backend,
                calculator=None,
            )
            search.run(relaxations=RELAXATIONS, refine=0)
            ends = []
            for event in search.archive.history():
                if isinstance(event, Relaxed):
                    tag = event.candidate.proposal.tag
                    enthalpy, calls = round(event.enthalpy_per_atom, 5), event.cost.force_calls
                    ends.append([tag["units"], tag["spacegroup"], tag["sites"], enthalpy, event.niche, calls])
            search.close()
        append_line(options.output, {"problem": model.name, "ends": ends})
        print(model.name, len(ends), flush=True)


def command_replay(options: argparse.Namespace) -> None:
    ratios = []
    for line in read_lines(options.output):
        ends = [
            (Growth(units, point_group_order(group), group, tuple(map(tuple, sites))), enthalpy, niche, calls)
            for units, group, sites, enthalpy, niche, calls in line["ends"]
        ]
        means = [
            np.mean([cost_until_found(ends, tree, seed) for seed in range(options.seeds)], axis=0)
            for tree in (SearchTree, WithoutTree)
        ]
        ratios.append(means[0] / means[1])
        relaxations, calls = zip(*means, strict=True)
        print(
            f"{line['problem']:16} relaxations {relaxations[0]:4.0f}, without a tree {relaxations[1]:4.0f} "
            f"({ratios[-1][0]:.2f}); force calls {calls[0]:6.0f}, without a tree {calls[1]:6.0f} ({ratios[-1][1]:.2f})",
            flush=True,
        )
    mean = np.exp(np.mean(np.log(ratios), axis=0))
    print(f"geometric means of the ratios: relaxations {mean[0]:.2f}, force calls {mean[1]:.2f}")


def cost_until_found(ends: list[Any], kind: type[SearchTree], seed: int) -> tuple[int, int]:
    """Return the numbers of replayed relaxations and force calls until one of the lowest enthalpies is reached."""
    through: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, (growth, *_) in enumerate(ends):
        for step in growth.steps():
            through[step.key].append(place)
    target = sorted(enthalpy for _, enthalpy, _, _ in ends)[WANTED - 1]
    rng, tree = np.random.default_rng(seed), kind()
    enthalpies: list[float | None] = []
    niches: set[int | None] = {None}
    drawn = spent = 0

    def draw(part: Growth) -> Growth:
        nonlocal drawn
        drawn = int(rng.choice(through[part.key]))
        return ends[drawn][0]

    while True:
        tree.select(values_of(enthalpies), draw, {})
        growth, enthalpy, niche, calls = ends[drawn]
        spent += calls
        if enthalpy <= target or len(enthalpies) == 3 * len(ends):
            return len(enthalpies) + 1, spent
        tree.end(tree.add(growth), len(enthalpies))
        enthalpies.append(None if niche in niches else enthalpy)
        niches.add(niche)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    record = commands.add_parser("record", help="relax random completions")
    record.set_defaults(function=command_record)
    replay = commands.add_parser("replay", help="search recorded relaxations")
    replay.add_argument("--seeds", type=int, default=100)
    replay.set_defaults(function=command_replay)
    for command in (record, replay):
        command.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
