"""Fit how soon each source solves a problem, the prior of the allocation between sources.

    python benchmarks/allocation_priors.py                                                # print the table
    python benchmarks/allocation_priors.py --write hybridcsp/data/allocation_priors.json

The data are the recorded searches of :mod:`allocation_runs`, in which all sources get equal shares: the source that
first came within 2 meV/atom of the lowest enthalpy that any run of the system found has solved it after so many force
calls of its own; the others had not after theirs (competing risks). Added to these are, at half weight, runs of a
single source: of prototypes and ``wyckoff`` on further crystals in results/one_shot_runs.jsonl, where the goal is a
known crystal, and of random crystals and evolution on model potentials in results/allocation_single_runs.jsonl, where
it is the lowest enthalpy of all runs of the model. Crystals of benchmarks are left out.

Whether a known prototype exists is a hidden variable. Its probability before the search depends on the resemblance of
the elements to those of known crystals, by a logistic model that is fitted to the crystals of held-out formulas in the
shipped table: is their prototype among those of the other nine tenths? The rate at which a source solves problems, per
force call, has a Gamma distribution over problems (:class:`SuccessPrior
<hybridcsp.search.success_priors.SuccessPrior>`), which for prototypes and ``wyckoff`` is another one if a prototype is
known; its scale depends on the covariates of :class:`Difficulty <hybridcsp.search.success_priors.Difficulty>`. The
parameters of the sources are drawn towards common ones (partial pooling): the systems are few.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from allocation_runs import (
    RESULTS,
    RecordedSearch,
    difficulty_of,
    is_of_benchmark,
    known_prototypes,
    recorded_searches,
)
from hard_cells import held_out_crystals
from scipy.optimize import minimize

from hybridcsp.prototypes import CountTable, resemblance
from hybridcsp.prototypes.table import Occurrences
from hybridcsp.search.success_priors import Difficulty, SuccessPrior, SuccessPriors, chance_of_known
from hybridcsp.sources.registry import ONE_SHOT

#: A search is solved within this enthalpy of the lowest (eV/atom).
SOLVED = 0.002

#: Weight of runs of a single source.
WEIGHT_OF_SINGLE = 0.5

#: Common values before the fit: logarithms of shape and force calls.
CENTRE = (np.log(0.3), np.log(100.0))

#: Sources whose success depends on whether a prototype is known.
USERS_OF_PROTOTYPES = ("prototypes", "wyckoff")

#: Standard deviations of common logarithms of shape and force calls and of common slopes around CENTRE and 0, and of
#: those of sources around the common ones.
SPREAD_OF_COMMON, SPREAD_OF_SOURCES = (1.0, 2.0, 1.0), (0.35, 1.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The force calls of one source on one problem until it or another source solved it, or the run ended."""

    system: str
    source: str
    difficulty: Difficulty
    force_calls: int
    solved: bool
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Parameters by source: shape, force calls at covariates of 0, and slopes of the logarithm of the rate.

    Attributes
    ----------
    unknown, known
        Those where no prototype is known, and those of the sources that are better where one is.
    """

    unknown: dict[str, tuple[float, float, tuple[float, ...]]]
    known: dict[str, tuple[float, float, tuple[float, ...]]]

    def priors(self, difficulty: Difficulty) -> SuccessPriors:
        """Return the priors for a problem."""
        tables = [
            {
                source: SuccessPrior(
                    shape=shape, force_calls=calls * float(np.exp(-np.dot(difficulty.covariates, slopes)))
                )
                for source, (shape, calls, slopes) in table.items()
            }
            for table in (self.unknown, self.known)
        ]
        return SuccessPriors(
            chance_of_known=chance_of_known(difficulty, fit_known()), unknown=tables[0], known=tables[1]
        )


@cache
def fit_known() -> tuple[float, float]:
    """Return intercept and slope of the log-odds that a prototype is known, by the last covariate.

    The data are the crystals in the shipped table with up to 40 atoms in the primitive cell and a formula that is held
    out; those of benchmarks are left out. The number of formula units is taken as known, as in the recorded searches; a
    search of several numbers, whose resemblance counts crystals of all of them, is a little less sure than it believes.
    """
    table = known_prototypes()
    covariates, known = [], []
    for stoichiometry, label, formula, elements in held_out_crystals():
        units = label.units
        if units * sum(stoichiometry) > 40 or is_of_benchmark(formula):
            continue
        occurrences = _matching(table, stoichiometry)
        alike = resemblance(elements, occurrences, {units})
        covariates.append(Difficulty(atoms=10, elements=2, resemblance=alike).covariates[-1])
        known.append(label in occurrences.labels)
    signs, values = np.where(known, 1.0, -1.0), np.array(covariates)
    found = minimize(lambda w: np.logaddexp(0, -signs * (w[0] + w[1] * values)).sum(), np.zeros(2)).x
    return float(found[0]), float(found[1])


@cache
def _matching(table: CountTable, stoichiometry: tuple[int, ...]) -> Occurrences:
    return table.matching(stoichiometry)


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
                system=search.system,
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
        (run["formula"], run["source"], difficulty_of(run["formula"]), run["force_calls"], run["recovered"])
        for run in map(json.loads, _single_lines())
        if run["one_shot"] == ONE_SHOT
    ]
    # The elements of a model potential are mere names.
    runs += [
        (
            run["system"],
            run["source"],
            replace(difficulty_of(run["contents"]), resemblance=0.0),
            run["force_calls"],
            run["solved"],
        )
        for run in map(json.loads, _model_lines())
    ]
    return tuple(
        Attempt(
            system=system,
            source=source,
            difficulty=difficulty,
            force_calls=max(1, calls),
            solved=solved,
            weight=WEIGHT_OF_SINGLE,
        )
        for system, source, difficulty, calls, solved in runs
    )


def fit(attempts: Sequence[Attempt]) -> Fit:
    """Return the parameters of largest posterior probability."""
    sources = sorted({attempt.source for attempt in attempts})
    users = [name for name in USERS_OF_PROTOTYPES if name in sources]
    systems = {name: number for number, name in enumerate(sorted({attempt.system for attempt in attempts}))}
    system = np.array([systems[attempt.system] for attempt in attempts])
    unknown = np.array([sources.index(attempt.source) for attempt in attempts])
    known = np.array(
        [
            len(sources) + users.index(attempt.source) if attempt.source in users else sources.index(attempt.source)
            for attempt in attempts
        ]
    )
    covariates = np.array([attempt.difficulty.covariates for attempt in attempts])
    calls = np.array([attempt.force_calls for attempt in attempts], dtype=float)
    solved = np.array([attempt.solved for attempt in attempts], dtype=float)
    weight = np.array([attempt.weight for attempt in attempts])
    chance = np.zeros(len(systems))
    chance[system] = [chance_of_known(attempt.difficulty, fit_known()) for attempt in attempts]
    spread_of_common, spread = (
        np.array([*values[:2], *[values[2]] * 3]) for values in (SPREAD_OF_COMMON, SPREAD_OF_SOURCES)
    )
    centre = np.array([*CENTRE, 0.0, 0.0, 0.0])

    def likelihoods(table: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the logarithm of the likelihood of each system, and the derivatives of that of each attempt."""
        own = table[rows]
        shape, scale = np.exp(own[:, 0]), np.exp(own[:, 1] - (covariates * own[:, 2:]).sum(axis=1))
        likelihood = solved * (own[:, 0] - np.log(scale + calls)) - shape * np.log1p(calls / scale)
        by_scale = (shape * calls - solved * scale) / (scale + calls)  # by its logarithm
        slopes = np.column_stack([solved - shape * np.log1p(calls / scale), by_scale, -by_scale[:, None] * covariates])
        return np.bincount(system, weight * likelihood, len(systems)), weight[:, None] * slopes

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        common, table = flat[:5], flat[5:].reshape(-1, 5)
        (with_known, known_slopes), (without, unknown_slopes) = (likelihoods(table, rows) for rows in (known, unknown))
        with_known, without = with_known + np.log(chance), without + np.log1p(-chance)
        likelihood = np.logaddexp(with_known, without)
        posterior = np.exp(with_known - likelihood)[system, None]
        distances = (table[: len(sources)] - common) / spread
        # Where a prototype is known, a source may be much faster: it is drawn to the centre with the width of all.
        faster = (table[len(sources) :] - centre) / spread_of_common
        from_centre = (common - centre) / spread_of_common
        value = -likelihood.sum() + sum((one**2).sum() for one in (distances, faster, from_centre)) / 2
        gradient = np.concatenate([distances / spread, faster / spread_of_common])
        np.add.at(gradient, known, -posterior * known_slopes)
        np.add.at(gradient, unknown, -(1 - posterior) * unknown_slopes)
        of_common = from_centre / spread_of_common - (distances / spread).sum(axis=0)
        return float(value), np.concatenate([of_common, gradient.ravel()])

    fast = np.array([np.log(0.7), np.log(20.0), 0.0, 0.0, 0.0])
    start = np.concatenate([np.tile(centre, 1 + len(sources)), np.tile(fast, len(users))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x[5:].reshape(-1, 5)
    rows = [(float(np.exp(row[0])), float(np.exp(row[1])), tuple(row[2:].tolist())) for row in found]
    return Fit(
        unknown=dict(zip(sources, rows, strict=False)), known=dict(zip(users, rows[len(sources) :], strict=True))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    searches = recorded_searches()
    attempts = [*attempts_in(searches), *single_attempts()]
    found = fit(attempts)
    families = Counter(search.system.partition("-")[0] for search in searches)
    print(f"{len(searches)} searches ({families}) and {len(single_attempts())} runs of a single source")
    print("log-odds that a prototype is known: {:.2f} + {:.2f} resemblance".format(*fit_known()))
    print("source         solved first / force calls     shape  force calls  slopes: size, elements, resemblance")
    known = {f"{name} (known)": row for name, row in found.known.items()}
    for source, (shape, calls, slopes) in (found.unknown | known).items():
        own = [attempt for attempt in attempts if attempt.source == source.partition(" ")[0]]
        counts = f"{sum(one.solved for one in own):4d} / {sum(one.force_calls for one in own):6d}"
        print(f"{source:20s} {counts:>22s} {shape:9.2f} {calls:12.0f}  {' '.join(f'{slope:6.2f}' for slope in slopes)}")
    if arguments.write:
        covariates = np.array([attempt.difficulty.covariates for attempt in attempts])
        bounds = np.round([covariates.min(axis=0), covariates.max(axis=0)], 3).T.tolist()
        card = {
            "what": "Gamma distributions of the rate at which a source solves a problem, per force call",
            "method": "benchmarks/allocation_priors.py: competing risks, parameters of sources drawn to common ones",
            "covariates": {
                "names": ["ln(atoms / 10)", "elements - 2.5", "ln(resemblance to known crystals + 0.001) / 3 + 1"],
                "range": bounds,
            },
            "searches": {system: len(runs) for system, runs in _by_system(searches).items()},
            "single_source": {
                "prototypes and wyckoff": sorted({json.loads(line)["formula"] for line in _single_lines()}),
                "random and evolution": sorted({json.loads(line)["system"] for line in _model_lines()}),
            },
        }
        tables = {
            kind: {
                name: {
                    "shape": round(shape, 3),
                    "force_calls": round(calls, 1),
                    "slopes": [round(s, 3) for s in slopes],
                }
                for name, (shape, calls, slopes) in table.items()
            }
            for kind, table in (("unknown", found.unknown), ("known", found.known))
        }
        # How soon a seed succeeds that its owner found worth handing in cannot be measured.
        tables["known"]["seeds"] = tables["unknown"]["seeds"] = tables["known"]["prototypes"]
        temporary = arguments.write.with_suffix(".tmp")
        temporary.write_text(
            json.dumps({"card": card, "log_odds_of_known": [round(w, 3) for w in fit_known()], **tables}, indent=1)
            + "\n"
        )
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
