"""The ``ftcp`` generator: training, and files of weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.generators.datasets import split
from hybridcsp.generators.ftcp.configurations import CONFIGURATIONS
from hybridcsp.generators.ftcp.data import (
    FourierCrystals,
    FourierData,
    Scale,
    check_learnable,
    names_of_properties,
    property_table,
    scaled_properties,
)
from hybridcsp.generators.ftcp.known import KnownCrystals
from hybridcsp.generators.ftcp.network import SIZES, FourierAutoencoder, FtcpArchitecture
from hybridcsp.generators.ftcp.sampling import TrainedModel, sample
from hybridcsp.structure.representations.base import BeyondLimitsError, DecodingError
from hybridcsp.training.configurations import CORRECTED
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.trainer import Trainer

_NETWORK, _KNOWN = "network.", "known."

_SIZES = frozenset(field.name for field in fields(FtcpArchitecture))
_LIMITS = frozenset({"elements", "sites"})


class FtcpGenerator(Generator):
    """Variational autoencoder of Fourier-transformed crystal properties.

    Crystals are matrices of their elements, cell and sites, and of their elements' properties in reciprocal space
    (:mod:`hybridcsp.structure.representations.fourier`). Samples are decoded from latent vectors of known crystals plus
    noise, and a branch of the network predicts properties (Ren et al., Matter 5, 314 (2022),
    doi:10.1016/j.matt.2021.11.032).

    The configuration *published* has the authors' representation, loss, optimiser and sizes. Samples are drawn around
    known crystals of the contents, or else of the most similar elements, and discarded if they have other contents.
    With wanted values of properties, they are drawn around the known crystals whose values are nearest to these. Of the
    authors' training it leaves out the reduction of the learning rate where the loss stagnates.

    The configuration *corrected*, the default, has structure factors in place of projections without the complex
    exponential, Niggli-reduced axes and a fixed order of the sites, a reconstruction error in which the entries that
    crystals are decoded from count as much as all others, and a divergence that counts. Samples are drawn around known
    structure types of the requested elements, and read so that they have the contents. With wanted values, latent
    vectors follow the gradient of the predicted ones, and only crystals with wanted predicted values are accepted.

    Parameters
    ----------
    configuration
        ``"corrected"`` or ``"published"``.
    architecture
        Sizes of the network; by default those of the configuration.
    elements, sites
        Largest numbers of elements and of sites of a crystal.

    Raises
    ------
    UnknownNameError
        If there is no such configuration.
    """

    name = "ftcp"
    #: Answers to equal requests are sorted, the most promising first.
    best_first = True
    reconstructs = True
    learns_properties = True
    #: Cost of training in quarters of a force call per example.
    effort = 0.5
    #: Settings of ``fit`` during a search: samples around known minima would be known minima.
    fine_tuning: Mapping[str, Any] = {"remember": False}
    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"architecture": one} for name, one in SIZES.items()
    }

    def __init__(
        self,
        configuration: str = CORRECTED,
        architecture: FtcpArchitecture | None = None,
        *,
        elements: int = 3,
        sites: int = 20,
    ) -> None:
        if configuration not in CONFIGURATIONS:
            raise UnknownNameError("configuration", configuration, list(CONFIGURATIONS))
        self.configuration = configuration
        self.architecture = architecture or CONFIGURATIONS[configuration].architecture
        self.elements, self.sites = elements, sites
        self.card: Mapping[str, Any] = {}
        self._model: TrainedModel | None = None

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with a small network."""
        return cls(architecture=FtcpArchitecture(channels=32, hidden=128, latent=32, branch=32))

    @property
    def targets(self) -> frozenset[str]:  # type: ignore[override]
        """Names of the properties that the network has learned."""
        return frozenset(self._model.scale.properties if self._model else ())

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        remember: bool = True,
        **settings: Any,
    ) -> None:
        """Train on examples; a tenth of their formulas is held out to determine when to stop.

        The first training learns all properties that the examples have; a property may be unknown for some of them.
        Later ones learn the same properties.

        Parameters
        ----------
        examples
            Crystals; those beyond the limits of the representation are left out and counted in the card.
        seed, checkpoint, on_epoch
            As in :class:`hybridcsp.training.trainer.Trainer`.
        remember
            Whether samples are drawn around the examples, too, if there are known crystals already.
        **settings
            Fields of :class:`hybridcsp.training.settings.TrainingSettings`. In the first training also ``elements`` and
            ``sites``, the largest numbers of them, and single sizes of
            :class:`~hybridcsp.generators.ftcp.network.FtcpArchitecture`.

        Raises
        ------
        InputError
            If a setting is unknown, no example can be learned, or a property cannot be learned.
        """
        components = CONFIGURATIONS[self.configuration]
        chosen = TrainingSettings(**{**components.settings, **self._adapted(settings)})
        usable, left_out = self._within_limits(examples)
        learned, held = split(usable)
        names = self._names(learned)
        crystals = self._crystals(learned)
        table = property_table(learned, names)
        if self._model is None:
            check_learnable(table)
        scale = self._model.scale if self._model else Scale.of(crystals, table)
        training = FourierData(crystals, _weights(learned), table, scale)
        held_out = None
        if held:
            held_out = FourierData(self._crystals(held), _weights(held), property_table(held, names), scale)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._model.network if self._model else self._untrained(len(names))
        trainer = Trainer(
            network,
            training,
            held_out,
            chosen,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            optimisation=components.optimisation,
        )
        history = trainer.train()
        former = self._model.known if self._model else KnownCrystals.of([], np.zeros((0, len(names))))
        if remember or not len(former):
            values = scaled_properties(scale, table, len(learned))
            known = former.joined(KnownCrystals.of([example.atoms for example in learned], values))
        else:
            known = former
        self._model = self._trained(network.eval(), scale, known)
        about = weights_io.describe_training(learned, self.card, held_out=len(held))
        self.card = {
            **about,
            "configuration": self.configuration,
            **({"properties": self.card.get("properties") or _described(table)} if names else {}),
            "left_out": dict(left_out),
            "seed": seed,
            "settings": asdict(chosen),
            "history": history,
            "before": weights_io.card_before(self.card, "properties", "scale"),
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request (:func:`hybridcsp.generators.ftcp.sampling.sample`).

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        return sample(self._required(), requests, rng)

    def reconstruct(self, crystals: Sequence[Atoms]) -> list[Atoms | DecodingError]:
        """Return crystals that are decoded from the means of the latent vectors of crystals, without any condition."""
        model = self._required()
        found: list[Atoms | DecodingError] = []
        for atoms in crystals:
            try:
                if limit := model.representation.limit(atoms):
                    raise BeyondLimitsError(limit)
                (matrix,) = model.decode(model.encode([atoms]))
                found.append(model.representation.decode(matrix))
            except DecodingError as error:
                found.append(error)
        return found

    def save(self, folder: Path) -> None:
        """Write the weights, the known crystals, and the card into a folder.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        model = self._required()
        tensors = {_NETWORK + name: value for name, value in model.network.state_dict().items()}
        tensors |= {_KNOWN + name: value for name, value in model.known.tensors().items()}
        about = {
            "configuration": self.configuration,
            "architecture": asdict(self.architecture),
            "limits": {"elements": self.elements, "sites": self.sites},
            "scale": model.scale.to_card(),
        }
        weights_io.save(folder, self.name, tensors, {**self.card, **about})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a generator that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are damaged or belong to another generator.
        """
        tensors, card = weights_io.load(folder, cls.name)
        parts: dict[str, dict[str, torch.Tensor]] = {_NETWORK: {}, _KNOWN: {}}
        for key, value in tensors.items():
            part, dot, name = key.partition(".")
            parts.setdefault(part + dot, {})[name] = value
        weights_io.check_sizes(card.get("architecture"), "", parts[_NETWORK], folder)
        weights_io.check_sizes(card.get("limits"), "", parts[_NETWORK], folder)
        with weights_io.reading_card(folder):
            limits = {name: int(card["limits"][name]) for name in _LIMITS}
            generator = cls(card["configuration"], FtcpArchitecture(**card["architecture"]), **limits)
            scale, known = Scale.from_card(card["scale"]), KnownCrystals.from_tensors(parts[_KNOWN])
            if known.properties.shape[1:] != (len(scale.properties),):
                raise ValueError("the known crystals must have the properties of the scale")
            needed = weights_io.parameters_of(lambda: generator._untrained(len(scale.properties)))
            weights_io.check_parameters(needed, parts[_NETWORK], folder)
            network = generator._untrained(len(scale.properties))
            model = generator._trained(network, scale, known)
            if len(scale.low) != model.representation.shape[0]:
                raise ValueError(f"the scale must have {model.representation.shape[0]} rows")
        weights_io.fill(network, parts[_NETWORK], folder)
        network.eval()
        generator._model, generator.card = model, card
        return generator

    def _required(self) -> TrainedModel:
        if self._model is None:
            raise weights_io.not_trained(self.name)
        return self._model

    def _trained(self, network: FourierAutoencoder, scale: Scale, known: KnownCrystals) -> TrainedModel:
        components = CONFIGURATIONS[self.configuration]
        return TrainedModel(
            network=network,
            representation=components.representation(self.elements, self.sites),
            scale=scale,
            known=known,
            configuration=components,
        )

    def _untrained(self, properties: int) -> FourierAutoencoder:
        components = CONFIGURATIONS[self.configuration]
        representation = components.representation(self.elements, self.sites)
        return components.network(representation, properties, self.architecture)

    def _adapted(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Set the sizes and limits among settings, and return the others."""
        known = {field.name for field in fields(TrainingSettings)}
        settings = dict(settings)
        own = {name: value for name, value in settings.items() if name in _SIZES | _LIMITS}
        for name in settings:
            if name not in known | own.keys():
                raise UnknownNameError("setting", name, known | _SIZES | _LIMITS | {"remember"})
        for name, value in own.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(name, value, "a whole number above 0")
            now = getattr(self.architecture if name in _SIZES else self, name)
            if self._model is not None and value != now:
                reason = f"the trained network has {now}; train a new one (by name) to change it"
                raise InputError(name, value, reason=reason)
        self.architecture = replace(self.architecture, **{name: value for name, value in own.items() if name in _SIZES})
        self.elements, self.sites = own.get("elements", self.elements), own.get("sites", self.sites)
        if self.architecture.channels % 4:
            raise InputError("channels", self.architecture.channels, "a multiple of 4")
        return {name: value for name, value in settings.items() if name not in own}

    def _names(self, examples: Sequence[Example]) -> list[str]:
        """Return the names of the properties that are learned."""
        found = names_of_properties(examples)
        if self._model is None:
            return found
        names = list(self._model.scale.properties)
        for name in found:
            if name not in names:
                learned = ", ".join(names) or "no property"
                reason = f"the trained network has learned {learned}; train a new one (by name) to learn others"
                raise InputError("property", name, reason=reason)
        return names

    def _within_limits(self, examples: Sequence[Example]) -> tuple[list[Example], Counter[str]]:
        """Return the examples that have a matrix, and the numbers of the others by reason."""
        representation = CONFIGURATIONS[self.configuration].representation(self.elements, self.sites)
        left_out: Counter[str] = Counter()
        usable = []
        for example in examples:
            if limit := representation.limit(example.atoms):
                left_out[f"more than {self.elements} elements or {self.sites} atoms" if "more" in limit else limit] += 1
            else:
                usable.append(example)
        if not usable:
            reason = f"none of them has at most {self.elements} elements and {self.sites} atoms"
            raise InputError("examples", len(examples), reason=f"training needs at least one crystal, and {reason}")
        return usable, left_out

    def _crystals(self, examples: Sequence[Example]) -> FourierCrystals:
        components = CONFIGURATIONS[self.configuration]
        representation = components.representation(self.elements, self.sites)
        return FourierCrystals(representation, [components.prepare(example.atoms) for example in examples])


def _described(properties: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return the number of crystals with each property, and the smallest and the largest value."""
    return {
        name: {
            "crystals": int(np.isfinite(values).sum()),
            "smallest": float(np.nanmin(values)),
            "largest": float(np.nanmax(values)),
        }
        for name, values in properties.items()
    }


def _weights(examples: Sequence[Example]) -> NDArray[np.float64]:
    return np.array([example.weight for example in examples])


FtcpGenerator.configurations = MappingProxyType({name: partial(FtcpGenerator, name) for name in CONFIGURATIONS})
