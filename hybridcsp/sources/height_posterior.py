"""Provide the posterior of the heights in which relaxations of proposed structures end, learned from the search."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Failed, Outcome, Relaxed
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

    @property
    def elements(self) -> list[int]:
        return elements_of(self.structure)


#: Atomic numbers of the elements of a composition and their reduced numbers of atoms.
Composition = tuple[tuple[int, int], ...]


class HeightPosterior:
    """Learn in which height above the best a structure ends, from all structures of the search made from nothing.

    The height of the end of a relaxation is modelled as a linear function of features of its start
    (:func:`structure_features`: symmetry, Wyckoff sequence), with a Gaussian prior of the coefficients around zero and
    Gaussian noise. Failed relaxations count as high. Structures that were made from others (by evolution, for example)
    are left out, because their heights follow from those of their parents. Only differences between structures of the
    same source and composition teach, so that it does not matter how good the sources are. In a chemical system the
    coefficients are the same at all compositions, and each learns from what was relaxed at the others.

    Weighting by what is low alone, without that which was tried and is high, was measured and is worse: what is
    proposed most often is then found most often among the low, too (``docs/user/retraining.md``).

    Parameters
    ----------
    elements
        Atomic numbers of the elements of a chemical system; empty for a search of one formula.
    """

    def __init__(self, elements: Sequence[int] = ()) -> None:
        self._elements = sorted(elements)
        self._tries: dict[tuple[Composition, str], deque[_Try]] = {}  # by composition and source
        self._ends: dict[Composition, _Ends] = {}
        self._relaxations = 0

    def observe(self, outcome: Outcome) -> None:
        """Learn from the outcome of a relaxation."""
        if isinstance(outcome, Relaxed):
            self._ends_at(composition_of(outcome.atoms)).note_suspects(outcome)
        if not isinstance(outcome, Relaxed | Failed) or outcome.level == REFINE or outcome.candidate.proposal.parents:
            return
        starts = outcome.starting_structures
        if len(starts) > 1:  # it ended before one was chosen
            return
        composition = composition_of(starts[0])
        enthalpy, minimum = math.inf, None
        if isinstance(outcome, Relaxed):
            enthalpy, minimum = self._ends_at(composition).note(outcome), outcome.minimum
        tries = self._tries.setdefault((composition, outcome.candidate.source), deque(maxlen=MEMORY))
        tries.append(_Try(starts[0], enthalpy, _estimate(outcome), minimum))
        self._relaxations += 1

    def draw(
        self,
        structures: Sequence[Floats],
        rng: np.random.Generator,
        estimates: Sequence[float] = (),
        composition: Composition | None = None,
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
        composition
            Their composition; not needed in a search of one formula.

        Returns
        -------
        ndarray or None
            Heights in eV/atom, apart from a constant, shape ``(n,)``; ``None`` before there are enough relaxations.
        """
        if composition is None and len(self._ends) == 1:
            (composition,) = self._ends
        lowest = {one: ends.lowest for one, ends in self._ends.items()}
        lowest = {one: enthalpy for one, enthalpy in lowest.items() if math.isfinite(enthalpy)}
        # Failures alone are no heights: a composition without an end has none yet, and teaches nothing.
        real = [
            (one, [a_try for a_try in tries if a_try.minimum not in self._ends[one].suspects])
            for (one, _), tries in self._tries.items()
            if one in lowest
        ]
        groups = [(one, tries) for one, tries in real if tries]
        if self._relaxations < FEWEST or not groups or (len(estimates) and composition not in lowest):
            return None
        known = [
            (
                np.array([self._widened(one.features, one.elements) for one in tries]),
                np.array([one.enthalpy - lowest[group] for one in tries]),
            )
            for group, tries in groups
        ]
        own = self._elements if composition is None else [number for number, _ in composition]
        asked = np.array([self._widened(features, own) for features in structures])
        if len(estimates):
            assert composition is not None
            asked = np.column_stack([asked, _logarithms(estimates, lowest[composition])])
            known = [
                (np.column_stack([features, _known_logarithms(tries, lowest[group])]), heights)
                for (features, heights), (group, tries) in zip(known, groups, strict=True)
            ]
        scale = np.concatenate([asked, *(features for features, _ in known)]).std(axis=0)
        scale[scale < 1e-9] = np.inf
        rows, heights = [], []
        for features, height in known:
            height = np.minimum(height, LARGEST)
            rows.append((features - features.mean(axis=0)) / scale)
            heights.append(height - height.mean())
        x, y = np.concatenate(rows), np.concatenate(heights)
        precision = x.T @ x + SHRINKAGE * np.eye(x.shape[1])
        mean = np.linalg.solve(precision, x.T @ y)
        noise = max(float(np.std(y - x @ mean)), LEAST_NOISE)
        deviation = np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=len(mean)))
        return np.asarray(asked / scale @ (mean + noise * deviation))

    def _widened(self, features: Floats, elements: Sequence[int]) -> Floats:
        """Return features with one for each element of the system, 0 for those that a structure does not have."""
        if not self._elements or len(elements) == len(self._elements):
            return features
        common = len(features) - len(elements)
        widened = np.zeros(common + len(self._elements))
        widened[:common] = features[:common]
        widened[[common + self._elements.index(number) for number in elements]] = features[common:]
        return widened

    def _ends_at(self, composition: Composition) -> _Ends:
        return self._ends.setdefault(composition, _Ends())


