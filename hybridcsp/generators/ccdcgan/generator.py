"""The ``ccdcgan`` generator: training, sampling, and files of weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.generators.ccdcgan.answering import TrainedNetworks
from hybridcsp.generators.ccdcgan.code_data import CodeData, PropertyData
from hybridcsp.generators.ccdcgan.designs import CELLS, CONSTRAINT, DESIGNS, NETWORKS, SITES
from hybridcsp.generators.ccdcgan.model import CodeModel, Shape
from hybridcsp.generators.ccdcgan.quantities import ENERGY, Quantities, with_predictions
from hybridcsp.generators.ccdcgan.sizes import SCALES, Scale, Sizes
from hybridcsp.generators.images.coder import ImageCoder
from hybridcsp.generators.images.courses import Training
from hybridcsp.generators.images.crystal_images import encode_images
from hybridcsp.generators.images.loading import networks_of_weights, sizes_of_card
from hybridcsp.generators.images.training_set import ImageTrainingSet, elements_of
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.generators.sample_measures import SampleMeasures
from hybridcsp.predictors.loading import open_predictor
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.structure.representations.voxels import Voxels
from hybridcsp.training.adversarial import AdversarialTrainer, Measure
from hybridcsp.training.configurations import CORRECTED
from hybridcsp.training.epoch import in_part
from hybridcsp.training.settings import chosen_settings
from hybridcsp.utils.checks import whole_number

#: Number of steps of an epoch of the networks that compete, unless the training set has more crystals.
STEPS = 500


class ConstrainedGAN(Generator):
    """Adversarial networks for the codes of voxel images of one chemical system, constrained by properties.

    The constrained crystals deep convolutional GAN (CCDCGAN) of Long et al., npj Comput. Mater. 7, 66 (2021),
    doi:10.1038/s41524-021-00526-4. A crystal is an image of its cell and one of the sites of each element. Two
    autoencoders map images to short codes. A network learns to predict properties from the codes and is then frozen:
    it constrains the generator of two networks that compete about codes. Samples are decoded to images, and their peaks
    to atoms. Crystals without the wanted contents, or with a predicted property outside of a target, are drawn again up
    to :data:`~hybridcsp.generators.ccdcgan.answering.DRAWS` times and then rejected with a reason.

    The configuration *published* has the authors' images, networks, losses and optimisers, from their code. The codes
    of a crystal are a two-dimensional crystal graph, whose size follows from the number of elements; deep convolutional
    networks compete about these graphs. They know no contents, so that the samples that are drawn for several requests
    answer those whose contents they happen to have. The constraint minimises one property, in the paper the formation
    energy. Voxels with the largest value among their neighbours are atoms, the cell is read from single voxels, and
    atoms may be 0.5 Å apart.

    The configuration *corrected*, the default, has sizes that two processor cores should train within an hour, by the
    duration of a step. Images are drawn of reduced cells and in random orientations, their networks are normalised, and
    the error has a gradient everywhere. Dense networks, which impose no order on the numbers of a code, are given
    contents and wanted values of any number of properties; the constraint draws the samples to these values. The cell
    is fitted to all voxels, peaks lie between voxels, and the wanted contents decide which of them are atoms.

    Parameters
    ----------
    configuration
        Name of the configuration.
    scale
        Sizes of images and networks of an untrained generator; by default those of the configuration.
    """

    name = "ccdcgan"
    caches_samples = True
    #: Settings of ``fit`` during a search, which leaves the autoencoders and the constraint as they are.
    fine_tuning: Mapping[str, Any] = MappingProxyType({"images": False, "steps": 1})
    reconstructs = True
    learns_properties = True
    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"scale": scale} for name, scale in SCALES.items()}

    def __init__(self, configuration: str = CORRECTED, scale: Scale | None = None) -> None:
        self.card: Mapping[str, Any] = {}
        self.configuration = configuration
        self._design = DESIGNS[configuration]
        self._scale = scale or SCALES[self._design.scale]
        self._elements: Sequence[int] = []
        self._networks: torch.nn.ModuleDict | None = None
        self._quantities = Quantities(LearnedProperties(), self._design.units)

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with small images and networks."""
        grid = VoxelGrid(sites=16, cell=16, box=8.0, width=0.55, atoms=20, edge=8.0)
        return cls(scale=Scale(grid=grid, sizes=Sizes(site_code=80, dense=128, noise=32)))

    @property
    def conditions(self) -> frozenset[Condition]:  # type: ignore[override]
        """Supported conditions: the energy, if the constraint has learned energy quantiles."""
        return frozenset({Condition.ENERGY}) if ENERGY in self._quantities.names else frozenset()

    @property
    def targets(self) -> frozenset[str]:  # type: ignore[override]
        """Names of the properties that the constraint has learned."""
        return frozenset(self._quantities.names) - {ENERGY}

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        images: bool = True,
        steps: int = STEPS,
        strength: float | None = None,
        predictor: str | None = None,
        **settings: Any,
    ) -> None:
        """Train on crystals of one chemical system; a tenth of their formulas is not learned.

        Parameters
        ----------
        examples
            Crystals; those beyond the limits of the images are excluded. The properties that they have, and energy
            quantiles in the corrected configuration, are constrained.
        seed, checkpoint
            As in :class:`hybridcsp.training.trainer.Trainer`; each part of the training has a checkpoint.
        on_epoch
            Called after each epoch. The losses of the networks that compete include measures of samples with the
            contents of the crystals of most elements, or with any contents if the networks know none
            (:mod:`hybridcsp.generators.sample_measures`).
        images
            Whether autoencoders and constraint that are trained already are trained further.
        steps
            Number of steps of an epoch of the networks that compete, if the crystals are not enough for more.
        strength
            Factor of the loss of the constraint; ``None`` for the configuration's.
        predictor
            Folder of a trained predictor, whose predictions are learned for crystals without a value of its property.
        **settings
            Fields of :class:`hybridcsp.training.settings.TrainingSettings` for all networks, which are trained one
            after the other.

        Raises
        ------
        InputError
            If a setting is unknown, the crystals have too many or other elements, too few of them can be drawn, a
            property cannot be learned, or a checkpoint is of another training.
        """
        strength = self._checked(settings, steps, strength)
        elements = elements_of(examples, self._elements, self.name)
        predicted = 0
        if predictor is not None:
            examples, predicted = with_predictions(examples, open_predictor(predictor))
        scale = self._scale
        data = ImageTrainingSet.of(
            self._design.units.told(examples), elements, Voxels(scale.grid, place=self._design.place), self._design.axes
        )
        quantities = self._quantities_of(data)
        if self._networks is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                shape = Shape(len(elements), len(quantities.names), quantities.properties.n_features)
                networks = self._design.untrained(scale, shape)
        else:
            networks = self._networks
        training = Training(settings=settings, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
        courses, change = self._design.courses, self._design.change
        anew = images or self._networks is None
        metrics: dict[str, Any] = {}
        if anew:
            metrics[SITES] = training.train(SITES, networks[SITES], data.of_sites(change), courses[SITES])
            metrics[CELLS] = training.train(CELLS, networks[CELLS], data.of_cells(change), courses[CELLS])
        codes = [encode_images(one, networks[SITES], networks[CELLS]) for one in data.images]
        parts = [
            PropertyData(own, one.contents, quantities.values(part), weights)
            for own, one, part, weights in zip(codes, data.images, data.parts, data.weights, strict=True)
        ]
        model = networks[NETWORKS]
        assert isinstance(model, CodeModel)
        model.strength = strength
        if anew:
            model.adapt(codes[0])
            known = [known for part in parts if (known := part.with_known_values()) is not None]
            if model.constraint is not None and known:
                model.constraint.thaw()
                metrics[CONSTRAINT] = training.train(CONSTRAINT, model.constraint, known, courses[CONSTRAINT])
        if model.constraint is not None:
            model.constraint.freeze()
        chosen = courses[NETWORKS].settings_of(settings)
        crystals = CodeData(
            parts[0], quantities.properties.table(data.learned), model.sizes.noise, steps * chosen.batch_size
        )
        chosen = courses[NETWORKS].chosen(settings, len(crystals.weights))
        coder = self._coder(elements, scale, networks)
        own_checkpoint, own_on_epoch = in_part(NETWORKS, checkpoint, on_epoch)
        trainer = AdversarialTrainer(
            model,
            crystals,
            chosen,
            self._measure([example.atoms for part in data.parts for example in part], coder, quantities),
            seed=seed,
            checkpoint=own_checkpoint,
            on_epoch=own_on_epoch,
            optimisation=courses[NETWORKS].optimisation,
        )
        history = trainer.train()
        metrics[NETWORKS] = {"epochs": len(history), "settings": asdict(chosen)}
        self._networks, self._elements, self._scale, self._quantities = networks.eval(), elements, scale, quantities
        self.card = {
            **weights_io.describe_training(
                data.learned, self.card, held_out_crystals=data.held_out, beyond_limits=len(data.beyond_limits)
            ),
            **LearnedProperties({n: s for n, s in quantities.properties.scales.items() if n != ENERGY}).card(),
            **({"predicted": {"predictor": str(predictor), "crystals": predicted}} if predictor is not None else {}),
            "seed": seed,
            "settings": {**settings, "images": images, "steps": steps, "strength": strength},
            "metrics": metrics,
            "history": history,
            "before": weights_io.card_before(self.card, "properties", "constraint", "history"),
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._networks is None:
            raise weights_io.not_trained(self.name)
        networks = self._networks.eval()
        model = networks[NETWORKS]
        assert isinstance(model, CodeModel)
        drawing = TrainedNetworks(
            coder=self._coder(self._elements, self._scale, networks), model=model, quantities=self._quantities
        )
        return self._design.answering.answer(drawing, requests, rng)

    def reconstruct(self, crystals: Sequence[Atoms]) -> list[Atoms | DecodingError]:
        """Encode the images of crystals, and decode the codes."""
        if self._networks is None:
            raise weights_io.not_trained(self.name)
        coder = self._coder(self._elements, self._scale, self._networks.eval())
        return coder.reconstruct(crystals, lambda codes, _: codes)

    def save(self, folder: Path) -> None:
        """Write the weights and the card into a folder.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._networks is None:
            raise weights_io.not_saved(self.name)
        about = {
            "configuration": self.configuration,
            "elements": [chemical_symbols[number] for number in self._elements],
            "grid": asdict(self._scale.grid),
            "sizes": asdict(self._scale.sizes),
            "constraint": self._quantities.properties.card(),
        }
        weights_io.save(folder, self.name, self._networks.state_dict(), {**self.card, **about})

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
            grid, sizes = sizes_of_card(card, Sizes)
            scale = Scale(grid=grid, sizes=sizes)
            generator = cls(card["configuration"], scale)
            generator._elements = [atomic_numbers[symbol] for symbol in card["elements"]]
            properties = LearnedProperties.from_card(card["constraint"])
            generator._quantities = Quantities(properties, generator._design.units)
            shape = Shape(len(generator._elements), len(properties.scales), properties.n_features)
            networks = networks_of_weights(lambda: generator._design.untrained(scale, shape), tensors)
        weights_io.fill(networks, tensors, folder)
        generator._networks, generator.card = networks.eval(), card
        return generator

    def _checked(self, settings: Mapping[str, Any], steps: int, strength: float | None) -> float:
        """Check the settings of a training, before anything is drawn, and return the strength of the constraint."""
        chosen_settings(settings, ("images", "steps", "strength", "predictor"))
        whole_number("steps", steps, "a whole number from 1")
        if strength is None:
            return self._design.strength
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength < math.inf:
            raise InputError("strength", strength, "a number from 0")
        return float(strength)

    def _quantities_of(self, data: ImageTrainingSet) -> Quantities:
        """Return the properties that are learned: those of the weights, or else those of a training set."""
        units, learned = self._design.units, self._quantities.properties
        found = {name for example in data.learned for name in example.properties}
        if self._networks is None:
            quantities = Quantities(LearnedProperties().extended(data.learned), units)
            units.check(quantities.properties)
            return quantities
        if new := sorted(found - set(learned.scales) - {ENERGY}):
            names = ", ".join(sorted(self.targets)) or "no property"
            reason = f"these weights have learned {names}, and no other can be added; train anew"
            raise InputError("property", new[0], reason=reason)
        return self._quantities

    def _coder(self, elements: Sequence[int], scale: Scale, networks: torch.nn.ModuleDict) -> ImageCoder:
        return ImageCoder(
            elements=elements,
            voxels=Voxels(scale.grid, place=self._design.place),
            axes=self._design.axes,
            of_sites=networks[SITES],
            of_cells=networks[CELLS],
            reading=self._design.reading,
            too_close=self._design.too_close,
        )

    def _measure(self, crystals: Sequence[Atoms], coder: ImageCoder, quantities: Quantities) -> Measure:
        """Return a function that measures samples with the contents of crystals."""
        measures = SampleMeasures(_of_most_elements(crystals))
        contents = np.array([coder.counts(atoms.symbols.formula.count()) for atoms in measures.crystals])
        features = np.zeros((len(contents), quantities.properties.n_features), dtype=np.float32)

        def measure(model: torch.nn.Module, rng: np.random.Generator) -> dict[str, float]:
            assert isinstance(model, CodeModel)
            drawing = TrainedNetworks(coder=coder, model=model, quantities=quantities)
            drawn = drawing.draw(contents, features, rng, exactly=self._design.answering.exactly)
            return measures.of([one.atoms if _has_elements(one.atoms, measures.crystals[0]) else None for one in drawn])

        return measure


def _of_most_elements(crystals: Sequence[Atoms]) -> list[Atoms]:
    """Return the crystals of those elements that are most, and most frequent: fingerprints of others differ in form."""
    frequencies = Counter(frozenset(atoms.numbers.tolist()) for atoms in crystals)
    chosen = max(frequencies, key=lambda elements: (len(elements), frequencies[elements], sorted(elements)))
    return [atoms for atoms in crystals if set(atoms.numbers) == chosen]


def _has_elements(atoms: Atoms | None, other: Atoms) -> bool:
    return atoms is not None and set(atoms.numbers) == set(other.numbers)


ConstrainedGAN.configurations = MappingProxyType({name: partial(ConstrainedGAN, name) for name in DESIGNS})
