"""Base class of the generators of coordinates and lattice: training, sampling, and files of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.generators.datasets import split
from hybridcsp.generators.joint.conditioning import Conditions
from hybridcsp.generators.joint.data import Array, JointData, Scale
from hybridcsp.generators.joint.initial_states import InitialState, atomic_numbers_of, batches
from hybridcsp.generators.joint.model import JointModel
from hybridcsp.generators.joint.network import Architecture
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.generators.reranking import agreed_first
from hybridcsp.structure.lattice import LatticePoint, decode_lattice_point, diagonal, log_length
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, SYMPREC_ROUGH, in_group
from hybridcsp.structure.validity import is_too_close
from hybridcsp.training.optimisation import AdamWCosine, Optimisation
from hybridcsp.training.settings import chosen_settings
from hybridcsp.training.trainer import Trainer

#: Number of times that a sample is drawn again if its atoms are too close or its space group is wrong.
REDRAWS = 2

# Largest factor between the volume per atom of a sample and the expected one.
_VOLUME_FACTOR = 4.0

# Reasons for rejection are recorded in event logs and must not change.
_OTHER_GROUP = "not near the space group asked for"


@dataclass(frozen=True, kw_only=True, eq=False)
class InitialBatch:
    """Represent the initial states of several samples as tensors.

    Attributes
    ----------
    numbers
        Atomic numbers, 0 where there is no atom, shape ``(batch, n)``.
    positions
        Fractional coordinates, shape ``(batch, n, 3)``.
    lattice
        Noise of the lattice, shape ``(batch, 6)`` or that of the generator's representation.
    lengths
        Components of the logarithm of each crystal's expected size, shape ``(batch, 6)``.
    conditions
        Conditions of the network.
    """

    numbers: torch.Tensor
    positions: torch.Tensor
    lattice: torch.Tensor
    lengths: torch.Tensor
    conditions: Conditions

    @classmethod
    def of(cls, starts: Sequence[InitialState]) -> Self:
        """Return the states of a batch."""
        most = max(len(start.numbers) for start in starts)
        numbers = np.zeros((len(starts), most), dtype=np.int64)
        positions = np.zeros((len(starts), most, 3))
        for row, start in enumerate(starts):
            numbers[row, : len(start.numbers)] = start.numbers
            positions[row, : len(start.numbers)] = start.positions
        return cls(
            numbers=torch.as_tensor(numbers),
            positions=_single(positions),
            lattice=_single([start.lattice for start in starts]),
            lengths=_single([diagonal(log_length(start.numbers)) for start in starts]),
            conditions=Conditions(
                spacegroup=torch.tensor([start.spacegroup or 0 for start in starts]),
                energy=_single([start.energy for start in starts]),
                pressure=_single([start.pressure for start in starts]),
                properties=_single([start.properties for start in starts]),
                guidance=_single([start.guidance for start in starts]),
            ),
        )


class JointGenerator(Generator):
    """Abstract base class of generators that turn noise into coordinates and lattice by a network.

    Parameters
    ----------
    architecture
        Sizes of the network.
    """

    #: Answers to equal requests are sorted, the most promising first.
    best_first = True
    #: Networks read the properties of examples.
    learns_properties = True
    #: Samples can be guided by the properties that are learned.
    guides = True

    #: Shape of the noise of a crystal's lattice.
    lattice_shape: tuple[int, ...] = (6,)
    #: Settings of the training that differ from their defaults.
    training_settings: Mapping[str, Any] = MappingProxyType({})
    #: Optimiser and course of the learning rate.
    optimisation: Optimisation = AdamWCosine()

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.card: Mapping[str, Any] = {}
        self._scale: Scale | None = None
        self._model: JointModel | None = None
        self._properties = LearnedProperties()

    @classmethod
    @abstractmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        """Return an untrained generator with the sizes and settings in a card."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return the entries of a card from which :meth:`from_card` makes the generator."""

    @abstractmethod
    def _model_of(self, architecture: Architecture) -> JointModel:
        """Return a model with random weights, which knows no properties."""

    @abstractmethod
    def _data_of(self, examples: Sequence[Example], scale: Scale | None) -> JointData:
        """Return training data with a given scale or else their own, and with the properties that are learned."""

    @abstractmethod
    def _drawn(
        self, model: JointModel, scale: Scale, batch: InitialBatch, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Turn noise into crystals.

        Parameters
        ----------
        model, scale
            Trained model and the scale of its log-lattices.
        batch
            Initial states.
        rng
            Random generator of further noise.

        Returns
        -------
        tuple
            Fractional coordinates, shape ``(batch, n, 3)``, and log-lattices minus the expected size, shape
            ``(batch, 6)``.
        """

    @property
    def conditions(self) -> frozenset[Condition]:  # type: ignore[override]
        """Supported conditions: space group and energy, and pressure if crystals under pressure were learned."""
        return weights_io.conditions_of(self.card)

    @property
    def targets(self) -> frozenset[str]:  # type: ignore[override]
        """Names of the properties on which samples are conditioned."""
        return self._properties.names

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Train on examples; a tenth of their formulas is held out to determine when to stop.

        The networks learn to be conditioned on the properties of the examples. Before the training, properties that are
        new to them do not change the samples.

        Parameters
        ----------
        examples
            Primitive cells.
        seed
            Seed of the initial weights, the noise and the order of the examples.
        checkpoint
            File in which the state of the training is saved, and from which it is resumed.
        on_epoch
            Called after each epoch.
        **settings
            As :class:`hybridcsp.training.settings.TrainingSettings` has them.

        Raises
        ------
        InputError
            If there are no examples, a setting is unknown, or the checkpoint is of another training.
        """
        chosen = chosen_settings({**self.training_settings, **settings})
        if not examples:
            raise InputError("examples", 0, reason="training needs at least one crystal")
        learned, held = split(examples)
        self._properties = self._properties.extended(examples)
        training = self._data_of(learned, self._scale)
        held_out = self._data_of(held, training.scale) if held else None
        if self._model is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._model = self._model_of(self.architecture)
        self._model.learn_properties(self._properties.n_features)
        trainer = Trainer(
            self._model,
            training,
            held_out,
            chosen,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            optimisation=self.optimisation,
        )
        history = trainer.train()
        self._scale = training.scale
        about = weights_io.describe_training(learned, self.card, held_out=len(held))
        self.card = {
            **about,
            "seed": seed,
            "settings": asdict(chosen),
            "history": history,
            "before": weights_io.card_before(self.card, "properties"),
            **self._properties.card(),
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request.

        The space groups of equal requests without one are drawn by systematic sampling of the learned distribution.
        Their answers are sorted by consensus (:func:`~hybridcsp.generators.reranking.agreed_first`). Samples with atoms
        closer than a problem allows by default, or not in the requested space group, are drawn again up to
        :data:`REDRAWS` times.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._model is None or self._scale is None:
            raise weights_io.not_trained(self.name)
        self._model.eval()
        answers: dict[int, Sample | Reject] = {}
        starts: list[InitialState] = []
        for number, request in enumerate(requests):
            numbers = atomic_numbers_of(request.contents)
            if numbers is None:
                answers[number] = Reject(request=number, reason="not the contents of a cell")
            else:
                starts.append(InitialState.sample(number, request, numbers, rng, self._properties, self.lattice_shape))
        starts = self._model.told(starts, rng)
        for again in range(1 + REDRAWS):
            starts = [start.resampled(rng) for start in starts] if again else starts
            for batch in batches(starts):
                answers |= self._answers(self._model, self._scale, batch, rng)
            drawn = [(start, answers[start.request]) for start in starts]
            starts = [start for start, one in drawn if _should_redraw(one)]
        return agreed_first(requests, [answers[number] for number in range(len(requests))])

    def save(self, folder: Path) -> None:
        """Write weights and card into a folder.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._model is None or self._scale is None:
            raise weights_io.not_saved(self.name)
        about = {
            **self.about(),
            "lattice": {"mean": self._scale.mean.tolist(), "spread": self._scale.spread.tolist()},
        }
        weights_io.save(folder, self.name, self._model.state_dict(), {**self.card, **about})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a generator that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are damaged or belong to another generator.
        """
        tensors, card = weights_io.load(folder, cls.name)
        weights_io.check_sizes(card.get("architecture"), "layers", tensors, folder)
        with weights_io.reading_card(folder):
            generator = cls.from_card(card)
            scale = Scale(
                mean=np.array(card["lattice"]["mean"], dtype=float),
                spread=np.array(card["lattice"]["spread"], dtype=float),
            )
            if not scale.mean.shape == scale.spread.shape == (6,) or not np.isfinite([scale.mean, scale.spread]).all():
                raise ValueError("the card must have mean and spread of six lattice components")
            generator._properties = LearnedProperties.from_card(card)
            needed = weights_io.parameters_of(generator._untrained)
        weights_io.check_parameters(needed, tensors, folder)
        model = generator._untrained()
        weights_io.fill(model, tensors, folder)
        generator._model, generator._scale, generator.card = model.eval(), scale, card
        return generator

    def _untrained(self) -> JointModel:
        """Return a model with random weights for the architecture and the properties that are learned."""
        model = self._model_of(self.architecture)
        model.learn_properties(self._properties.n_features)
        return model

    def _answers(
        self, model: JointModel, scale: Scale, starts: Sequence[InitialState], rng: np.random.Generator
    ) -> dict[int, Sample | Reject]:
        positions, lattices = self._drawn(model, scale, InitialBatch.of(starts), rng)
        answers: dict[int, Sample | Reject] = {}
        for row, start in enumerate(starts):
            point = LatticePoint(
                numbers=start.numbers, positions=positions[row, : len(start.numbers)], lattice=lattices[row]
            )
            answers[start.request] = _answer(start.request, point, start.requested_group)
        return answers


def _should_redraw(answer: Sample | Reject) -> bool:
    if isinstance(answer, Reject):
        return answer.reason == _OTHER_GROUP
    return is_too_close(answer.atoms)


def _answer(request: int, point: LatticePoint, group: int | None) -> Sample | Reject:
    size = np.exp(point.lattice[:3].sum())
    if not (np.isfinite(point.positions).all() and np.isfinite(point.lattice).all()):
        return Reject(request=request, reason="not a number")
    if not 1 / _VOLUME_FACTOR < size < _VOLUME_FACTOR:
        return Reject(request=request, reason="volume far from what is expected")
    atoms: Atoms = decode_lattice_point(point)
    if group is None:
        return Sample(atoms=atoms, request=request)
    for symprec in (SYMPREC_LOOSE, SYMPREC_ROUGH):
        if (symmetric := in_group(atoms, group, symprec)) is not None:
            return Sample(atoms=symmetric, request=request)
    return Reject(request=request, reason=_OTHER_GROUP)


def _single(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)
