"""Training sets for retraining: minima of the search, replayed crystals and, for untrained generators, prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from ase import Atoms

from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import FOLLOW_UP
from hybridcsp.generators.base import Example, Generator
from hybridcsp.generators.datasets import formula_of, is_held_out, read_dataset
from hybridcsp.generators.selection import requests_for, select
from hybridcsp.prototypes import Options, aflow, shipped_table
from hybridcsp.prototypes.table import reduced_hill_formula
from hybridcsp.retraining.settings import WEIGHTINGS, Retraining
from hybridcsp.similarity import StructureIndex
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive
from hybridcsp.utils.paths import expanded

#: Weight, relative to the lowest minimum, below which a minimum is left out of the training set.
NEGLIGIBLE_WEIGHT = 0.01

#: Factor on the weights of minima that the generator proposed unchanged. They teach it little, and with their full
#: weight it would soon propose nothing else.
WEIGHT_OF_OWN_PROPOSALS = 0.25

#: Smallest and largest number of replayed crystals.
MIN_REPLAYED, MAX_REPLAYED = 16, 256

#: Number of prototypes in the initial training set.
N_PROTOTYPES = 64

#: Copies of each crystal in the augmentation of volumes, and their largest change of the logarithm of the volume.
N_COPIES, LARGEST_LOG_VOLUME_CHANGE = 4, 0.06


def examples_from_minima(
    minima: Sequence[PreferredMinimum], source: str, problem: Problem, settings: Retraining
) -> list[Example]:
    """Return minima as examples with weights whose mean is 1.

    Parameters
    ----------
    minima
        All minima of the search with their heights, the lowest first; those of one niche, and those that are the same
        minimum by a follow-up calculator, make one example.
    source
        Name of the source whose generator learns; its own proposals that relaxed to a similar structure weigh less.
    problem
        Problem of the search.
    settings
        Settings of retraining, with the weighting.
    """
    if not minima:
        return []
    different: dict[tuple[str, int | None], PreferredMinimum] = {}
    for preferred in minima:
        end = preferred.end
        key = (end.evaluation.calculator, end.minimum) if end.level == FOLLOW_UP else ("", preferred.niche)
        different.setdefault(key, preferred)
    weights = WEIGHTINGS[settings.weighting](np.array([one.height for one in different.values()]), settings)
    examples = []
    for rank, (preferred, weight) in enumerate(zip(different.values(), weights, strict=True)):
        if weight < NEGLIGIBLE_WEIGHT:
            continue
        candidate, atoms = preferred.minimum.found_by, preferred.end.atoms
        own = candidate.source == source and any(_is_similar(start, atoms) for start in candidate.starts)
        examples.append(
            Example(
                atoms=primitive(atoms, SYMPREC_LOOSE),
                weight=float(weight) * (WEIGHT_OF_OWN_PROPOSALS if own else 1.0),
                energy_quantile=rank / len(different),
                pressure_gpa=problem.pressure_gpa,
            )
        )
    return _scale_weights(examples, mean=1.0)


def replay_examples(
    generator: Generator, n_minima: int, problem: Problem, settings: Retraining, rng: np.random.Generator
) -> list[Example]:
    """Return crystals that keep a generator from forgetting: those of a file, or samples of its initial version.

    Parameters
    ----------
    generator
        Initial version of the generator.
    n_minima
        Number of examples from minima, which is also their total weight. The replayed crystals get the share
        ``settings.replay`` of the weight of the whole training set.
    problem, settings
        Problem of the search, and settings of retraining.
    rng
        Random number generator.
    """
    if settings.replay == 0:
        return []
    n = number_of_replays(n_minima)
    if settings.replay_data is not None:
        known = read_dataset([expanded(settings.replay_data)], max_atoms=problem.max_atoms).examples
        # Generators hold some formulas out to decide when to stop. The crystals that are replayed are on the same side
        # as the problem's formula, so that either all examples are learned from, or all are held out.
        held_out = is_held_out(reduced_hill_formula(problem.composition))
        usable = [example for example in known if is_held_out(formula_of(example.atoms)) == held_out]
        examples = [usable[i] for i in rng.permutation(len(usable))[:n]]
    else:
        requests = requests_for(problem, generator.conditions, 2 * n, rng)
        chosen = select(generator.sample(requests, rng), problem, generator.conditions, len(requests)).chosen[:n]
        examples = [Example(atoms=sample.atoms, pressure_gpa=problem.pressure_gpa) for sample in chosen]
    if not examples:
        return []
    share = settings.replay / (1 - settings.replay)
    return _scale_weights(examples, mean=share * n_minima / len(examples))


def number_of_replays(n_minima: int) -> int:
    """Return the number of crystals that are replayed in a training on ``n_minima`` minima."""
    return int(np.clip(n_minima, MIN_REPLAYED, MAX_REPLAYED))


def without_pressure(examples: Sequence[Example], problem: Problem) -> list[Example]:
    """Return examples at the volumes expected without the problem's pressure, and without the pressure itself.

    They are for a generator that cannot be conditioned on pressure: its samples are compressed afterwards
    (:func:`hybridcsp.generators.selection.select`), before and after it has learned from the search.
    """
    factor = 1 / problem.compression
    return [replace(example, atoms=_scale_volume(example.atoms, factor), pressure_gpa=None) for example in examples]


def initial_training_set(problem: Problem, rng: np.random.Generator) -> list[Example]:
    """Return known prototypes with the problem's elements, on which an untrained generator is trained first.

    Their weights are proportional to their estimated chance, with a mean of 1.
    """
    options = Options(problem, shipped_table(), [aflow()])
    examples = []
    for rank in islice(options.possible(0), N_PROTOTYPES):
        atoms = options[rank].build(problem, rng)
        if atoms is not None:
            atoms = primitive(atoms, SYMPREC_LOOSE)
            examples.append(Example(atoms=atoms, weight=options[rank].chance, pressure_gpa=problem.pressure_gpa))
    return _scale_weights(examples, mean=1.0)


def augment_volumes(examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    """Return several copies of each example at random volumes, which keeps all symmetries."""
    return [
        replace(example, atoms=_scale_volume(example.atoms, factor), weight=example.weight / N_COPIES)
        for example in examples
        for factor in np.exp(rng.uniform(-LARGEST_LOG_VOLUME_CHANGE, LARGEST_LOG_VOLUME_CHANGE, N_COPIES))
    ]


def _scale_volume(atoms: Atoms, factor: float) -> Atoms:
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell.array * factor ** (1 / 3), scale_atoms=True)
    return scaled


def _is_similar(start: Atoms, end: Atoms) -> bool:
    index = StructureIndex(energy_window=None)  # its fingerprints are faster than a full comparison
    index.add(0, start)
    return index.find(end) is not None


def _scale_weights(examples: Sequence[Example], mean: float) -> list[Example]:
    total = sum(example.weight for example in examples)
    factor = mean * len(examples) / total if total > 0 else 0.0
    return [replace(example, weight=example.weight * factor) for example in examples]
