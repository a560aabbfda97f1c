"""The ``crystalgan`` generator: training, sampling, and files of weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.generators.crystalgan.designs import CorrectedDesign, Design, PublishedDesign
from hybridcsp.generators.crystalgan.domains import Array, Domains, PairData
from hybridcsp.generators.crystalgan.models import CrossDomain
from hybridcsp.generators.crystalgan.networks import Sizes
from hybridcsp.generators.redrawing import draw_repeatedly
from hybridcsp.generators.sample_measures import SampleMeasures, measures_without_reference
from hybridcsp.structure.validity import is_finite_crystal
from hybridcsp.training.adversarial import AdversarialModel, AdversarialTrainer, Measure
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.epoch import in_part
from hybridcsp.training.settings import chosen_settings, untrained_width
from hybridcsp.utils.checks import whole_number

#: Number of times that a rejected sample, or one with atoms too close, is drawn again.
REDRAWS = 5
# Number of crystals with the cell of each system that are measured.
_MEASURED = 64
# Largest number of slots in files of weights.
_MOST_SLOTS = 1000
_DESIGNS: Mapping[str, Design] = {CORRECTED: CorrectedDesign(), PUBLISHED: PublishedDesign()}
_BINARIES, _TERNARIES = "binaries", "ternaries"


class CrystalGAN(Generator):
    """Cross-domain generative adversarial networks, from the crystals of two binary systems to ternary ones.

    CrystalGAN of Nouira, Sokolovska and Crivello, arXiv:1810.11203. It learns crystals of two systems A-H and B-H with
    any three elements, and samples crystals of A-B-H, of which it needs to know none. Two networks transfer crystals
    between the systems (part ``binaries`` of the training); a crystal of A-B-H is the cell, the H and the own atoms of
    one that was transferred, and the other element's atoms of another; further networks change these crystals under
    bounds of interatomic distances (part ``ternaries``). A sample starts from two random crystals with fitting numbers
    of atoms; contents that no two of the training crystals make together are rejected.

    The configuration *published* has layers that act on single rows of a table of vectors; losses that have no lowest
    value; distances between 1.8 and 3.0 Å whose penalty has no gradient; and no noise. In the authors' code, one of the
    two sets of joined crystals has no atoms of A and B, because of an exchange of blocks; here both sets have them.

    The configuration *corrected*, the default, has networks that see the distances of all pairs of atoms of a periodic
    crystal, and noise; cross-entropies with a penalty of the gradient; joined crystals in cells of the expected volume;
    critics that compare the A-H and B-H parts of ternary crystals with binary ones; and a differentiable penalty of
    distances, with bounds that follow from the elements.

    Parameters
    ----------
    configuration
        Name of the configuration.
    sizes
        Sizes of the networks.
    """

    name = "crystalgan"
    learns = False  # the minima of a search for a ternary are not crystals of its binaries

    def __init__(self, configuration: str = CORRECTED, sizes: Sizes | None = None) -> None:
        self.configuration = configuration
        self._design = _DESIGNS[configuration]
        self.sizes = sizes or self._design.sizes
        self.card: Mapping[str, Any] = {}
        self._domains: Domains | None = None
        self._models: tuple[CrossDomain, AdversarialModel] | None = None
        self._pairs: PairData | None = None

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        joined: int = 512,
        width: int | None = None,
        **settings: Any,
    ) -> None:
        """Train on the crystals of two binary systems; all others are left out.

        Parameters
        ----------
        examples
            Crystals. None of them is held out: they are not what is sampled.
        seed, checkpoint, on_epoch
            As in :class:`hybridcsp.training.adversarial.AdversarialTrainer`; both parts have checkpoints.
        joined
            Number of joined crystals from which the ternary networks learn.
        width
            Width of the networks of an untrained generator; ``None`` for the configuration's.
        **settings
            As :class:`hybridcsp.training.settings.TrainingSettings` has them, for both parts.

        Raises
        ------
        InputError
            If there are not two binary systems that share an element, a setting is unknown, or a checkpoint is of
            another training.
        """
        chosen = chosen_settings({**self._design.settings, **settings}, {"joined", "width"})
        whole_number("joined", joined, "a whole number from 2", least=2)
        if width is not None:
            self.sizes = replace(self.sizes, width=untrained_width(width, trained=self._models is not None))
        domains = self._domains or Domains.of(examples)
        parts: tuple[list[Atoms], list[Atoms]] = [], []
        for example in examples:
            if example.weight > 0 and (system := domains.system_of(example.atoms)) is not None:
                parts[system].append(example.atoms)
        if not all(parts):
            systems = f"{domains.first}-{domains.shared} and {domains.second}-{domains.shared}"
            raise InputError("examples", len(examples), f"a set of crystals of both {systems}")
        design = self._design
        encoded = [design.rows(np.array([domains.encode(atoms) for atoms in part])) for part in parts]
        self._domains, self._pairs = domains, PairData(encoded[0], encoded[1])
        if self._models is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._models = design.binaries(domains, self.sizes), design.ternaries(domains, self.sizes)
        histories = {}
        for part, model in zip((_BINARIES, _TERNARIES), self._models, strict=True):
            data = self._pairs if part == _BINARIES else design.ternary_data(self._joined(joined, seed), self._pairs)
            own_checkpoint, own_on_epoch = in_part(part, checkpoint, on_epoch)
            histories[part] = AdversarialTrainer(
                model,
                data,
                chosen,
                self._measure_binaries(parts) if part == _BINARIES else self._measure_ternaries(seed),
                seed=seed,
                checkpoint=own_checkpoint,
                on_epoch=own_on_epoch,
                optimisation=design.optimisation,
            ).train()
        learned = [example for example in examples if domains.system_of(example.atoms) is not None]
        self.card = {
            **weights_io.describe_training(learned, self.card, left_out=len(examples) - len(learned)),
            "seed": seed,
            "settings": {**asdict(chosen), "joined": joined},
            "history": histories,
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Sample one crystal for each request; those that are rejected or too dense are drawn again several times.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._models is None or self._domains is None or self._pairs is None:
            raise weights_io.not_trained(self.name)
        answers: dict[int, Sample | Reject] = {}
        waiting: list[tuple[int, list[tuple[int, int, int]]]] = []
        for number, request in enumerate(requests):
            choices = self._choices(request.contents)
            if isinstance(choices, str):
                answers[number] = Reject(request=number, reason=choices)
            else:
                waiting.append((number, choices))
        model = self._models[1]

        def draw(wanted: list[list[tuple[int, int, int]]]) -> list[Atoms | str]:
            pairs = [choices[int(rng.integers(len(choices)))] for choices in wanted]
            drawn = self._draw(model, pairs, rng)
            return ["the cell has no volume" if found is None else found for found in drawn]

        answers |= draw_repeatedly(waiting, draw, 1 + REDRAWS)
        return [answers[number] for number in range(len(requests))]

    def save(self, folder: Path) -> None:
        """Write weights, crystals of the binary systems, and the card into a folder.

        Raises
        ------
        InputError
            If the generator is not trained.
        """
        if self._models is None or self._domains is None or self._pairs is None:
            raise weights_io.not_saved(self.name)
        tensors = {f"crystals.{name}": torch.as_tensor(getattr(self._pairs, name)) for name in ("first", "second")}
        for part, model in zip((_BINARIES, _TERNARIES), self._models, strict=True):
            tensors |= {f"{part}.{name}": value for name, value in model.state_dict().items()}
        about = {
            "configuration": self.configuration,
            "sizes": asdict(self.sizes),
            "domains": asdict(self._domains),
        }
        weights_io.save(folder, self.name, tensors, {**self.card, **about})

    @classmethod
    def load(cls, folder: Path) -> CrystalGAN:
        """Load a generator that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are damaged or belong to another generator.
        """
        tensors, card = weights_io.load(folder, cls.name)

        def part(name: str) -> dict[str, torch.Tensor]:
            return {n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")}

        with weights_io.reading_card(folder):
            sizes = Sizes(**card["sizes"])
            given = card["domains"]
            weights_io.check_sizes(card["sizes"], "layers", part(_BINARIES), folder)
            weights_io.check_sizes({"width": sizes.width, "n": sizes.joined_layers}, "n", part(_TERNARIES), folder)
            slots = tuple(given["slots"])
            if len(slots) != 3 or not all(isinstance(n, int) and 1 <= n <= _MOST_SLOTS for n in slots):
                raise ValueError(f"slots must be three numbers of atoms, not {slots!r:.200}")
            domains = Domains(shared=given["shared"], first=given["first"], second=given["second"], slots=slots)
            if not all(element in atomic_numbers for element in domains.elements):
                raise ValueError(f"{domains.elements!r:.200} are not elements")
            generator = cls(card["configuration"], sizes)
            crystals = {name: value.numpy().astype(np.float32) for name, value in part("crystals").items()}
            pairs = PairData(crystals["first"], crystals["second"])
            if not all(
                len(a) and a.shape[1:] == (3 + sum(slots), 4) and np.isfinite(a).all() for a in crystals.values()
            ):
                raise ValueError("the crystals of the binary systems are damaged")
            design = generator._design
            needed = weights_io.parameters_of(lambda: design.binaries(domains, sizes))
            weights_io.check_parameters(needed, part(_BINARIES), folder)
            needed = weights_io.parameters_of(lambda: design.ternaries(domains, sizes))
            weights_io.check_parameters(needed, part(_TERNARIES), folder)
            models = design.binaries(domains, sizes), design.ternaries(domains, sizes)
        for name, model in zip((_BINARIES, _TERNARIES), models, strict=True):
            weights_io.fill(model.eval(), part(name), folder)
        generator._models, generator._domains, generator._pairs, generator.card = models, domains, pairs, card
        return generator

    def _choices(self, contents: Mapping[str, int]) -> list[tuple[int, int, int]] | str:
        """Return pairs of crystals that make the contents, and whose cell is used, or why there are none."""
        assert self._domains is not None and self._pairs is not None
        elements = self._domains.elements
        if set(contents) != set(elements) or min(contents.values()) < 1:
            shown = sorted(elements, key=atomic_numbers.__getitem__)
            return f"the elements must be those of the training data, {shown[0]}, {shown[1]} and {shown[2]}"
        shared, own, other = (contents[element] for element in elements)
        first, second = self._domains.counts(self._pairs.first), self._domains.counts(self._pairs.second)
        choices = []
        for i in np.flatnonzero(first[:, 1] == own):
            for j in np.flatnonzero(second[:, 2] == other):
                choices += [(int(i), int(j), 0)] if first[i, 0] == shared else []
                choices += [(int(i), int(j), 1)] if second[j, 0] == shared else []
        return choices or "no two crystals of the training data have these numbers of atoms together"

    @torch.no_grad()
    def _transferred(self, first: Array, second: Array) -> tuple[Array, Array]:
        assert self._models is not None
        model = self._models[0].eval()
        like_first, like_second = model.transferred(torch.as_tensor(first), torch.as_tensor(second))
        return like_first.numpy(), like_second.numpy()

    def _join(self, pairs: Sequence[tuple[int, int, int]]) -> Array:
        """Return joined crystals of pairs of crystals, in the cell of the one that is the host."""
        assert self._pairs is not None and self._domains is not None
        first = self._pairs.first[[i for i, _, _ in pairs]]
        second = self._pairs.second[[j for _, j, _ in pairs]]
        like_first, like_second = self._transferred(first, second)
        in_first = self._design.join(self._domains, like_second, like_first, 2)
        in_second = self._design.join(self._domains, like_first, like_second, 1)
        hosts = np.array([host for _, _, host in pairs])
        return np.where(hosts[:, None, None] == 0, in_first, in_second)

    def _joined(self, number: int, seed: int) -> tuple[Array, Array]:
        """Return joined crystals in cells of the second and of the first system, half of them each."""
        rng = np.random.default_rng([seed, 3])
        with _torch_numbers(rng):
            return self._join(self._random_pairs(number // 2, 1, rng)), self._join(
                self._random_pairs(number // 2, 0, rng)
            )

    def _random_pairs(self, n: int, host: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
        assert self._pairs is not None
        choices = rng.integers([len(self._pairs.first), len(self._pairs.second)], size=(n, 2))
        return [(int(i), int(j), host) for i, j in choices]

    @torch.no_grad()
    def _draw(
        self, model: AdversarialModel, pairs: Sequence[tuple[int, int, int]], rng: np.random.Generator
    ) -> list[Atoms | None]:
        """Return a ternary crystal of each pair of crystals, or ``None`` for one without a volume."""
        assert self._domains is not None
        device = next(model.parameters()).device
        found: list[Atoms | None] = [None] * len(pairs)
        with _torch_numbers(rng):
            joined = self._join(pairs)
            for host in (0, 1):
                places = [number for number, pair in enumerate(pairs) if pair[2] == host]
                if not places:
                    continue
                made = self._design.finished(model.eval(), torch.as_tensor(joined[places], device=device), host)
                rows = made.cpu().numpy()
                for place, row in zip(places, self._design.decoded(rows), strict=True):
                    atoms = self._domains.decode(row)
                    found[place] = atoms if is_finite_crystal(atoms) else None
        return found

    def _measure_binaries(self, parts: tuple[list[Atoms], list[Atoms]]) -> Measure:
        """Return a function that measures crystals that were transferred to the other system."""
        domains, pairs, design = self._domains, self._pairs, self._design
        assert domains is not None and pairs is not None
        measures = [SampleMeasures(part) for part in parts]
        elements = [(domains.shared, *[own] * 2) for own in (domains.first, domains.second)]

        def measure(model: torch.nn.Module, rng: np.random.Generator) -> dict[str, float]:
            assert isinstance(model, CrossDomain)
            device = next(model.parameters()).device
            n = min(_MEASURED, len(pairs.weights))
            batch = pairs.batch(rng.permutation(len(pairs.weights))[:n], rng)
            with _torch_numbers(rng):
                made = model.transferred(batch["first"].to(device), batch["second"].to(device))
            found: Counter[str] = Counter()
            for system, rows in enumerate(made):
                crystals = [domains.decode(row, elements[system]) for row in design.decoded(rows.cpu().numpy())]
                whole = [atoms if is_finite_crystal(atoms) else None for atoms in crystals]
                for name, value in measures[system].of(whole).items():
                    found[name] += value / 2  # type: ignore[assignment]
            return dict(found)

        return measure

    def _measure_ternaries(self, seed: int) -> Measure:
        """Return a function that measures ternary crystals of random pairs."""
        drawn = np.random.default_rng([seed, 4])
        pairs = self._random_pairs(_MEASURED, 0, drawn) + self._random_pairs(_MEASURED, 1, drawn)
        domains, known = self._domains, self._pairs
        assert domains is not None and known is not None
        first, second = domains.counts(known.first), domains.counts(known.second)
        contents = [
            str((first[i, 1], second[j, 2], first[i, 0] if host == 0 else second[j, 0])) for i, j, host in pairs
        ]

        def measure(model: torch.nn.Module, rng: np.random.Generator) -> dict[str, float]:
            assert isinstance(model, AdversarialModel)
            return measures_without_reference(self._draw(model, pairs, rng), contents)

        return measure


def corrected() -> CrystalGAN:
    """Return an untrained generator that sees pairs of atoms and is penalised for wrong distances."""
    return CrystalGAN(CORRECTED)


def published() -> CrystalGAN:
    """Return an untrained generator that works as published."""
    return CrystalGAN(PUBLISHED)


CrystalGAN.configurations = MappingProxyType({CORRECTED: corrected, PUBLISHED: published})


@contextmanager
def _torch_numbers(rng: np.random.Generator) -> Iterator[None]:
    """Let torch draw random numbers that follow from those of a generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        yield
