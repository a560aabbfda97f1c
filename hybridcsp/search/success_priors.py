"""The expected success of each source before a search, by what is known about the problem."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from hybridcsp.core.problem import Problem
from hybridcsp.prototypes import shipped_table
from hybridcsp.prototypes.labels import reduced_counts
from hybridcsp.prototypes.table import CountTable


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """The properties of a problem that the success of sources depends on.

    Attributes
    ----------
    atoms
        Mean number of atoms in its cells.
    elements
        Number of elements.
    known_crystals
        Number of known crystals of its stoichiometry in the table of prototypes.
    """

    atoms: float
    elements: int
    known_crystals: float

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
        known = 0.0
        if problem.cell is None:
            symbols = [symbol for symbol, count in problem.composition.items() for _ in range(count)]
            stoichiometry = tuple(reduced_counts([atomic_numbers[symbol] for symbol in symbols]).values())
            table = shipped_table() if table is None else table
            known = float(table.matching(stoichiometry).counts.sum())
        atoms = float(np.mean(problem.units)) * problem.atoms_per_unit
        return cls(atoms=atoms, elements=len(problem.composition), known_crystals=known)

    @property
    def covariates(self) -> tuple[float, float, float]:
        """Variables of the fitted model, which are about 0 for 10 atoms, 2 to 3 elements and 20 known crystals."""
        return math.log(self.atoms / 10), self.elements - 2.5, math.log1p(self.known_crystals) / 3 - 1


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


def success_priors(difficulty: Difficulty) -> dict[str, SuccessPrior]:
    """Return the priors of the package's sources for a problem.

    Covariates are clipped to the range of the problems that the priors were fitted to.
    """
    table = _table()
    bounds = np.array(table["card"]["covariates"]["range"])
    covariates = np.clip(difficulty.covariates, bounds[:, 0], bounds[:, 1])
    return {
        name: SuccessPrior(
            shape=one["shape"], force_calls=one["force_calls"] * math.exp(-float(np.dot(covariates, one["slopes"])))
        )
        for name, one in table["sources"].items()
    }


def prior_of(name: str, priors: Mapping[str, SuccessPrior]) -> SuccessPrior:
    """Return the prior of a source by its name, such as ``random-2``; the typical one if its kind is not known."""
    found = priors.get(name) or priors.get(name.rpartition("-")[0])
    if found is not None:
        return found
    if not priors:
        return SuccessPrior(shape=0.3, force_calls=300.0)
    shape = float(np.median([prior.shape for prior in priors.values()]))
    return SuccessPrior(shape=shape, force_calls=float(np.median([prior.force_calls for prior in priors.values()])))


@cache
def _table() -> Mapping[str, Any]:
    return dict(json.loads(files("hybridcsp").joinpath("data/allocation_priors.json").read_text(encoding="utf-8")))
