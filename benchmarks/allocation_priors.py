"""Fit how soon each source solves a problem, the prior of the allocation between sources.

    python benchmarks/allocation_priors.py                                                # print the table
    python benchmarks/allocation_priors.py --write hybridcsp/data/allocation_priors.json

The data are the recorded searches of :mod:`allocation_runs`, in which all sources get equal shares: the source that
first came within 2 meV/atom of the lowest enthalpy that any run of the system found has solved it after so many force
calls of its own; the others had not after theirs (competing risks). Added to these are, at half weight, runs of a
single source: of prototypes and ``wyckoff`` on further crystals in results/one_shot_runs.jsonl, where the goal is a
known crystal, and of random crystals and evolution on model potentials in results/allocation_single_runs.jsonl, where
it is the lowest enthalpy of all runs of the model. Crystals of benchmarks are left out.

The rate at which a source solves problems, per force call, has a Gamma distribution over problems (:class:`SuccessPrior
<hybridcsp.search.success_priors.SuccessPrior>`); its scale depends on the covariates of :class:`Difficulty
<hybridcsp.search.success_priors.Difficulty>`: size, number of elements and known crystals of the stoichiometry. The
parameters of the sources are drawn towards common ones (partial pooling): the systems are few.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from allocation_runs import RESULTS, RecordedSearch, difficulty_of, is_of_benchmark, recorded_searches
from scipy.optimize import minimize

from hybridcsp.search.success_priors import Difficulty, SuccessPrior
from hybridcsp.sources.registry import ONE_SHOT

#: A search is solved within this enthalpy of the lowest (eV/atom).
SOLVED = 0.002

#: Weight of runs of a single source.
WEIGHT_OF_SINGLE = 0.5

#: Common values before the fit: logarithms of shape and force calls.
CENTRE = (np.log(0.3), np.log(100.0))

#: Standard deviations of common logarithms of shape and force calls and of common slopes around CENTRE and 0, and of
#: those of sources around the common ones.
SPREAD_OF_COMMON, SPREAD_OF_SOURCES = (1.0, 2.0, 1.0), (0.35, 1.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The force calls of one source on one problem until it or another source solved it, or the run ended."""

    source: str
    difficulty: Difficulty
    force_calls: int
    solved: bool
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Parameters by source: shape, force calls at covariates of 0, and slopes of the logarithm of the rate."""

    parameters: dict[str, tuple[float, float, tuple[float, ...]]]

    def priors(self, difficulty: Difficulty) -> dict[str, SuccessPrior]:
        """Return the priors for a problem."""
        return {
            source: SuccessPrior(shape=shape, force_calls=calls * np.exp(-np.dot(difficulty.covariates, slopes)))
            for source, (shape, calls, slopes) in self.parameters.items()
        }


def lowest_by_system(searches: Sequence[RecordedSearch]) -> dict[str, float]:
    """Return the lowest enthalpy of any search of each system."""
    lowest: dict[str, float] = {}
    for search in searches:
        best = min(step.enthalpy for step in search.steps if step.enthalpy is not None)
        lowest[search.system] = min(best, lowest.get(search.system, np.inf))
    return lowest


def attempts_in(searches: Sequence[RecordedSearch]) -> list[Attempt]:
    """Return the attempts of the sources in recorded searches; those of one system weigh as much as a search or two."""
    lowest = lowest_by_system(searches)
    runs = Counter(search.system for search in searches)
    attempts = []
    for search in searches:
        spent: Counter[str] = Counter()
        solver = None
        for step in search.steps:
            spent[step.source] += step.force_calls
            if step.enthalpy is not None and step.enthalpy <= lowest[search.system] + SOLVED:
                solver = step.source
                break
        attempts += [
            Attempt(
                source=source,
                difficulty=search.difficulty,
                force_calls=calls,
                solved=source == solver,
                weight=runs[search.system] ** -0.5,
            )
            for source, calls in spent.items()
        ]
    return attempts


@cache
def single_attempts() -> tuple[Attempt, ...]:
    """Return the runs of a single source; generators take as many samples per job as in searches by default."""
    runs = [
        (run["source"], run["formula"], run["force_calls"], run["recovered"])
        for run in map(json.loads, _single_lines())
        if run["one_shot"] == ONE_SHOT
    ]
    runs += [
        (run["source"], run["contents"], run["force_calls"], run["solved"]) for run in map(json.loads, _model_lines())
    ]
    return tuple(
        Attempt(
            source=source,
            difficulty=difficulty_of(contents),
            force_calls=max(1, calls),
            solved=solved,
            weight=WEIGHT_OF_SINGLE,
        )
        for source, contents, calls, solved in runs
    )


def fit(attempts: Sequence[Attempt]) -> Fit:
    """Return the parameters of largest posterior probability."""
    sources = sorted({attempt.source for attempt in attempts})
    number = {source: i for i, source in enumerate(sources)}
    source = np.array([number[attempt.source] for attempt in attempts])
    covariates = np.array([attempt.difficulty.covariates for attempt in attempts])
    calls = np.array([attempt.force_calls for attempt in attempts], dtype=float)
    solved = np.array([attempt.solved for attempt in attempts], dtype=float)
    weight = np.array([attempt.weight for attempt in attempts])
    centre = np.array([*CENTRE, 0.0, 0.0, 0.0])
    common_spread, spread = (
        np.array([*values[:2], *[values[2]] * 3]) for values in (SPREAD_OF_COMMON, SPREAD_OF_SOURCES)
    )

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        table = flat.reshape(-1, 5)
        common, own = table[0], table[1:]
        shape = np.exp(own[source, 0])
        scale = np.exp(own[source, 1] - (covariates * own[source, 2:]).sum(axis=1))
        likelihood = solved * (own[source, 0] - np.log(scale + calls)) - shape * np.log1p(calls / scale)
        by_scale = -solved * scale / (scale + calls) + shape * calls / (scale + calls)  # by its logarithm
        rows = np.column_stack(
            [solved - shape * np.log1p(calls / scale), by_scale, *(-by_scale[:, None] * covariates).T]
        )
        gradient = np.zeros_like(table)
        np.add.at(gradient, source + 1, -weight[:, None] * rows)
        distances, from_centre = (own - common) / spread, (common - centre) / common_spread
        gradient[1:] += distances / spread
        gradient[0] += from_centre / common_spread - (distances / spread).sum(axis=0)
        value = -(weight * likelihood).sum() + (distances**2).sum() / 2 + (from_centre**2).sum() / 2
        return value, gradient.ravel()

    start = np.tile(centre, len(sources) + 1)
    table = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x.reshape(-1, 5)[1:]
    rows = zip(sources, table, strict=True)
    return Fit(parameters={name: (np.exp(row[0]), np.exp(row[1]), tuple(row[2:])) for name, row in rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    searches = recorded_searches()
    attempts = [*attempts_in(searches), *single_attempts()]
    found = fit(attempts)
    families = Counter(search.system.partition("-")[0] for search in searches)
    print(f"{len(searches)} searches ({families}) and {len(single_attempts())} runs of a single source")
    print("source         solved first / force calls     shape  force calls  slopes: size, elements, known crystals")
    for source, (shape, calls, slopes) in found.parameters.items():
        own = [attempt for attempt in attempts if attempt.source == source]
        counts = f"{sum(one.solved for one in own):4d} / {sum(one.force_calls for one in own):6d}"
        print(f"{source:14s} {counts:>28s} {shape:9.2f} {calls:12.0f}  {' '.join(f'{slope:6.2f}' for slope in slopes)}")
    if arguments.write:
        covariates = np.array([attempt.difficulty.covariates for attempt in attempts])
        bounds = np.round([covariates.min(axis=0), covariates.max(axis=0)], 3).T.tolist()
        card = {
            "what": "Gamma distributions of the rate at which a source solves a problem, per force call",
            "method": "benchmarks/allocation_priors.py: competing risks, parameters of sources drawn to common ones",
            "covariates": {
                "names": ["ln(atoms / 10)", "elements - 2.5", "ln(1 + known crystals of the stoichiometry) / 3 - 1"],
                "range": bounds,
            },
            "searches": {system: len(runs) for system, runs in _by_system(searches).items()},
            "single_source": {
                "prototypes and wyckoff": sorted({json.loads(line)["formula"] for line in _single_lines()}),
                "random and evolution": sorted({json.loads(line)["system"] for line in _model_lines()}),
            },
        }
        sources = {
            name: {"shape": round(shape, 3), "force_calls": round(calls, 1), "slopes": [round(s, 3) for s in slopes]}
            for name, (shape, calls, slopes) in found.parameters.items()
        }
        # How soon a seed succeeds that its owner found worth handing in cannot be measured.
        sources["seeds"] = sources["prototypes"]
        temporary = arguments.write.with_suffix(".tmp")
        temporary.write_text(json.dumps({"card": card, "sources": sources}, indent=1) + "\n")
        temporary.replace(arguments.write)


def _by_system(searches: Sequence[RecordedSearch]) -> dict[str, list[RecordedSearch]]:
    found: dict[str, list[RecordedSearch]] = {}
    for search in searches:
        found.setdefault(search.system, []).append(search)
    return found


def _model_lines() -> list[str]:
    return (RESULTS / "allocation_single_runs.jsonl").read_text().splitlines()


def _single_lines() -> list[str]:
    lines = (RESULTS / "one_shot_runs.jsonl").read_text().splitlines()
    return [line for line in lines if not is_of_benchmark(json.loads(line)["formula"])]


if __name__ == "__main__":
    main()
