"""Targets of properties for all generators: sampling, predicting and selecting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.generators.base import Epoch, Example, Generator, Reject, Request, Sample, equal_requests
from hybridcsp.generators.properties import is_within
from hybridcsp.predictors.base import Predictor

#: Number of samples that are drawn for each missing crystal, round after round: a generator that is conditioned on the
#: property rarely needs the later ones.
ROUNDS = (1, 4, 16)


@dataclass(kw_only=True)
class SelectionCounts:
    """Represent what has become of the samples of a generator whose samples are selected.

    Attributes
    ----------
    drawn
        Number of requests that the generator has been given.
    selected
        Number of samples within all targets.
    outside
        Number of samples whose predicted property was outside of its target, by property.
    others
        Number of other answers that cannot be used, by reason.
    """

    drawn: int = 0
    selected: int = 0
    outside: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def in_words(self) -> str:
        """Return the counts as a sentence."""
        parts = [f"{n} outside the target of {name}" for name, n in self.outside.most_common()]
        parts += [f"{n} {reason}" for reason, n in self.others.most_common()]
        rest = f" ({', '.join(parts)})" if parts else ""
        return f"{self.drawn} drawn, {self.selected} of them within the target{rest}."


class SelectingGenerator(Generator):
    """Generator whose samples are selected by predicted properties.

    Samples are drawn anew, up to 21 for each crystal, until their predicted properties are within the targets of their
    request. Properties are predicted for the samples as they are, without relaxation; a sample that is outside of what
    the predictor has learned from is not selected. Targets that no predictor is
    there for are left to the generator.

    Parameters
    ----------
    generator
        Generator that is sampled.
    predictors
        Predictors by the name of their property.

    Attributes
    ----------
    counts
        Counts of all samples so far.
    """

    learns = False

    def __init__(self, generator: Generator, predictors: Mapping[str, Predictor]) -> None:
        self.generator = generator
        self.predictors = dict(predictors)
        self.counts = SelectionCounts()
        self.name = generator.name
        self.conditions = generator.conditions
        self.card = generator.card
        self.batch_size = generator.batch_size
        self.best_first = generator.best_first
        self.caches_samples = generator.caches_samples
        self.guides = generator.guides
        self.targets = generator.targets | frozenset(predictors)

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Return one answer to each request; a sample that is within all targets, if one is found."""
        answers: dict[int, Sample | Reject] = {}
        waiting = [list(group) for group in equal_requests(requests)]
        for factor in ROUNDS:
            groups = [group for group in waiting if group]
            if not groups:
                break
            asked = [requests[group[0]] for group in groups for _ in range(factor * len(group))]
            owners = [group for group in groups for _ in range(factor * len(group))]
            drawn = self.generator.sample(asked, rng)
            self.counts.drawn += len(asked)
            for group, answer in zip(owners, self._judged(asked, drawn), strict=True):
                if isinstance(answer, Reject):
                    answers |= {i: replace(answer, request=i) for i in group}
                elif group:
                    place = group.pop(0)
                    answers[place] = replace(answer, request=place)
        return [answers[i] for i in range(len(requests))]

    def _judged(self, asked: Sequence[Request], drawn: Sequence[Sample | Reject]) -> list[Sample | Reject]:
        """Replace samples outside of their targets by rejects, and count them."""
        by_request = {answer.request: answer for answer in drawn}
        judged: list[Sample | Reject] = [
            by_request.get(i, Reject(request=i, reason="no answer")) for i in range(len(asked))
        ]
        for name, predictor in self.predictors.items():
            places = [i for i, answer in enumerate(judged) if isinstance(answer, Sample) and name in asked[i].targets]
            if not places:
                continue
            prediction = predictor.predict([answer.atoms for i in places if isinstance(answer := judged[i], Sample)])
            rows = zip(places, prediction.mean.tolist(), prediction.unseen, prediction.outside, strict=True)
            for i, value, unseen, outside in rows:
                answer = judged[i]
                assert isinstance(answer, Sample)
                if unseen:
                    reason = f"because the predictor of {name} was trained without {', '.join(unseen)}"
                    judged[i] = Reject(request=i, reason=reason)
                elif outside:
                    reason = f"unlike all crystals that the predictor of {name} has learned from"
                    judged[i] = Reject(request=i, reason=reason)
                elif not is_within(value, asked[i].targets[name]):
                    judged[i] = Reject(request=i, reason=f"outside the target of {name}")
                    self.counts.outside[name] += 1
                else:
                    judged[i] = replace(answer, properties={**answer.properties, name: value})
        for answer in judged:
            if isinstance(answer, Sample):
                self.counts.selected += 1
            elif not answer.reason.startswith("outside the target of "):
                self.counts.others[answer.reason] += 1
        return judged

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Train the generator that is sampled."""
        self.generator.fit(examples, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, **settings)

    def save(self, folder: Path) -> None:
        """Write the generator that is sampled."""
        self.generator.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raise an error: the files of a generator hold no predictors."""
        raise GeneratorError(f"{folder} holds a generator without predictors; load it, and give both to {cls.__name__}")


def target_in_words(name: str, target: tuple[float, float]) -> str:
    """Return a target as a user writes it: ``band_gap=1.5..``."""
    low, high = ("" if math.isinf(end) else f"{end:g}" for end in target)
    return f"{name}={low}..{high}"


def with_targets(
    generator: Generator, targets: Mapping[str, tuple[float, float]], predictors: Sequence[Predictor]
) -> Generator:
    """Return a generator that honours targets: itself if it has learned all of them, or else with selection.

    A property that the generator has learned and a predictor predicts is used in both ways.

    Parameters
    ----------
    generator
        The generator.
    targets
        Lowest and highest wanted value of properties by name.
    predictors
        Predictors of the properties.

    Raises
    ------
    InputError
        If a target is of a property that the generator has not learned and no predictor predicts, or if a predictor
        is of no use because its property has no target or another predictor predicts it.
    """
    by_name: dict[str, Predictor] = {}
    for predictor in predictors:
        name = predictor.quantity
        if name in by_name:
            raise InputError("predictor", name, reason="another predictor is there for this property; leave one out")
        if name not in targets:
            reason = f"no target is set for this property; set one ({name}=LOW..HIGH) or leave the predictor out"
            raise InputError("predictor", name, reason=reason)
        by_name[name] = predictor
    for name, (low, high) in targets.items():
        if name not in by_name and name not in generator.targets:
            learned = f"it has learned {', '.join(sorted(generator.targets))}" if generator.targets else "it knows none"
            reason = (
                f"the generator {generator.name} has not learned this property ({learned}), and no predictor predicts "
                "it; give the folder of a predictor of it, or train the generator on structures with this property"
            )
            raise InputError("target", target_in_words(name, (low, high)), reason=reason)
    return SelectingGenerator(generator, by_name) if by_name else generator
