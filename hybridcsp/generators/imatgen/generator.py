"""The ``imatgen`` generator: training, sampling, and files of weights."""

from __future__ import annotations

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

from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.generators.images.coder import ImageCoder
from hybridcsp.generators.images.courses import Training
from hybridcsp.generators.images.crystal_images import encode_images
from hybridcsp.generators.images.loading import networks_of_weights, sizes_of_card
from hybridcsp.generators.images.training_set import ImageTrainingSet, elements_of
from hybridcsp.generators.imatgen.drawing import KnownMaterials
from hybridcsp.generators.imatgen.materials_data import MaterialsData
from hybridcsp.generators.imatgen.recipes import CELLS, MATERIALS, RECIPES, SITES
from hybridcsp.generators.imatgen.sampling import Sampler
from hybridcsp.generators.imatgen.sizes import SCALES, Scale, Sizes
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.training.configurations import CORRECTED
from hybridcsp.training.settings import chosen_settings


class IMatGen(Generator):
    """Variational autoencoder over the codes of voxel images of the crystals of one chemical system.

    The method is iMatGen (Noh et al., Matter 1, 1370 (2019), doi:10.1016/j.matt.2019.08.017). A crystal is an image of
    its cell and one of the sites of each element. Two autoencoders map images to short codes, and a variational
    autoencoder with a classifier of stability maps the codes of a crystal to a point in a latent space. New points are
    decoded to images, and their peaks to atoms. Crystals without the wanted contents are drawn again up to
    :data:`~hybridcsp.generators.imatgen.sampling.DRAWS` times and then rejected with a reason.

    The configuration *published* has the authors' sizes, networks and losses as far as the paper tells them. The size
    at which the convolutions of images end, the kernel of those over codes, the channels of the materials autoencoder,
    and drawing around training crystals are our choices, because we had the authors' code without that of training. Its
    materials autoencoder does not know contents, so that most samples have others; points are drawn around training
    crystals with contents near the wanted ones. Its images have no gradient where they are cut off, and the cell is
    read from single voxels.

    The configuration *corrected*, the default, has sizes that two processor cores should train within an hour, by the
    duration of a step. Crystals are drawn in reduced cells and their images in random orientations. Image networks are
    normalised and their error has a gradient everywhere. The materials autoencoder is given the contents, so that
    points around training crystals of similar contents are decoded, too. The cell is fitted to all voxels, and the
    wanted contents decide which peaks are atoms.

    Parameters
    ----------
    configuration
        Name of the configuration.
    scale
        Sizes of images and networks of an untrained generator; by default those of the configuration.
    """

    name = "imatgen"
    caches_samples = True
    #: Settings of ``fit`` during a search, which leaves the image autoencoders as they are.
    fine_tuning: Mapping[str, Any] = MappingProxyType({"images": False})
    reconstructs = True
    learns_properties = True
    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"scale": scale} for name, scale in SCALES.items()}

    def __init__(self, configuration: str = CORRECTED, scale: Scale | None = None) -> None:
        self.card: Mapping[str, Any] = {}
        self.configuration = configuration
        self._recipe = RECIPES[configuration]
        self._scale = scale or SCALES[self._recipe.scale]
        self._elements: Sequence[int] = []
        self._networks: torch.nn.ModuleDict | None = None
        self._known: KnownMaterials | None = None

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with small images and networks."""
        grid = VoxelGrid(sites=16, cell=16, box=8.0, width=0.55, atoms=20, edge=8.0)
        return cls(scale=Scale(grid=grid, sizes=Sizes(site_code=80, width=64, latent=16)))

    @property
    def conditions(self) -> frozenset[Condition]:  # type: ignore[override]
        """Supported conditions: the energy, if the classifier has learned from energy quantiles."""
        learned = self.card.get("stability", {}).get("quantity") == "energy_quantile"
        return frozenset({Condition.ENERGY}) if learned else frozenset()

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        images: bool = True,
        **settings: Any,
    ) -> None:
        """Train on crystals of one chemical system; a tenth of their formulas is held out to determine when to stop.

        Parameters
        ----------
        examples
            Crystals; those beyond the limits of the images are excluded. Of a property that they have, low values count
            as stable.
        seed, checkpoint, on_epoch
            As in :class:`hybridcsp.training.trainer.Trainer`.
        images
            Whether image autoencoders that are trained already are trained further.
        **settings
            Fields of :class:`hybridcsp.training.settings.TrainingSettings` for all networks, which are trained one
            after the other.

        Raises
        ------
        InputError
            If a setting is unknown, the crystals have too many or other elements, too few of them can be drawn, or the
            checkpoint is of another training.
        """
        chosen_settings(settings, ("images",))
        elements = elements_of(examples, self._elements, self.name)
        stability = self._recipe.stability.stability(examples)
        scale = self._scale
        data = ImageTrainingSet.of(examples, elements, self._recipe.voxels(scale.grid), self._recipe.axes)
        if self._networks is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                networks = self._recipe.networks(scale, len(elements))
        else:
            networks = self._networks
        training = Training(settings=settings, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
        courses, change = self._recipe.courses, self._recipe.change
        metrics: dict[str, Any] = {}
        if images or self._networks is None:
            metrics[SITES] = training.train(SITES, networks[SITES], data.of_sites(change), courses[SITES])
            metrics[CELLS] = training.train(CELLS, networks[CELLS], data.of_cells(change), courses[CELLS])
        materials = [
            MaterialsData(
                encode_images(one, networks[SITES], networks[CELLS]), one.contents, stability.labels(part), own
            )
            for one, part, own in zip(data.images, data.parts, data.weights, strict=True)
        ]
        metrics[MATERIALS] = training.train(MATERIALS, networks[MATERIALS], materials, courses[MATERIALS])
        self._networks, self._elements = networks.eval(), elements
        self._known = KnownMaterials.encoded(networks[MATERIALS], materials[0])
        self.card = {
            **weights_io.describe_training(
                data.learned, self.card, held_out_crystals=data.held_out, beyond_limits=len(data.beyond_limits)
            ),
            "properties": [] if stability.quantity in ("", "energy_quantile") else [stability.quantity],
            "stability": asdict(stability),
            "seed": seed,
            "settings": dict(settings),
            "metrics": metrics,
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        return self._sampler().sample(requests, rng)

    def reconstruct(self, crystals: Sequence[Atoms]) -> list[Atoms | DecodingError]:
        """Encode crystals to the means of their latent points, and decode these."""
        return self._sampler().reconstruct(crystals)

    def save(self, folder: Path) -> None:
        """Write weights, the encoded training set and the card into a folder.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._networks is None or self._known is None:
            raise weights_io.not_saved(self.name)
        tensors = {f"known.{name}": tensor for name, tensor in self._known.tensors().items()}
        about = {
            "configuration": self.configuration,
            "elements": [chemical_symbols[number] for number in self._elements],
            "grid": asdict(self._scale.grid),
            "sizes": asdict(self._scale.sizes),
        }
        weights_io.save(folder, self.name, self._networks.state_dict() | tensors, {**self.card, **about})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a generator that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are damaged or belong to another generator.
        """
        tensors, card = weights_io.load(folder, cls.name)
        known = {name.removeprefix("known."): value for name, value in tensors.items() if name.startswith("known.")}
        weights = {name: value for name, value in tensors.items() if not name.startswith("known.")}
        with weights_io.reading_card(folder):
            grid, sizes = sizes_of_card(card, Sizes)
            scale = Scale(grid=grid, sizes=sizes)
            generator = cls(card["configuration"], scale)
            generator._elements = [atomic_numbers[symbol] for symbol in card["elements"]]
            generator._networks = networks_of_weights(
                lambda: generator._recipe.networks(scale, len(generator._elements)), weights
            )
            generator._known = KnownMaterials(**known)
            generator._known.check(len(generator._elements), scale.sizes.latent)
        weights_io.fill(generator._networks.eval(), weights, folder)
        generator.card = card
        return generator

    def _sampler(self) -> Sampler:
        if self._networks is None or self._known is None:
            raise weights_io.not_trained(self.name)
        networks = self._networks.eval()
        coder = ImageCoder(
            elements=self._elements,
            voxels=self._recipe.voxels(self._scale.grid),
            axes=self._recipe.axes,
            of_sites=networks[SITES],
            of_cells=networks[CELLS],
            reading=self._recipe.reading,
        )
        return Sampler(coder=coder, materials=networks[MATERIALS], draws=self._recipe.draws, known=self._known)


IMatGen.configurations = MappingProxyType({name: partial(IMatGen, name) for name in RECIPES})
