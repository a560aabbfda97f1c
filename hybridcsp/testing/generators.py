"""Conformance suite of generators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from hybridcsp.core.records import is_word
from hybridcsp.generators.base import Condition, Example, Generator, Reject, Request, Sample
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.validity import is_finite_crystal
from hybridcsp.testing.requirements import conformance_suite, require, unchanged

_CONTENTS = ({"Cu": 1, "Au": 1}, {"Cu": 2, "Au": 2}, {"Cu": 4}, {"Cu": 3, "Au": 1})


@conformance_suite
def check_generator(
    make: Callable[[], Generator],
    folder: Path,
    *,
    contents: Sequence[Mapping[str, int]] = _CONTENTS,
    fit_settings: Mapping[str, Any] | None = None,
) -> None:
    """Check that a generator answers requests exactly, repeats itself, and survives saving, loading and training.

    Parameters
    ----------
    make
        Function that returns a new generator, always the same one.
    folder
        Existing empty folder for the weights.
    contents
        Contents of the cells that are requested.
    fit_settings
        Settings for :meth:`~hybridcsp.generators.base.Generator.fit`; by default one epoch at a learning rate of 1e-4
        with an anchor of 1.

    Raises
    ------
    AssertionError
        If the generator breaks a rule; the message names it.
    """
    generator = make()
    require(isinstance(generator, Generator), f"{type(generator).__name__} must inherit generators.base.Generator.")
    name = generator.name
    require(is_word(name), f"The name {name!r} of the generator must be a word that begins with a letter.")
    unknown = [condition for condition in generator.conditions if condition not in set(Condition)]
    require(not unknown, f"The conditions {unknown} of the generator {name} are unknown; known are {list(Condition)}.")
    requests = [Request(contents=wanted) for wanted in contents for _ in range(3)]
    first = _answers(generator, requests)
    require(
        any(isinstance(answer, Sample) for answer in first), f"The generator {name} rejected all {len(first)} requests."
    )
    _require_equal(
        first, _answers(make(), requests), f"Two samplings of the generator {name} with the same random numbers differ."
    )
    require(not generator.sample([], np.random.default_rng(0)), f"The generator {name} answers without a request.")
    if generator.reconstructs:
        _check_reconstruction(generator, contents)

    generator.save(folder / "saved")
    json.dumps(dict(generator.card))
    loaded = type(generator).load(folder / "saved")
    _require_equal(first, _answers(loaded, requests), f"The generator {name} samples differently after save and load.")
    if generator.learns:
        settings = {"epochs": 1, "learning_rate": 1e-4, "anchor": 1.0} if fit_settings is None else dict(fit_settings)
        examples = [Example(atoms=bulk("CuAu", "cesiumchloride", a=a)) for a in (3.0, 3.1, 3.2, 3.3)]
        trained = []
        for _ in range(2):
            one = make()
            one.fit(examples, seed=1, **settings)
            trained.append(_answers(one, requests))
        _require_equal(
            trained[0], trained[1], f"Two trainings of the generator {name} with the same seed give different samples."
        )


def _answers(generator: Generator, requests: Sequence[Request]) -> list[Sample | Reject]:
    answers = generator.sample(requests, np.random.default_rng(7))
    name = generator.name
    require(
        len(answers) == len(requests),
        f"The generator {name} gave {len(answers)} answers to {len(requests)} requests; there must be one for each.",
    )
    for number, answer in enumerate(answers):
        require(
            isinstance(answer, Sample | Reject),
            f"Answer {number} of the generator {name} is neither a Sample nor a Reject.",
        )
        require(
            answer.request == number,
            f"Answer {number} of the generator {name} names request {answer.request}; answers must keep the order.",
        )
        if isinstance(answer, Sample):
            found = dict(answer.atoms.symbols.formula.count())
            wanted = dict(requests[number].contents)
            require(
                found == wanted, f"Answer {number} of the generator {name} contains {found}; requested was {wanted}."
            )
            require(
                is_finite_crystal(answer.atoms) and answer.atoms.pbc.all(),
                f"Answer {number} of the generator {name} is not a periodic crystal of finite positions and volume.",
            )
    return answers


def _check_reconstruction(generator: Generator, contents: Sequence[Mapping[str, int]]) -> None:
    """Check that each crystal is reconstructed, or that there is a reason why it is not, and that this repeats."""
    name = generator.name
    crystals = [bulk("Cu", "fcc", a=3.6), bulk("CuAu", "cesiumchloride", a=3.1), *_sampled(generator, contents)]
    with unchanged(crystals, f"The generator {name} changed a crystal in reconstruct(); it must work on a copy."):
        first, second = generator.reconstruct(crystals), generator.reconstruct(crystals)
    require(
        len(first) == len(crystals),
        f"The generator {name} gave {len(first)} reconstructions of {len(crystals)} crystals; there must be one each.",
    )
    for one, other in zip(first, second, strict=True):
        require(
            isinstance(one, Atoms | DecodingError),
            f"A reconstruction of the generator {name} is neither ase.Atoms nor a DecodingError.",
        )
        require(
            one == other if isinstance(one, Atoms) else type(one) is type(other),
            f"Two reconstructions of one crystal by the generator {name} differ; nothing may be drawn at random.",
        )


def _sampled(generator: Generator, contents: Sequence[Mapping[str, int]]) -> list[Atoms]:
    answers = generator.sample([Request(contents=wanted) for wanted in contents], np.random.default_rng(3))
    return [answer.atoms for answer in answers if isinstance(answer, Sample)]


def _require_equal(first: Sequence[Sample | Reject], second: Sequence[Sample | Reject], message: str) -> None:
    for one, other in zip(first, second, strict=True):
        if isinstance(one, Sample) and isinstance(other, Sample):
            require(one.atoms == other.atoms, message)
        else:
            require(type(one) is type(other), message)
