"""What a generator learns from: the minima of a search, and what it knew before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp.core.minimum import Minimum
from hybridcsp.core.problem import Problem
from hybridcsp.generators.base import Example, Generator
from hybridcsp.generators.datasets import formula_of, is_held_out, read_dataset
from hybridcsp.generators.selection import requests_for, select
from hybridcsp.prototypes import Options, aflow, shipped_table
from hybridcsp.prototypes.table import reduced_hill_formula
from hybridcsp.retraining.settings import WEIGHTINGS, Retraining
from hybridcsp.similarity import StructureIndex
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive

#: Minima of a smaller weight, relative to the best, are left out: their time is better spent on others.
NEGLIGIBLE = 0.01

#: Minima that the generator made just as they are teach it little: they count less by this factor, so that it does not
#: go on to make nothing else.
OF_ITS_OWN = 0.25

#: At least and at most so many structures are replayed.
FEWEST_REPLAYED, MOST_REPLAYED = 16, 256

#: Prototypes and copies of each structure, at other volumes, that a generator without any past begins with.
PROTOTYPES, COPIES, STRETCH = 64, 4, 0.06


def lessons(minima: Sequence[Minimum], source: str, problem: Problem, settings: Retraining) -> list[Example]:
    """Return minima as examples with weights, 1 on average.

    Parameters
    ----------
    minima
        All that the search has, best first.
    source
        Name of the source whose generator is to learn: what it proposed just as it is counts less.
    problem
        What is searched.
    settings
        How they are weighted.
    """
    if not minima:
        return []
    weights = WEIGHTINGS[settings.weighting](np.array([m.enthalpy_per_atom for m in minima]), settings)
    examples = []
    for rank, (minimum, weight) in enumerate(zip(minima, weights, strict=True)):
        if weight < NEGLIGIBLE:
            continue
        start = minimum.found_by
        own = start.source == source and any(_is_same(begun, minimum.best.atoms) for begun in start.starts)
        examples.append(
            Example(
                atoms=primitive(minimum.best.atoms, SYMPREC_LOOSE),
                weight=float(weight) * (OF_ITS_OWN if own else 1.0),
                energy_quantile=rank / len(minima),
                pressure_gpa=problem.pressure_gpa,
            )
        )
    return _of_mean(1.0, examples)


def replayed(
    prior: Generator, n_lessons: int, problem: Problem, settings: Retraining, rng: np.random.Generator
) -> list[Example]:
    """Return what keeps a generator from forgetting: crystals from elsewhere, or samples of its former self.

    Their weights add up to the share ``settings.replay`` of a training set in which the lessons weigh ``n_lessons``.
    """
    if settings.replay == 0:
        return []
    n = replays(n_lessons)
    if settings.replay_data is not None:
        known = read_dataset([Path(settings.replay_data).expanduser()], max_atoms=problem.max_atoms).examples
        # Generators set formulas aside to know when to stop; here all are to be learned from, or else all set aside.
        aside = is_held_out(reduced_hill_formula(problem.composition))
        like = [example for example in known if is_held_out(formula_of(example.atoms)) == aside]
        examples = [like[i] for i in rng.permutation(len(like))[:n]]
    else:
        requests = requests_for(problem, prior.conditions, 2 * n, rng)
        chosen = select(prior.sample(requests, rng), problem, prior.conditions, len(requests)).chosen[:n]
        examples = [Example(atoms=sample.atoms, pressure_gpa=problem.pressure_gpa) for sample in chosen]
    if not examples:
        return []
    share = settings.replay / (1 - settings.replay)
    return _of_mean(share * n_lessons / len(examples), examples)


def without_pressure(examples: Sequence[Example], problem: Problem) -> list[Example]:
    """Return crystals at the volumes that are expected of them without the problem's pressure, and tell of none.

    They are for a generator that knows nothing of pressure: what it makes is compressed as the problem expects
    (:func:`hybridcsp.generators.selection.select`), before it has learned from the search and after.
    """
    factor = 1 / problem.compression
    return [replace(example, atoms=_scaled(example.atoms, factor), pressure_gpa=None) for example in examples]


def replays(n_lessons: int) -> int:
    """Return how many structures are replayed beside so many lessons."""
    return int(np.clip(n_lessons, FEWEST_REPLAYED, MOST_REPLAYED))


def first_lessons(problem: Problem, rng: np.random.Generator) -> list[Example]:
    """Return known prototypes with the problem's elements: what a generator begins with that has learned nothing yet.

    The likelier ones count more (their estimated chance), all together as much as there are of them.
    """
    options = Options(problem, shipped_table(), [aflow()])
    examples = []
    for rank in islice(options.possible(0), PROTOTYPES):
        atoms = options[rank].build(problem, rng)
        if atoms is not None:
            atoms = primitive(atoms, SYMPREC_LOOSE)
            examples.append(Example(atoms=atoms, weight=options[rank].chance, pressure_gpa=problem.pressure_gpa))
    return _of_mean(1.0, examples)


def stretched(examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    """Return each example at several volumes: the change of shape that keeps every symmetry."""
    return [
        replace(example, atoms=_scaled(example.atoms, factor), weight=example.weight / COPIES)
        for example in examples
        for factor in np.exp(rng.uniform(-STRETCH, STRETCH, COPIES))
    ]


def _scaled(atoms: Atoms, factor: float) -> Atoms:
    """Return a crystal at a multiple of its volume."""
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell.array * factor ** (1 / 3), scale_atoms=True)
    return scaled


def _is_same(start: Atoms, end: Atoms) -> bool:
    index = StructureIndex(energy_window=None)  # quicker than to compare the two in every case
    index.add(0, start)
    return index.find(end) is not None


def _of_mean(mean: float, examples: Sequence[Example]) -> list[Example]:
    total = sum(example.weight for example in examples)
    factor = mean * len(examples) / total if total > 0 else 0.0
    return [replace(example, weight=example.weight * factor) for example in examples]
