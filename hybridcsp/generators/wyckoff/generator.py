"""The ``wyckoff`` generator: training, sampling, and files of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Epoch, Example, Reject, Request, Sample
from hybridcsp.generators.datasets import split
from hybridcsp.generators.growing import GrowingGenerator, PartialCrystal
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.generators.wyckoff.collation import GeometryData, OccupationData, conditions
from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork
from hybridcsp.generators.wyckoff.geometry_statistics import GeometryStatistics
from hybridcsp.generators.wyckoff.growth import build_crystals, complete_orbits
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.sampler import sample_crystals
from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.generators.wyckoff.tokens import CrystalTokens, tokens_of
from hybridcsp.generators.wyckoff.transformer import SIZES, Size
from hybridcsp.structure.symmetry import primitive
from hybridcsp.training.epoch import in_part
from hybridcsp.training.settings import chosen_settings
from hybridcsp.training.trainer import Trainer

#: Names of the two networks.
PARTS = ("occupation", "geometry")

_TokenizedExamples = list[tuple[Example, CrystalTokens]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Training data of both networks.

    Attributes
    ----------
    occupation, geometry
        Training data and held-out data.
    prototypes
        Number of prototypes in the store.
    card
        Counts, and the formulas of the training data.
    """

    occupation: tuple[OccupationData, OccupationData | None]
    geometry: tuple[GeometryData, GeometryData | None]
    prototypes: int
    card: Mapping[str, Any]


