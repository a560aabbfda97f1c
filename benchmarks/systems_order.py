"""How early would the best sample of a composition come if the generator learned from the other compositions?

    python benchmarks/systems_order.py run [--systems lj-1]    # appends what is missing, a minute and more a system
    python benchmarks/systems_order.py report

It needs the relaxations that ``systems_replay.py record`` makes. The compositions of both elements of a system are
divided into three parts. What is learned from the first eight samples of each composition of two parts is tried on
those of the third: the samples are sorted by the logarithm of their place in the order of the generator minus half of
a standardised prediction, by

- ``regression``: ridge regression of exp(-height / 50 meV) on the symmetry and the fingerprint of the start;
- ``groups``: the mean of this utility of the space group, shrunk to that of all samples;
- ``exchanged``: the sum of this utility of samples of the same prototype, with the elements exchanged;
- ``likelihood``: the change of the log-likelihood of the Wyckoff sequence after 15 steps of training the occupation
  network on the samples, weighted by their utility;
- ``policy``: the same after 15 steps with the utility, without its mean in the composition, as advantage, and a penalty
  on the squared changes of log-likelihoods of what was learned from, which holds the network to the shipped one.

``report`` gives the place of the first sample that ends within 2 meV/atom of the lowest of its composition, as a
fraction of all samples (geometric mean over compositions), relative to the order of the generator with 95 % bootstrap
intervals over systems, and the rank correlation of the prediction with the heights within a composition.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent))

from learning_replay import Recorded
from run_lines import append_line, read_lines
from systems import FOUND, problem_of
from systems_replay import SYSTEMS, WINDOW, file_of

RUNS = Path(__file__).parent / "results" / "systems_order_runs.jsonl"

METHODS = ("regression", "groups", "exchanged", "likelihood", "policy")

#: Samples of a composition that are learned from, parts of the compositions, weight of the prediction.
LEARNED, PARTS, WEIGHT = 8, 3, 0.5

#: Steps and learning rate of the training of the network, penalty, and largest change that is rewarded (nats).
STEPS, RATE, PENALTY, CLIP = 15, 1e-4, 0.1, 2.0

#: Strength of the priors, in standard samples and in samples of a space group.
RIDGE, SHRINKAGE = 10.0, 3.0

#: Largest height in eV/atom; that of a failed relaxation as well.
LARGEST = 0.6

DRAWS = 4000


class Samples:
    """The samples of all compositions of both elements of a system.

    Attributes
    ----------
    recorded
        Samples with a consistent symmetry.
    names, places, heights, utilities
        Composition, place in the order of the generator, height of the end above the lowest one of the composition
        (eV/atom), and utility of each, without its mean among those of the composition that are learned from.
    """

    def __init__(self, system: str) -> None:
        from hybridcsp.generators.loading import shared_generator
        from hybridcsp.generators.wyckoff.collation import occupation_row
        from hybridcsp.generators.wyckoff.tokens import tokens_of

        chemistry, _ = problem_of(system)
        shipped: Any = shared_generator("wyckoff")
        self.network = shipped._networks[0].eval()
        retrieve = cache(shipped._memory.retrieve)
        self.recorded, self.tokens, self.rows = [], [], []
        names, places, ends = [], [], []
        for formula in chemistry.compositions:
            if formula in chemistry.elements:
                continue
            problem = chemistry.problem(formula)
            for place, row in enumerate(json.loads(file_of(system, formula).read_text())):
                one = Recorded(row, problem)
                tokens = tokens_of(one.sample.atoms, shipped._positions)
                if tokens is None:
                    continue
                self.recorded.append(one)
                self.tokens.append(tokens)
                self.rows.append(occupation_row(tokens, retrieve(tokens.elements, tokens.counts), shipped._positions))
                names.append(formula)
                places.append(place)
                ends.append(np.inf if row["enthalpy"] is None else row["enthalpy"])
        self.names, self.places = np.array(names), np.array(places)
        lowest = {name: np.array(ends)[self.names == name].min() for name in set(names)}
        self.heights = np.minimum(np.array(ends) - np.array([lowest[name] for name in names]), LARGEST)

    def utilities(self, learned: Any) -> Any:
        """Return the utilities of samples that are learned from, without the mean of their compositions."""
        found = np.zeros(len(learned))
        for own in self.by_composition(learned):
            heights = self.heights[learned[own]]
            utility = np.exp(-(heights - heights.min()) / WINDOW)
            found[own] = utility - utility.mean()
        return found

    def by_composition(self, indices: Any) -> list[Any]:
        """Return the masks of the samples of each composition."""
        return [self.names[indices] == name for name in sorted(set(self.names[indices].tolist()))]

    def likelihoods(self, network: Any, indices: Any) -> Any:
        """Return the log-likelihoods of Wyckoff sequences."""
        import torch

        from hybridcsp.generators.wyckoff.collation import conditions, pad_and_stack

        unknown = [None] * len(indices)
        batch = pad_and_stack([self.rows[index] for index in indices.tolist()])
        terms = network({**batch, "conditions": torch.as_tensor(conditions(unknown, unknown))})
        return -(terms["group"] + terms["letters"])


def regression(samples: Samples, learned: Any, asked: Any) -> Any:
    """Return predicted utilities."""
    blocks = []
    for values in (
        np.array([one.features for one in samples.recorded]),
        np.array([one.sample.described.fingerprint for one in samples.recorded]),
    ):
        centred = values.astype(float)
        for own in samples.by_composition(np.arange(len(values))):
            centred[own] -= centred[own].mean(axis=0)
        scale = centred.std(axis=0)
        scale[scale < 1e-9] = np.inf
        blocks.append(centred / scale / np.sqrt(np.isfinite(scale).sum()))
    x = np.hstack(blocks)
    known, target = x[learned].copy(), samples.utilities(learned)
    for own in samples.by_composition(learned):
        known[own] -= known[own].mean(axis=0)
    kernel = known @ known.T
    scaled = kernel * len(known) / np.trace(kernel)
    return x[asked] @ known.T @ np.linalg.solve(scaled + RIDGE * np.eye(len(known)), target)


def groups(samples: Samples, learned: Any, asked: Any) -> Any:
    """Return the mean utilities of the space groups."""
    of_group = defaultdict(list)
    for index, utility in zip(learned.tolist(), samples.utilities(learned).tolist(), strict=True):
        of_group[samples.tokens[index].spacegroup].append(utility)
    found = [of_group[samples.tokens[index].spacegroup] for index in asked.tolist()]
    return np.array([sum(one) / (len(one) + SHRINKAGE) for one in found])


def exchanged(samples: Samples, learned: Any, asked: Any) -> Any:
    """Return the summed utilities of samples of the same prototype."""
    of_label: dict[Any, float] = defaultdict(float)
    for index in learned.tolist():
        of_label[samples.recorded[index].label] += float(np.exp(-samples.heights[index] / WINDOW))
    return np.array([of_label[samples.recorded[index].label] for index in asked.tolist()])


def trained(samples: Samples, learned: Any, asked: Any, *, policy: bool) -> Any:
    """Return the changes of log-likelihoods by training."""
    import torch

    network = copy.deepcopy(samples.network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
    utilities = samples.utilities(learned)
    if not policy:
        for own in samples.by_composition(learned):
            utilities[own] -= utilities[own].min()
            utilities[own] /= max(utilities[own].sum(), 1e-9)
    weights = torch.as_tensor(utilities / utilities.std(), dtype=torch.float32)
    with torch.no_grad():
        before, known = samples.likelihoods(network, asked), samples.likelihoods(network, learned)
    for _ in range(STEPS):
        change = samples.likelihoods(network, learned) - known
        gain = change.clamp(-CLIP, CLIP) if policy else change
        loss = (PENALTY * change**2 - weights * gain).mean() if policy else -(weights * gain).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        return (samples.likelihoods(network, asked) - before).numpy()


def predict(method: str, samples: Samples, learned: Any, asked: Any) -> Any:
    """Return the predictions of a method."""
    if method in ("likelihood", "policy"):
        return trained(samples, learned, asked, policy=method == "policy")
    return {"regression": regression, "groups": groups, "exchanged": exchanged}[method](samples, learned, asked)


def first_place(samples: Samples, own: Any, keys: Any) -> float:
    """Return the place of the first sample that ends at the lowest of its composition, as a fraction of all."""
    ranks = np.argsort(np.argsort(keys, kind="stable"))
    return float((ranks[samples.heights[own] <= FOUND].min() + 1) / len(own))


def command_run(options: argparse.Namespace) -> None:
    finished = {(line["system"], line["method"]) for line in read_lines(options.runs)}
    for system in options.systems:
        methods = [method for method in METHODS if (system, method) not in finished]
        if not methods:
            continue
        samples = Samples(system)
        compositions = sorted(set(samples.names.tolist()))
        for method in methods:
            places, before, correlations = [], [], []
            for part in range(PARTS):
                asked_of = compositions[part::PARTS]
                is_asked = np.isin(samples.names, asked_of)
                learned = np.flatnonzero(~is_asked & (samples.places < LEARNED))
                asked = np.flatnonzero(is_asked)
                predicted = predict(method, samples, learned, asked)
                for own in samples.by_composition(asked):
                    prior, z = np.log(1.0 + samples.places[asked[own]]), predicted[own]
                    standard = (z - z.mean()) / max(float(z.std()), 1e-9)
                    places.append(first_place(samples, asked[own], prior - WEIGHT * standard))
                    before.append(first_place(samples, asked[own], prior))
                    if z.std() > 0:
                        correlations.append(float(spearmanr(-z, samples.heights[asked[own]])[0]))
            line = {
                "system": system,
                "method": method,
                "places": places,
                "before": before,
                "correlation": float(np.mean(correlations)) if correlations else 0.0,
            }
            append_line(options.runs, line)
            ratio = np.exp(np.mean(np.log(places)) - np.mean(np.log(before)))
            print(system, method, f"{ratio:.2f}, correlation {line['correlation']:.2f}", flush=True)


def command_report(options: argparse.Namespace) -> None:
    table = Table(title="places of the best samples, learned from other compositions")
    for heading in ("method", "systems", "place", "ratio", "rank correlation"):
        table.add_column(heading, justify="right")
    for method in METHODS:
        lines = [line for line in read_lines(options.runs) if line["method"] == method]
        if not lines:
            continue
        logs = np.array([[np.mean(np.log(line[key])) for key in ("places", "before")] for line in lines])
        drawn = logs[np.random.default_rng(0).integers(len(logs), size=(DRAWS, len(logs)))].mean(axis=1)
        low, high = np.exp(np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975]))
        place, before = np.exp(logs.mean(axis=0))
        correlation = np.mean([line["correlation"] for line in lines])
        table.add_row(
            method,
            str(len(lines)),
            f"{place:.3f} ({before:.3f})",
            f"{place / before:.2f} ({low:.2f}-{high:.2f})",
            f"{correlation:.2f}",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="file of the results")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    run.set_defaults(command=command_run)
    commands.add_parser("report").set_defaults(command=command_report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
