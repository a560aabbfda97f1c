"""Provide the posterior of the heights in which relaxations of proposed structures end, learned from the search."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.outcomes import Failed, Outcome, Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, spglib_cell, symmetry_dataset
from hybridcsp.structure.wyckoff import cell_freedom, free_axes, point_group_order

Floats = NDArray[np.float64]

#: Number of relaxations from which the posterior is used; before, its prior, which prefers nothing, is.
FEWEST = 8

#: Number of the last relaxations of each source that are learned from, so that long searches are resumed in seconds.
MEMORY = 500

#: Largest height in eV/atom; that of a failed relaxation as well. What lies higher teaches no more.
LARGEST = 0.6

#: Smallest height by an estimate in eV/atom that is distinguished. The feature is the logarithm of this height, because
#: structures whose atoms overlap have enormous energies.
LEAST_ESTIMATE = 0.05

#: Smallest standard deviation of heights in eV/atom that features do not explain.
LEAST_NOISE = 0.01

#: Strength of the prior in relaxations: so many count as much as the prior, by which no feature matters.
SHRINKAGE = 10.0


@dataclass(eq=False)
class _Try:
    """A structure that was relaxed, and the enthalpy of its end in eV/atom, infinite if it failed."""

    structure: Atoms
    enthalpy: float
    estimate: float  # of the enthalpy before the relaxation; not a number if it is not known
    minimum: int | None

    @cached_property
    def features(self) -> Floats:
        return structure_features(self.structure)


class HeightPosterior:
    """Learn in which height above the best a structure ends, from all structures of the search made from nothing.

    The height of the end of a relaxation is modelled as a linear function of features of its start
    (:func:`structure_features`: symmetry, Wyckoff sequence), with a Gaussian prior of the coefficients around zero and
    Gaussian noise. Failed relaxations count as high. Structures that were made from others (by evolution, for example)
    are left out, because their heights follow from those of their parents. Only differences between structures of the
    same source teach, so that it does not matter how good the sources are.

    Weighting by what is low alone, without that which was tried and is high, was measured and is worse: what is
    proposed most often is then found most often among the low, too (``docs/user/retraining.md``).
    """

    def __init__(self) -> None:
        self._tries: dict[str, deque[_Try]] = {}
        self._minima: dict[int, float] = {}  # enthalpies in eV/atom
        self._suspects: frozenset[int] = frozenset()
        self._unconverged = math.inf  # lowest enthalpy of an end that is no minimum
        self._relaxations = 0

    def observe(self, outcome: Outcome) -> None:
        """Learn from the outcome of a relaxation."""
        if isinstance(outcome, Relaxed):
            self._suspects = outcome.suspects_after(self._suspects)
        if not isinstance(outcome, Relaxed | Failed) or outcome.level == REFINE or outcome.candidate.proposal.parents:
            return
        starts = outcome.starting_structures
        if len(starts) > 1:  # it ended before one was chosen
            return
        enthalpy, minimum = math.inf, None
        if isinstance(outcome, Relaxed):
            enthalpy, minimum = outcome.enthalpy_per_atom, outcome.minimum
            if minimum is None:
                self._unconverged = min(self._unconverged, enthalpy)
            else:  # a relaxation that was ended in a known basin would have come down to it
                enthalpy = self._minima[minimum] = min(enthalpy, self._minima.get(minimum, math.inf))
        tries = self._tries.setdefault(outcome.candidate.source, deque(maxlen=MEMORY))
        tries.append(_Try(starts[0], enthalpy, _estimate(outcome), minimum))
        self._relaxations += 1

    def draw(
        self, structures: Sequence[Floats], rng: np.random.Generator, estimates: Sequence[float] = ()
    ) -> Floats | None:
        """Return heights of structures under coefficients drawn from their posterior (Thompson sampling).

        Parameters
        ----------
        structures
            Features of the structures.
        rng
            Random number generator.
        estimates
            Estimates of the enthalpies in eV/atom from one force call each, if there are any. They are one more
            feature, whose reliability is learned like that of the others.

        Returns
        -------
        ndarray or None
            Heights in eV/atom, apart from a constant, shape ``(n,)``; ``None`` before there are enough relaxations.
        """
        lowest = self._lowest
        if self._relaxations < FEWEST or math.isinf(lowest):
            return None
        real = [[one for one in tries if one.minimum not in self._suspects] for tries in self._tries.values()]
        sources = [tries for tries in real if tries]
        known = [
            (np.array([one.features for one in tries]), np.array([one.enthalpy for one in tries])) for tries in sources
        ]
        asked = np.array(structures)
        if len(estimates):
            asked = np.column_stack([asked, _logarithms(estimates, lowest)])
            known = [
                (np.column_stack([features, _known_logarithms(tries, lowest)]), enthalpies)
                for (features, enthalpies), tries in zip(known, sources, strict=True)
            ]
        scale = np.concatenate([asked, *(features for features, _ in known)]).std(axis=0)
        scale[scale < 1e-9] = np.inf
        rows, heights = [], []
        for features, enthalpies in known:
            height = np.minimum(enthalpies - lowest, LARGEST)
            rows.append((features - features.mean(axis=0)) / scale)
            heights.append(height - height.mean())
        x, y = np.concatenate(rows), np.concatenate(heights)
        precision = x.T @ x + SHRINKAGE * np.eye(x.shape[1])
        mean = np.linalg.solve(precision, x.T @ y)
        noise = max(float(np.std(y - x @ mean)), LEAST_NOISE)
        deviation = np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=len(mean)))
        return np.asarray(asked / scale @ (mean + noise * deviation))

    @property
    def _lowest(self) -> float:
        """Lowest enthalpy in eV/atom, without suspect minima; infinite if there is none."""
        real = (enthalpy for minimum, enthalpy in self._minima.items() if minimum not in self._suspects)
        return min(self._unconverged, min(real, default=math.inf))


def _logarithms(estimates: Iterable[float], lowest: float) -> Floats:
    """Return the logarithms of estimated heights above the lowest enthalpy (eV/atom)."""
    return np.asarray(np.log(np.maximum(np.array(list(estimates)) - lowest, LEAST_ESTIMATE)))


def _known_logarithms(tries: Iterable[_Try], lowest: float) -> Floats:
    """Return the logarithms of the estimated heights; their mean, which teaches nothing, without an estimate."""
    logarithms = _logarithms((one.estimate for one in tries), lowest)
    known = np.isfinite(logarithms)
    return np.where(known, logarithms, logarithms[known].mean() if known.any() else 0.0)


def _estimate(outcome: Relaxed | Failed) -> float:
    """Return the estimate of the enthalpy of the structure that was relaxed; not a number if there was none."""
    estimates = outcome.start_estimates or outcome.start_enthalpies
    found = outcome.candidate.proposal.tag.get("estimate") if outcome.chosen is None else estimates[outcome.chosen]
    return math.nan if found is None else float(found)


def structure_features(atoms: Atoms) -> Floats:
    """Return features of a structure on which the height of its relaxed structure may depend.

    They are the logarithms of the order of the point group and of the number of atoms, the number of free cell
    parameters, the square root of the number of free coordinates, the number of orbits without any, and, for each
    element, the mean number of free coordinates of its orbits.

    Returns
    -------
    ndarray
        Features, shape ``(5 + n_elements,)``.
    """
    numbers = np.asarray(atoms.numbers)
    dataset = symmetry_dataset(spglib_cell(atoms), SYMPREC_LOOSE)
    if dataset is None:
        number, first, letters = 1, np.arange(len(atoms)), ["a"] * len(atoms)
    else:
        number = int(dataset.number)
        first = np.unique(np.asarray(dataset.crystallographic_orbits))
        letters = list(dataset.wyckoffs)
    freedom = np.array([len(free_axes(number, letters[atom])) for atom in first.tolist()])
    features = [
        math.log(point_group_order(number)),
        math.log(len(atoms)),
        float(cell_freedom(number)),
        math.sqrt(freedom.sum()),
        float((freedom == 0).sum()),
    ]
    of_elements = [float(freedom[numbers[first] == element].mean()) for element in np.unique(numbers).tolist()]
    return np.array([*features, *of_elements])