@dataclass(eq=False)
class _Ends:
    """The ends of the relaxations of one composition."""

    minima: dict[int, float] = field(default_factory=dict)  # enthalpies in eV/atom
    suspects: frozenset[int] = frozenset()
    unconverged: float = math.inf  # lowest enthalpy of an end that is no minimum

    def note_suspects(self, outcome: Relaxed) -> None:
        """Note which minima are suspect from a relaxation on."""
        self.suspects = outcome.suspects_after(self.suspects)

    def note(self, outcome: Relaxed) -> float:
        """Note the end of a relaxation, and return the enthalpy that counts, in eV/atom."""
        enthalpy, minimum = outcome.enthalpy_per_atom, outcome.minimum
        if minimum is None:
            self.unconverged = min(self.unconverged, enthalpy)
            return enthalpy
        # A relaxation that was ended in a known basin would have come down to it.
        enthalpy = self.minima[minimum] = min(enthalpy, self.minima.get(minimum, math.inf))
        return enthalpy

    @property
    def lowest(self) -> float:
        """Lowest enthalpy in eV/atom, without suspect minima; infinite if there is none."""
        real = (enthalpy for minimum, enthalpy in self.minima.items() if minimum not in self.suspects)
        return min(self.unconverged, min(real, default=math.inf))


def _logarithms(estimates: Iterable[float], lowest: float) -> Floats:
    """Return the logarithms of estimated heights above the lowest enthalpy (eV/atom)."""
    return np.asarray(np.log(np.maximum(np.array(list(estimates)) - lowest, LEAST_ESTIMATE)))


def _known_logarithms(tries: Iterable[_Try], lowest: float) -> Floats:
    """Return the logarithms of the estimated heights; their mean, which teaches nothing, without an estimate."""
    logarithms = _logarithms((one.estimate for one in tries), lowest)
    known = np.isfinite(logarithms)
    return np.where(known, logarithms, logarithms[known].mean() if known.any() else 0.0)


class PosteriorAtComposition(HeightPosterior):
    """The posterior of a chemical system as the sources of one composition see it.

    The search passes all outcomes on to the posterior of the system, so that sources do not.

    Parameters
    ----------
    whole
        Posterior of the system.
    problem
        Problem of the composition.
    """

    def __init__(self, whole: HeightPosterior, problem: Problem) -> None:
        super().__init__()
        self._whole = whole
        self._composition = composition_of(Atoms(problem.formula))

    def observe(self, outcome: Outcome) -> None:
        """Do nothing."""

    def draw(
        self,
        structures: Sequence[Floats],
        rng: np.random.Generator,
        estimates: Sequence[float] = (),
        composition: Composition | None = None,
    ) -> Floats | None:
        """Return heights of structures of the composition; see :meth:`HeightPosterior.draw`."""
        return self._whole.draw(structures, rng, estimates, composition or self._composition)


def posterior_for(problem: Problem, posterior: bool | HeightPosterior) -> HeightPosterior | None:
    """Return the posterior of a source: one of its own, its part of that of a chemical system, or none."""
    if isinstance(posterior, HeightPosterior):
        return PosteriorAtComposition(posterior, problem)
    return HeightPosterior() if posterior else None


def elements_of(atoms: Atoms) -> list[int]:
    """Return the atomic numbers of the elements of a structure, ascending."""
    return np.unique(atoms.numbers).tolist()  # type: ignore[no-any-return]


def composition_of(atoms: Atoms) -> Composition:
    """Return the composition of a structure."""
    numbers, counts = np.unique(atoms.numbers, return_counts=True)
    return tuple(zip(numbers.tolist(), (counts // np.gcd.reduce(counts)).tolist(), strict=True))


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
