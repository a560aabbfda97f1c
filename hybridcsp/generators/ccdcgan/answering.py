"""Answers to requests by networks that know contents, and by networks that do not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.ccdcgan.model import CodeModel
from hybridcsp.generators.ccdcgan.quantities import Quantities, within_targets
from hybridcsp.generators.images.coder import ImageCoder
from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.images.reading import OTHER_CONTENTS

#: Number of crystals that are drawn for a request before it is rejected.
DRAWS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Represent what became of the codes of a sample.

    Attributes
    ----------
    atoms
        The crystal; ``None`` if there is none.
    reason
        Why there is none.
    properties
        Values of properties that the constraint predicts.
    """

    atoms: Atoms | None = None
    reason: str = ""
    properties: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetworks:
    """Trained networks that draw crystals.

    Attributes
    ----------
    coder
        Autoencoders of images.
    model
        Networks that compete.
    quantities
        Properties that are constrained.
    """

    coder: ImageCoder
    model: CodeModel
    quantities: Quantities

    @torch.no_grad()
    def draw(
        self,
        contents: NDArray[np.int_],
        features: NDArray[np.float32],
        rng: np.random.Generator,
        *,
        exactly: bool,
    ) -> list[Drawn]:
        """Draw crystals.

        Parameters
        ----------
        contents
            Wanted number of atoms of each element, shape ``(n, n_elements)``.
        features
            Features of wanted values of properties, shape ``(n, n_features)``.
        rng
            Random number generator.
        exactly
            Whether crystals of other contents are rejected.
        """
        device = next(self.model.parameters()).device
        noise = rng.standard_normal((len(contents), self.model.sizes.noise))
        tensors = [torch.as_tensor(one, dtype=torch.float32, device=device) for one in (noise, contents, features)]
        codes = Codes(*(one.cpu() for one in self.model.generate(*tensors)))
        decoded = self.coder.decode(codes, contents if exactly else None)
        predicted = np.zeros((len(contents), 0))
        if self.model.constraint is not None:
            values = self.model.constraint.predict(Codes(*(one.to(device) for one in codes)), tensors[1])
            predicted = self.quantities.in_own_units(values.double().cpu().numpy())
        found = []
        for one, row in zip(decoded, predicted, strict=True):
            properties = dict(zip(self.quantities.names, row.tolist(), strict=True))
            if isinstance(one, Atoms):
                found.append(Drawn(atoms=one, properties=properties))
            else:
                found.append(Drawn(reason=one.reason))
        return found


class Answering(ABC):
    """Abstract base class of ways to answer requests."""

    #: Whether crystals of other contents than the wanted ones are rejected when they are drawn.
    exactly: bool

    @abstractmethod
    def matched(self, drawn: Sequence[Drawn], requests: Sequence[Request]) -> list[Drawn]:
        """Return a sample, or the reason why there is none, for each of as many requests as there are samples."""

    def answer(
        self, networks: TrainedNetworks, requests: Sequence[Request], rng: np.random.Generator
    ) -> list[Sample | Reject]:
        """Answer requests; those that are not answered by a crystal are repeated up to :data:`DRAWS` times."""
        answers: list[Sample | Reject] = []
        for number, request in enumerate(requests):
            answers.append(Reject(request=number, reason=networks.coder.refusal(request.contents)))
        left = [answer.request for answer in answers if isinstance(answer, Reject) and not answer.reason]
        counts = {number: networks.coder.counts(requests[number].contents) for number in left}
        for _ in range(DRAWS):
            if not left:
                break
            features = np.array([networks.quantities.features(requests[number], rng) for number in left])
            drawn = networks.draw(np.array([counts[number] for number in left]), features, rng, exactly=self.exactly)
            matched = self.matched(drawn, [requests[number] for number in left])
            for number, one in zip(left, matched, strict=True):
                answers[number] = _answer(number, one, requests[number], networks.quantities)
            left = [number for number in left if isinstance(answers[number], Reject)]
        return answers


class Conditional(Answering):
    """Samples of networks that are given the contents; each is for one request."""

    exactly = True

    def matched(self, drawn: Sequence[Drawn], requests: Sequence[Request]) -> list[Drawn]:
        """Return the samples in their order."""
        return list(drawn)


class Unconditional(Answering):
    """Samples of networks that do not know the contents; each answers any request of its contents."""

    exactly = False

    def matched(self, drawn: Sequence[Drawn], requests: Sequence[Request]) -> list[Drawn]:
        """Give each sample to a request of its contents that has none."""
        waiting: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            waiting.setdefault(_formula(request.contents), []).append(number)
        reasons = [one.reason or OTHER_CONTENTS for one in drawn]
        found = [Drawn(reason=reason) for reason in reasons]
        for one in drawn:
            if one.atoms is not None and (numbers := waiting.get(_formula(one.atoms.symbols.formula.count()))):
                found[numbers.pop(0)] = one
        return found


def _formula(contents: Mapping[str, int]) -> str:
    return "".join(f"{symbol}{n}" for symbol, n in sorted(contents.items()) if n)


def _answer(number: int, drawn: Drawn, request: Request, quantities: Quantities) -> Sample | Reject:
    if drawn.atoms is None:
        return Reject(request=number, reason=drawn.reason)
    if name := within_targets(quantities, drawn.properties, request.targets):
        return Reject(request=number, reason=f"the predicted {name} is outside of the target")
    shown = {name: value for name, value in drawn.properties.items() if name in request.targets}
    return Sample(request=number, atoms=drawn.atoms, properties=shown)
