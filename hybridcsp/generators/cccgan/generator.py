"""The ``cccgan`` generator: training, sampling, and files of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.generators.cccgan.clouds import CloudData, Description, RandomDescriptions, ReducedCells
from hybridcsp.generators.cccgan.model import CloudModel, Sizes
from hybridcsp.generators.cccgan.pair_networks import PairNetworks
from hybridcsp.generators.cccgan.slot_networks import SlotNetworks
from hybridcsp.generators.redrawing import draw_repeatedly
from hybridcsp.generators.sample_measures import SampleMeasures
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.point_cloud import InventedAtoms, OccupiedSlots, PointCloud, SlotReading
from hybridcsp.structure.validity import is_finite_crystal
from hybridcsp.training.adversarial import AdversarialAdam, AdversarialTrainer
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.held_out import formula_of, is_held_out
from hybridcsp.training.optimisation import Optimisation
from hybridcsp.training.settings import chosen_settings, untrained_width
from hybridcsp.utils.checks import whole_number

#: Number of times that a rejected sample, or one with atoms too close, is drawn again.
REDRAWS = 5
#: Largest number of samples that are drawn at once.
TOGETHER = 256
# Largest number of slots of an element in files of weights.
_MOST_SLOTS = 1000

# Reasons for rejection are recorded in event logs and must not change.
_OTHER_CONTENTS = "other contents than requested"


@dataclass(frozen=True, kw_only=True)
class Design:
    """Represent the components of a configuration.

    Attributes
    ----------
    networks
        Networks that compete.
    description
        How crystals are described for training.
    reading
        How the atoms of an element are read from a point cloud.
    sizes
        Sizes of the networks.
    optimisation
        Optimiser and course of the learning rates.
    settings
        Settings of the training that differ from those of all trainings.
    """

    networks: type[CloudModel]
    description: Description
    reading: SlotReading
    sizes: Sizes
    optimisation: Optimisation
    settings: Mapping[str, Any]


_COMMON = {"batch_size": 32, "patience": 100, "clip": 1e4}
_DESIGNS = {
    CORRECTED: Design(
        networks=PairNetworks,
        description=ReducedCells(),
        reading=OccupiedSlots(),
        sizes=Sizes(width=48, noise=32),
        optimisation=AdversarialAdam(betas=(0.0, 0.9)),
        settings={**_COMMON, "epochs": 200, "learning_rate": 5e-4, "averaging": 0.995},
    ),
    PUBLISHED: Design(
        networks=SlotNetworks,
        description=RandomDescriptions(),
        reading=InventedAtoms(),
        sizes=Sizes(width=32, noise=512),
        optimisation=AdversarialAdam(betas=(0.5, 0.999), factors={"head": 0.5}, decay=0.95, epochs=10),
        settings={**_COMMON, "epochs": 500, "learning_rate": 5e-5, "averaging": 0.0},
    ),
}


class CompositionConditionedGAN(Generator):
    """Generative adversarial network of the point clouds of one chemical system, with contents as its condition.

    The composition-conditioned crystal GAN of Kim, Noh, Gu, Aspuru-Guzik and Jung, ACS Cent. Sci. 6, 1412 (2020),
    doi:10.1021/acscentsci.0c00426. It knows the elements of its training data, and for each element as many atoms as
    the crystal with most of them has; other requests are rejected.

    The configuration *published* describes crystals with random origins, axes and slots; draws contents from all
    combinations; pools the atoms of an element; reads from the coordinates, by a Q head, which slots are occupied; and
    places an atom at the origin for an element without any. Samples with other contents than requested are rejected.

    The configuration *corrected*, the default, describes crystals by reduced cells, has networks that see the distances
    of all pairs of atoms across the boundaries of the cell, and sets the numbers of atoms, which the critic knows.

    Parameters
    ----------
    configuration
        Name of the configuration.
    sizes
        Sizes of the networks; by default those with which a processor can be used. The paper has a width of 128.
    """

    name = "cccgan"
    #: Settings of ``fit`` during a search, whose minima are few.
    fine_tuning: Mapping[str, Any] = MappingProxyType({"per_composition": 1})

    def __init__(self, configuration: str = CORRECTED, sizes: Sizes | None = None) -> None:
        self.configuration = configuration
        self._design = _DESIGNS[configuration]
        self.sizes = sizes or self._design.sizes
        self.card: Mapping[str, Any] = {}
        self._cloud: PointCloud | None = None
        self._model: CloudModel | None = None

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with a small network."""
        return cls(sizes=Sizes(width=32, noise=16))

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        per_composition: int = 100,
        width: int | None = None,
        **settings: Any,
    ) -> None:
        """Train on the crystals of one chemical system; a tenth of their formulas is not learned.

        Parameters
        ----------
        examples
            Crystals. Those of subsystems are left out: crystals must have all elements.
        seed
            Seed of the initial weights, of descriptions and noise, and of the order of the crystals.
        checkpoint
            File in which the state of the training is saved, and from which it is resumed.
        on_epoch
            Called after each epoch. Among the losses are measures of samples with the contents of the crystals, those
            of the formulas that are not learned included (:mod:`hybridcsp.generators.sample_measures`).
        per_composition
            Number of point clouds of each composition in an epoch, if it does not have more crystals.
        width
            Width of the networks of an untrained generator; ``None`` for the configuration's.
        **settings
            As :class:`hybridcsp.training.settings.TrainingSettings` has them.

        Raises
        ------
        InputError
            If no example can be learned, a setting is unknown, or the checkpoint is of another training.
        """
        chosen = chosen_settings({**self._design.settings, **settings}, {"per_composition", "width"})
        whole_number("per_composition", per_composition, "a whole number from 1")
        if width is not None:
            self.sizes = replace(self.sizes, width=untrained_width(width, trained=self._model is not None))
        cloud = self._cloud or _point_cloud(examples, self._design.reading)
        learnable = [example for example in examples if not cloud.limit(example.atoms)]
        learned = [e for e in learnable if not is_held_out(formula_of(e.atoms))] or learnable
        if not learned:
            elements = " and ".join(cloud.slots)
            raise InputError("examples", len(examples), f"a set of crystals with all of the elements {elements}")
        description = self._design.description
        data = CloudData.from_examples(learned, cloud, description, per_composition, seed)
        if self._model is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._model = self._design.networks(cloud.slots, self.sizes)
        self._cloud = cloud
        measures = SampleMeasures([example.atoms for example in learnable])

        def measure(model: torch.nn.Module, rng: np.random.Generator) -> dict[str, float]:
            assert isinstance(model, CloudModel)
            counts = [self._counts(atoms.symbols.formula.count()) for atoms in measures.crystals]
            drawn = self._draw(model, np.array(counts), rng)
            return measures.of([atoms if isinstance(atoms, Atoms) else None for atoms in drawn])

        trainer = AdversarialTrainer(
            self._model,
            data,
            chosen,
            measure,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            optimisation=self._design.optimisation,
        )
        history = trainer.train()
        self.card = {
            **weights_io.describe_training(learned, self.card, left_out=len(examples) - len(learnable)),
            "seed": seed,
            "settings": {**asdict(chosen), "per_composition": per_composition},
            "history": history,
            "before": weights_io.card_before(self.card),
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request; those that are rejected or too dense are drawn again several times.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._model is None or self._cloud is None:
            raise weights_io.not_trained(self.name)
        answers: dict[int, Sample | Reject] = {}
        waiting: list[tuple[int, list[int]]] = []
        for number, request in enumerate(requests):
            if reason := self._limit(request.contents):
                answers[number] = Reject(request=number, reason=reason)
            else:
                waiting.append((number, self._counts(request.contents)))
        model = self._model.eval()

        def draw(counts: list[list[int]]) -> list[Atoms | str]:
            parts = (np.array(counts[start : start + TOGETHER]) for start in range(0, len(counts), TOGETHER))
            return [found for part in parts for found in self._draw(model, part, rng)]

        answers |= draw_repeatedly(waiting, draw, 1 + REDRAWS)
        return [answers[number] for number in range(len(requests))]

    def save(self, folder: Path) -> None:
        """Write weights and card into a folder.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._model is None or self._cloud is None:
            raise weights_io.not_saved(self.name)
        about = {
            "configuration": self.configuration,
            "sizes": asdict(self.sizes),
            "slots": self._cloud.slots,
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
        with weights_io.reading_card(folder):
            slots, sizes = dict(card["slots"]), Sizes(**card["sizes"])
            weights_io.check_sizes({"width": sizes.width}, "layers", tensors, folder)
            if not slots or not all(
                key in atomic_numbers and isinstance(n, int) and 1 <= n <= _MOST_SLOTS for key, n in slots.items()
            ):
                raise ValueError(f"slots must be numbers of atoms by element, not {slots!r:.200}")
            if not isinstance(sizes.noise, int) or not 1 <= sizes.noise <= sum(t.numel() for t in tensors.values()):
                raise ValueError(f"the noise must be a number of random numbers, not {sizes.noise!r:.200}")
            generator = cls(card["configuration"], sizes)
            needed = weights_io.parameters_of(lambda: generator._design.networks(slots, sizes))
            weights_io.check_parameters(needed, tensors, folder)
            model = generator._design.networks(slots, sizes)
        weights_io.fill(model, tensors, folder)
        generator._model, generator.card = model.eval(), card
        generator._cloud = PointCloud(slots, generator._design.reading)
        return generator

    def _limit(self, contents: Mapping[str, int]) -> str:
        """Return why crystals of these contents cannot be sampled, or an empty text."""
        assert self._cloud is not None
        slots = self._cloud.slots
        if set(contents) != set(slots) or min(contents.values()) < 1:
            *others, last = slots
            known = f"{', '.join(others)} and {last}" if others else last
            return f"the elements must be those of the training data, {known}"
        for element, count in contents.items():
            if count > slots[element]:
                return f"more atoms of {element} than the {slots[element]} of the training data"
        return ""

    def _counts(self, contents: Mapping[str, int]) -> list[int]:
        assert self._cloud is not None
        return [contents[element] for element in self._cloud.slots]

    @torch.no_grad()
    def _draw(self, model: CloudModel, counts: np.ndarray, rng: np.random.Generator) -> list[Atoms | str]:
        """Return one crystal for each row of numbers of atoms, or the reason why there is none."""
        assert self._cloud is not None
        device = next(model.parameters()).device
        wanted = torch.as_tensor(counts, device=device)
        noise = torch.as_tensor(rng.standard_normal((len(counts), model.n_noise)), dtype=torch.float32, device=device)
        clouds = model.generate(noise, wanted)
        occupied = model.occupied(clouds, wanted).cpu().numpy()
        drawn: list[Atoms | str] = []
        for row, cloud in enumerate(clouds.double().cpu().numpy()):
            try:
                atoms = self._cloud.decode_slots(cloud, occupied[row])
            except DecodingError as error:
                drawn.append(error.reason)
                continue
            found = atoms.symbols.formula.count()
            if [found.get(element, 0) for element in self._cloud.slots] != list(counts[row]):
                drawn.append(_OTHER_CONTENTS)
            elif not is_finite_crystal(atoms):
                drawn.append("the cell has no volume")
            else:
                drawn.append(atoms)
        return drawn


def corrected() -> CompositionConditionedGAN:
    """Return an untrained generator that sees pairs of atoms and sets the contents."""
    return CompositionConditionedGAN(CORRECTED)


def published() -> CompositionConditionedGAN:
    """Return an untrained generator that works as published, a quarter as wide."""
    return CompositionConditionedGAN(PUBLISHED)


CompositionConditionedGAN.configurations = MappingProxyType({CORRECTED: corrected, PUBLISHED: published})


def _point_cloud(examples: Sequence[Example], reading: SlotReading) -> PointCloud:
    """Return the representation of the crystals with all elements that occur in the examples."""
    if not examples:
        raise InputError("examples", 0, reason="training needs at least one crystal")
    elements = {symbol for example in examples for symbol in example.atoms.get_chemical_symbols()}
    complete = [example.atoms for example in examples if set(example.atoms.get_chemical_symbols()) == elements]
    if not complete:
        shown = ", ".join(sorted(elements, key=atomic_numbers.__getitem__))
        reason = (
            f"the crystals must belong to one chemical system, and none has all of their elements ({shown:.200}); "
            "hybridcsp dataset substitute makes crystals of a chemical system"
        )
        raise InputError("examples", len(examples), reason=reason)
    return PointCloud.of(complete, reading)
