"""The ``wyckoff`` generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from hybridcsp.errors import InputError
from hybridcsp.generators import Condition, Epoch, Example, Reject, Request, Sample, storage, training
from hybridcsp.generators.datasets import split
from hybridcsp.generators.wyckoff.collation import Sequences
from hybridcsp.generators.wyckoff.drawing import draw
from hybridcsp.generators.wyckoff.memory import Memory
from hybridcsp.generators.wyckoff.network import Network, Size
from hybridcsp.generators.wyckoff.positions import Positions
from hybridcsp.generators.wyckoff.sequences import Sequence as Written
from hybridcsp.generators.wyckoff.sequences import to_sequence
from hybridcsp.representations.wyckoff import encode
from hybridcsp.structure import SYMPREC, SYMPREC_LOOSE


class WyckoffGenerator:
    """Autoregressive transformer over space group, Wyckoff positions, cell and coordinates.

    Crystals come out with exactly the contents asked for, in a primitive cell of the space group that was drawn; a
    look-ahead rules out every position after which the rest of the atoms would find no place. The network is told what
    crystals of like elements, kept in a memory, look like (:mod:`hybridcsp.generators.wyckoff.memory`).

    Of equal requests in one call, the first gets the most probable prototype and the others are drawn without
    repeating themselves as long as other prototypes are about as probable
    (:mod:`hybridcsp.generators.wyckoff.drawing`): ask for many at once.

    Parameters
    ----------
    size
        Of the network; only before the first training.

    Attributes
    ----------
    temperature
        Of the draws; 1 is the model's own distribution, less is more probable and less diverse.
    """

    name: ClassVar[str] = "wyckoff"
    conditions: ClassVar[frozenset[Condition]] = frozenset({Condition.SPACEGROUP, Condition.ENERGY})
    #: Answers to equal requests come in the order in which to try them.
    best_first: ClassVar[bool] = True
    #: Settings of ``fit`` during a search: its minima would be remembered as they are, and made again.
    fine_tuning: ClassVar[Mapping[str, Any]] = {"remember": False}

    def __init__(self, size: Size | None = None) -> None:
        self.card: Mapping[str, Any] = {}
        self.temperature = 1.0
        self._size = size or Size()
        self._network: Network | None = None
        self._positions: Positions | None = None
        self._memory = Memory()

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        longest: int = 100,
        remember: bool = True,
        **settings: Any,
    ) -> None:
        """Learn from examples; a tenth of the formulas is held out to know when to stop.

        Parameters
        ----------
        examples
            Crystals; those in which spglib finds no symmetry are left out.
        seed, checkpoint, on_epoch
            As :func:`hybridcsp.generators.training.train` takes them.
        longest
            Crystals with more sites are remembered, but the network does not learn from them: they are few and take
            most of the time.
        remember
            Whether the examples join the memory.
        **settings
            Fields of :class:`hybridcsp.generators.training.Settings`.

        Raises
        ------
        InputError
            If a setting is not known, or nothing is left to learn from.
        """
        known = {field.name for field in fields(training.Settings)}
        if unknown := sorted(set(settings) - known):
            raise InputError(
                unknown[0], settings[unknown[0]], f"no setting of this training; known: {', '.join(sorted(known))}"
            )
        chosen = training.Settings(**settings)
        if self._positions is None:
            self._positions = Positions.tabulate()
        positions = self._positions
        learned, held = (_written(part, positions) for part in split(examples))
        if not _up_to(longest, learned):
            raise InputError(
                "examples", len(examples), f"none has a symmetry that spglib finds and at most {longest} sites"
            )
        if self._network is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._network = Network(positions, self._size)
        if remember:  # the held-out tenth never is
            self._memory.add(sequence.occupation for _, sequence in learned)
        remembered = [example for example, _ in learned]
        learned, held = (_up_to(longest, part) for part in (learned, held))
        sets = [
            Sequences(
                [sequence for _, sequence in part],
                [example.weight for example, _ in part],
                [np.nan if example.energy_quantile is None else example.energy_quantile for example, _ in part],
                self._memory,
                positions,
            )
            for part in (learned, held)
            if part
        ]
        history = training.train(
            self._network,
            sets[0],
            sets[1] if held else None,
            chosen,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        best = min(history, key=lambda epoch: epoch["held_out"])
        self.card = {
            "size": asdict(self._size),
            **storage.describe_training(
                remembered,
                crystals_learned=len(learned),
                held_out_crystals=len(held),
                seed=seed,
                settings=asdict(chosen),
                longest=longest,
                epochs=len(history),
                best_epoch=best["epoch"],
                metrics={name: value for name, value in best.items() if name != "epoch"},
            ),
        }

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Draw one crystal for each request.

        Raises
        ------
        InputError
            If the generator has not been trained, or contents are not of elements.
        """
        if self._network is None or self._positions is None:
            raise InputError("generator", self.name, "not trained; load weights or fit it first")
        answers: list[Sample | Reject] = draw(
            self._network, self._positions, self._memory, requests, rng, self.temperature
        )
        return answers

    def save(self, folder: Path) -> None:
        """Write weights, memory and tables (safetensors) and card (JSON) into a folder."""
        if self._network is None:
            raise InputError("generator", self.name, "not trained; there is nothing to save")
        remembered = {f"memory.{name}": torch.as_tensor(array) for name, array in self._memory.arrays().items()}
        storage.save(folder, self.name, {**self._network.state_dict(), **remembered}, self.card)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are missing, damaged or not this generator's.
        """
        tensors, card = storage.load(folder, cls.name)
        try:
            generator = cls(Size(**card["size"]))
            tables = {n: t.numpy() for n, t in tensors.items() if n.startswith("positions_")}
            generator._positions = Positions.from_arrays(**{n.removeprefix("positions_"): a for n, a in tables.items()})
            remembered = {n.removeprefix("memory."): t.numpy() for n, t in tensors.items() if n.startswith("memory.")}
            generator._memory = Memory.from_arrays(remembered)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError("weights", str(folder), f"incomplete: {type(error).__name__}: {error}") from error
        generator._network = Network(generator._positions, generator._size).eval()
        weights = {name: tensor for name, tensor in tensors.items() if not name.startswith("memory.")}
        storage.fill(generator._network, weights, folder)
        generator.card = card
        return generator


def _written(examples: Iterable[Example], positions: Positions) -> list[tuple[Example, Written]]:
    """Examples and their sequences; those without consistent symmetry are left out."""
    found = []
    for example in examples:
        contents = Counter(example.atoms.numbers.tolist())
        # A loose tolerance may find a cell with fewer atoms, which is not what would be asked for.
        for symprec in (SYMPREC_LOOSE, SYMPREC):
            crystal = encode(example.atoms, symprec)
            if crystal is None:
                continue
            sequence = to_sequence(crystal, positions)
            if dict(zip(sequence.elements, sequence.counts, strict=True)) == contents:
                found.append((example, sequence))
                break
    return found


def _up_to(longest: int, part: list[tuple[Example, Written]]) -> list[tuple[Example, Written]]:
    return [(example, sequence) for example, sequence in part if len(sequence.slots) <= longest]