class WyckoffGenerator(GrowingGenerator):
    """Autoregressive transformers over space group and Wyckoff positions, and then over cell and coordinates.

    Crystals have exactly the requested contents in a primitive cell of the space group that was drawn; a look-ahead
    excludes positions after which the remaining atoms could not be placed. The first network predicts the occupied
    positions, using retrieved prototypes of similar elements as evidence
    (:mod:`hybridcsp.generators.wyckoff.retrieval`); the second one predicts the cell and the coordinates.

    Of equal requests in one call, the first gets the most probable prototype, and the others get different ones as long
    as these are about as probable (:mod:`hybridcsp.generators.wyckoff.sampler`): requests should be made together.

    Parameters
    ----------
    occupation, geometry
        Sizes of the networks; they apply to untrained generators.

    Attributes
    ----------
    temperature
        Temperature of sampling; 1 is the model's own distribution, lower values give more probable and less diverse
        crystals.
    """

    name = "wyckoff"
    #: Answers to equal requests are sorted, the most promising first.
    best_first = True
    #: Settings of ``fit`` during a search: minima in the store would be reproduced.
    fine_tuning: Mapping[str, Any] = {"remember": False}
    #: Cost of training in quarters of a force call per example.
    effort = 2.0
    #: Networks read the properties of examples.
    learns_properties = True

    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES

    def __init__(
        self, occupation: Size = SIZES["cpu"]["occupation"], geometry: Size = SIZES["cpu"]["geometry"]
    ) -> None:
        self.card: Mapping[str, Any] = {}
        self.temperature = 1.0
        self._sizes = {"occupation": occupation, "geometry": geometry}
        self._networks: tuple[OccupationNetwork, GeometryNetwork] | None = None
        self._positions: WyckoffTables | None = None
        self._memory = PrototypeStore()
        self._properties = LearnedProperties()

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with small networks, which learn 300 crystals in a quarter of the time."""
        return cls(Size(width=64, blocks=2, dropout=0.1), Size(width=64, blocks=2))

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
        longest: int = 100,
        remember: bool = True,
        parts: Sequence[str] = PARTS,
        **settings: Any,
    ) -> None:
        """Train on examples; a tenth of the formulas is held out to determine when to stop.

        The networks learn to be conditioned on the properties of the examples. Before the training, properties that are
        new to them do not change the samples.

        Parameters
        ----------
        examples
            Crystals; those without a consistent symmetry are excluded.
        seed, checkpoint, on_epoch
            As in :class:`hybridcsp.training.trainer.Trainer`.
        longest
            Largest number of sites of a training crystal. Larger crystals are stored as prototypes but not learned;
            they are few and take most of the time.
        remember
            Whether the prototypes of the examples are added to the store.
        parts
            Networks that are trained: ``"occupation"``, ``"geometry"`` or both; the other stays as it is. Substituted
            crystals have new geometries, for example, but the positions of their templates.
        **settings
            Fields of :class:`hybridcsp.training.settings.TrainingSettings`, for both networks: they are
            trained one after the other, and each stops when it no longer improves.

        Raises
        ------
        InputError
            If a setting is unknown or cannot be used, or no example can be learned.
        """
        chosen = chosen_settings(settings, ("longest", "remember", "parts"))
        if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
            raise InputError("parts", parts, f"a list of one or both of {', '.join(PARTS)}")
        if self._networks is None and len(set(parts)) < len(PARTS):
            raise InputError("parts", parts, reason="the other network has random weights; train both first")
        encoded = self.encode(examples, longest=longest, remember=remember)
        if self._networks is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._networks = self._untrained(self._tabulated())
        self._networks[1].widen(encoded.prototypes)
        for network in self._networks:
            network.learn_properties(self._properties.n_features)
        metrics: dict[str, Any] = dict(self.card.get("metrics", {}))
        for part, network, data in (
            ("occupation", self._networks[0], encoded.occupation),
            ("geometry", self._networks[1], encoded.geometry),
        ):
            if part not in parts:
                continue
            own_checkpoint, own_on_epoch = in_part(part, checkpoint, on_epoch)
            trainer = Trainer(
                network,
                data[0],
                data[1],
                chosen,
                seed=seed,
                checkpoint=own_checkpoint,
                on_epoch=own_on_epoch,
            )
            history = trainer.train()
            metrics[part] = min(history, key=lambda epoch: epoch["held_out"]) | {"epochs": len(history)}
        self.card = {
            "sizes": {name: asdict(size) for name, size in self._sizes.items()},
            **encoded.card,
            "seed": seed,
            "settings": asdict(chosen),
            "longest": longest,
            "prototypes_with_mean_geometry": len(self._memory.means),
            "metrics": metrics,
            **self._properties.card(),
        }

    def encode(self, examples: Sequence[Example], *, longest: int = 100, remember: bool = True) -> Encoded:
        """Encode examples as training data of the networks; a tenth of the formulas is held out.

        Parameters
        ----------
        examples, longest, remember
            As for :meth:`fit`.

        Raises
        ------
        InputError
            If no example can be learned.
        """
        positions = self._tabulated()
        self._properties = self._properties.extended(examples)
        learned, held = (_tokenized(part, positions) for part in split(examples))
        if not _up_to(longest, learned):
            raise InputError(
                "examples",
                len(examples),
                reason=f"at least one example must have a consistent symmetry and at most {longest} sites",
            )
        if remember:  # held-out examples are never stored
            self._memory.add(sequence.occupation for _, sequence in learned)
            means = GeometryStatistics.of((sequence for _, sequence in learned), self._memory, positions)
            self._memory.means = self._memory.means.joined(means)
        remembered = [example for example, _ in learned]
        learned, held = (_up_to(longest, part) for part in (learned, held))
        return Encoded(
            occupation=(self._occupations(learned), self._occupations(held) if held else None),
            geometry=(self._geometries(learned, True), self._geometries(held, False) if held else None),
            prototypes=self._memory.n_prototypes,
            card=weights_io.describe_training(
                remembered, self.card, crystals_learned=len(learned), held_out_crystals=len(held)
            ),
        )

    def add_mean_geometries(self, crystals: Iterable[Atoms]) -> int:
        """Keep the mean geometries of crystals of stored prototypes beside those that are there.

        A prototype needs at least two formulas with similar geometries
        (:mod:`hybridcsp.generators.wyckoff.geometry_statistics`). The networks and the stored prototypes do not change.

        Parameters
        ----------
        crystals
            Crystals, such as relaxed ones with substituted elements; those of other prototypes are left out.

        Returns
        -------
        int
            Number of prototypes with a mean geometry.
        """
        positions = self._tabulated()
        tokens = (tokens_of(primitive(atoms), positions) for atoms in crystals)
        means = GeometryStatistics.of((one for one in tokens if one is not None), self._memory, positions)
        self._memory.means = self._memory.means.joined(means)
        return len(self._memory.means)

    def tables(self) -> dict[str, NDArray[np.generic]]:
        """Return the Wyckoff positions and the stored prototypes as arrays by their names in the file of weights."""
        own = {
            "positions": self._tabulated().arrays(),
            "memory": self._memory.arrays(),
            "means": self._memory.means.arrays(),
        }
        return {f"{part}.{name}": array for part, arrays in own.items() for name, array in arrays.items()}

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request.

        Raises
        ------
        InputError
            If the generator is not trained, or contents have unknown elements.
        """
        (occupation, geometry), positions = self._trained()
        answers: list[Sample | Reject] = sample_crystals(
            occupation, geometry, positions, self._memory, requests, rng, self.temperature, self._properties
        )
        return answers

    def complete(self, partial: Sequence[PartialCrystal], rng: np.random.Generator) -> list[PartialCrystal | None]:
        """Draw the remaining orbits of partial crystals from the first network.

        Raises
        ------
        InputError
            If the generator is not trained, or contents have unknown elements.
        """
        (network, _), positions = self._trained()
        found: list[PartialCrystal | None] = complete_orbits(
            network, positions, self._memory, self._properties, partial, rng, self.temperature
        )
        return found

    def build(self, complete: Sequence[PartialCrystal], rng: np.random.Generator) -> list[Atoms | None]:
        """Draw cells and coordinates of complete crystals from the second network.

        Raises
        ------
        InputError
            If the generator is not trained, or contents have unknown elements.
        """
        (_, network), positions = self._trained()
        found: list[Atoms | None] = build_crystals(
            network, positions, self._memory, self._properties, complete, rng, self.temperature
        )
        return found

    def _trained(self) -> tuple[tuple[OccupationNetwork, GeometryNetwork], WyckoffTables]:
        if self._networks is None or self._positions is None:
            raise weights_io.not_trained(self.name)
        return self._networks, self._positions

    def save(self, folder: Path) -> None:
        """Write weights, stored prototypes and tables (safetensors) and the card (JSON) into a folder."""
        if self._networks is None or self._positions is None:
            raise weights_io.not_saved(self.name)
        tensors = {name: torch.as_tensor(array) for name, array in self.tables().items()}
        for part, network in zip(self._sizes, self._networks, strict=True):
            tensors |= {f"{part}.{name}": tensor for name, tensor in network.state_dict().items()}
        weights_io.save(folder, self.name, tensors, self.card)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a generator that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are missing, damaged or those of another generator.
        """
        tensors, card = weights_io.load(folder, cls.name)

        def part(name: str) -> dict[str, torch.Tensor]:
            return {n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")}

        try:
            for name, size in card["sizes"].items():
                weights_io.check_sizes(size, "blocks", part(name), folder)
            generator = cls(**{name: Size(**size) for name, size in card["sizes"].items()})
            positions = WyckoffTables.from_arrays(**{n: t.numpy() for n, t in part("positions").items()})
            generator._positions = positions
            generator._memory = PrototypeStore.from_arrays({n: t.numpy() for n, t in part("memory").items()})
            if means := part("means"):  # weights of earlier versions have none
                generator._memory.means = GeometryStatistics.from_arrays({n: t.numpy() for n, t in means.items()})
            needed = weights_io.parameters_of(lambda: torch.nn.ModuleList(generator._untrained(positions)))
            there = {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in generator._sizes}
            weights_io.check_parameters(needed, there, folder)
            generator._networks = generator._untrained(positions)
            generator._properties = LearnedProperties.from_card(card)
            for network in generator._networks:
                network.learn_properties(generator._properties.n_features)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "weights", folder, reason=f"the weights are incomplete: {type(error).__name__}: {error}"
            ) from error
        for name, network in zip(generator._sizes, generator._networks, strict=True):
            weights_io.fill(network.eval(), part(name), folder)
        generator.card = card
        return generator

    def _tabulated(self) -> WyckoffTables:
        if self._positions is None:
            self._positions = WyckoffTables.tabulate()
        return self._positions

    def _untrained(self, positions: WyckoffTables) -> tuple[OccupationNetwork, GeometryNetwork]:
        geometry = GeometryNetwork(positions, self._sizes["geometry"], self._memory.n_prototypes)
        return OccupationNetwork(positions, self._sizes["occupation"]), geometry

    def _occupations(self, part: _TokenizedExamples) -> OccupationData:
        assert self._positions is not None
        properties = self._properties.table([example for example, _ in part])
        return OccupationData.from_tokens(*_columns(part), self._memory, self._positions, properties)

    def _geometries(self, part: _TokenizedExamples, learning: bool) -> GeometryData:
        assert self._positions is not None
        properties = self._properties.table([example for example, _ in part])
        return GeometryData.from_tokens(*_columns(part), self._memory, self._positions, properties, learning=learning)


def _columns(part: _TokenizedExamples) -> tuple[list[CrystalTokens], list[float], NDArray[np.float32]]:
    examples = [example for example, _ in part]
    asked = conditions([e.energy_quantile for e in examples], [e.pressure_gpa for e in examples])
    return [sequence for _, sequence in part], [example.weight for example in examples], asked


def _tokenized(examples: Iterable[Example], positions: WyckoffTables) -> _TokenizedExamples:
    """Return examples with their tokens; those without a consistent symmetry are excluded."""
    found = ((example, tokens_of(example.atoms, positions)) for example in examples)
    return [(example, sequence) for example, sequence in found if sequence is not None]


def _up_to(longest: int, part: _TokenizedExamples) -> _TokenizedExamples:
    return [(example, sequence) for example, sequence in part if len(sequence.slots) <= longest]
