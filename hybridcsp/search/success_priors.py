"""The expected success of each source before a search, by what is known about the problem."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import gcd
from typing import Any

import numpy as np

from hybridcsp.core.problem import Problem
from hybridcsp.prototypes import resemblance, shipped_table
from hybridcsp.prototypes.labels import reduced_formula
from hybridcsp.prototypes.table import CountTable

#: Resemblance to known crystals that is added before the logarithm is taken: smaller ones all mean that none is known.
NO_RESEMBLANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """The properties of a problem that the success of sources depends on.

    Attributes
    ----------
    atoms
        Mean number of atoms in its cells.
    elements
        Number of elements.
    resemblance
        Summed similarity of its elements to those of known crystals of its stoichiometry whose primitive cells it
        allows (:func:`hybridcsp.prototypes.resemblance`): of 1765 crystals of held-out formulas it says better than the
        number of known crystals whether the prototype is among the known ones (area under the curve 0.89, 0.77, for the
        true number of formula units; for all cells of up to 20 atoms 0.85).
    """

    atoms: float
    elements: int
    resemblance: float

    @classmethod
    def of(cls, problem: Problem, table: CountTable | None = None) -> Difficulty:
        """Return the difficulty of a problem; prototypes do not apply to a fixed cell.

        Parameters
        ----------
        problem
            The problem.
        table
            Known prototypes; by default the shipped table.
        """
        alike = 0.0
        if problem.cell is None:
            counts = reduced_formula(problem.composition)
            known = (shipped_table() if table is None else table).matching(tuple(counts.values()))
            per_unit = gcd(*problem.composition.values())
            alike = resemblance(tuple(counts), known, {units * per_unit for units in problem.units})
        atoms = float(np.mean(problem.units)) * problem.atoms_per_unit
        return cls(atoms=atoms, elements=len(problem.composition), resemblance=alike)

    @property
    def covariates(self) -> tuple[float, float, float]:
        """Variables of the fitted model: about 0 for 10 atoms, 2 to 3 elements and a relative of similar elements."""
        return (
            math.log(self.atoms / 10),
            self.elements - 2.5,
            math.log(self.resemblance + NO_RESEMBLANCE) / 3 + 1,
        )


def known_crystals(problem: Problem) -> float:
    """Return the number of known crystals of the stoichiometry of a problem, 0 for a fixed cell."""
    if problem.cell is not None:
        return 0.0
    return float(shipped_table().matching(tuple(reduced_formula(problem.composition).values())).counts.sum())


@dataclass(frozen=True, kw_only=True)
class SuccessPrior:
    """Gamma distribution of the rate at which a source solves problems like the present one, per force call.

    With a rate that differs from problem to problem but does not change, the expected rate of a source that has spent c
    force calls on a problem without solving it is ``shape / (force_calls + c)``.

    Attributes
    ----------
    shape
        Shape of the distribution: small if a source solves some problems soon and others never.
    force_calls
        Inverse scale of the distribution.
    """

    shape: float
    force_calls: float

    def rate(self, spent: float, credit: float = 0.0) -> float:
        """Return the expected rate after force calls in vain, and credit that is added to the shape."""
        return (self.shape + credit) / (self.force_calls + spent)

    def logarithm_of_failure(self, spent: float) -> float:
        """Return the logarithm of the probability that as many force calls do not solve a problem."""
        return -self.shape * math.log1p(spent / self.force_calls)


@dataclass(frozen=True, kw_only=True)
class SuccessPriors:
    """Priors by source, which for some sources depend on whether a known prototype is the solution.

    Attributes
    ----------
    chance_of_known
        Probability that the prototype of the solution is a known one.
    unknown
        Priors where it is not.
    known
        Priors where it is, of those sources for which this matters.

    Notes
    -----
    In cross-validation over 17 searches and 184 runs of a single source the logarithm of the likelihood is -551.9; with
    one distribution for each source -554.9, and with the number of known crystals in place of the resemblance -571.5.
    """

    chance_of_known: float
    unknown: Mapping[str, SuccessPrior]
    known: Mapping[str, SuccessPrior]

    def chance_left(self, spent: Mapping[str, float]) -> float:
        """Return the probability that a known prototype is the solution after force calls in vain.

        Parameters
        ----------
        spent
            Force calls by source.
        """
        odds = math.log(self.chance_of_known) - math.log1p(-self.chance_of_known) if self.chance_of_known else -math.inf
        for name, calls in spent.items():
            known = _find(name, self.known)
            if known is not None:
                odds += known.logarithm_of_failure(calls) - self.of(name).logarithm_of_failure(calls)
        return 1 / (1 + math.exp(-odds)) if odds > -50 else 0.0

    def rate(self, name: str, spent: Mapping[str, float], credit: float = 0.0) -> float:
        """Return the expected probability that the next force call of a source solves the problem.

        Parameters
        ----------
        name
            Name of the source.
        spent
            Force calls in vain by source.
        credit
            Number of solved problems that results of the source count as.
        """
        calls, known = spent.get(name, 0.0), _find(name, self.known)
        rate = self.of(name).rate(calls, credit)
        if known is None:
            return rate
        chance = self.chance_left(spent)
        return chance * known.rate(calls, credit) + (1 - chance) * rate

    def of(self, name: str) -> SuccessPrior:
        """Return the prior of a source where no prototype is known; the typical one if its kind is not known."""
        found = _find(name, self.unknown)
        if found is not None:
            return found
        if not self.unknown:
            return SuccessPrior(shape=0.3, force_calls=300.0)
        priors = self.unknown.values()
        shape = float(np.median([prior.shape for prior in priors]))
        return SuccessPrior(shape=shape, force_calls=float(np.median([prior.force_calls for prior in priors])))


def success_priors(difficulty: Difficulty) -> SuccessPriors:
    """Return the priors of the package's sources for a problem.

    Covariates are clipped to the range of the problems that the priors were fitted to.
    """
    table = _table()
    bounds = np.array(table["card"]["covariates"]["range"])
    covariates = np.clip(difficulty.covariates, bounds[:, 0], bounds[:, 1])
    unknown, known = (
        {
            name: SuccessPrior(
                shape=one["shape"], force_calls=one["force_calls"] * math.exp(-float(np.dot(covariates, one["slopes"])))
            )
            for name, one in table[kind].items()
        }
        for kind in ("unknown", "known")
    )
    chance = chance_of_known(difficulty, table["log_odds_of_known"])
    return SuccessPriors(chance_of_known=chance, unknown=unknown, known=known)


def chance_of_known(difficulty: Difficulty, log_odds: Sequence[float]) -> float:
    """Return the probability that the prototype of the solution is a known one.

    Parameters
    ----------
    difficulty
        The difficulty of the problem.
    log_odds
        Intercept and slope of the log-odds by the resemblance to known crystals, as a covariate.
    """
    intercept, slope = log_odds
    return 1 / (1 + math.exp(-intercept - slope * difficulty.covariates[-1]))


def _find(name: str, priors: Mapping[str, SuccessPrior]) -> SuccessPrior | None:
    """Return the prior of a source by its name, such as ``random-2``, or by that of its kind."""
    return priors.get(name) or priors.get(name.rpartition("-")[0])


@cache
def _table() -> Mapping[str, Any]:
    return dict(json.loads(files("hybridcsp").joinpath("data/allocation_priors.json").read_text(encoding="utf-8")))
