"""Small generators that tests use in the place of trained ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from crystals import random_crystal

from hybridcsp.generators.base import Epoch, Example, Generator, Reject, Request, Sample


def symbols(contents) -> str:
    return "".join(f"{symbol}{count}" for symbol, count in contents.items())


class Toy(Generator):
    """Samples random crystals, and noisy copies of what it has learned, the more often the more it weighs."""

    name = "toy"
    conditions: frozenset = frozenset()
    batch_size = 8

    def __init__(self, volume: float = 20.0, noise: float = 0.05) -> None:
        self.volume = volume
        self.noise = noise
        self.memory: list[Example] = []
        self.card = {"toy": True}
        self.asked: list[Request] = []

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        self.asked += requests
        return [self.answer(number, request, rng) for number, request in enumerate(requests)]

    def answer(self, number: int, request: Request, rng: np.random.Generator) -> Sample | Reject:
        wanted = Atoms(symbols(request.contents)).symbols.get_chemical_formula()
        known = [e for e in self.memory if e.atoms.symbols.get_chemical_formula() == wanted and e.weight > 0]
        if known and rng.random() < 0.5:
            weights = np.array([example.weight for example in known])
            atoms = known[rng.choice(len(known), p=weights / weights.sum())].atoms.copy()
            atoms.positions += rng.normal(0, self.noise, atoms.positions.shape)
        else:
            atoms = random_crystal(symbols(request.contents), self.volume * rng.uniform(0.8, 1.2), rng)
        return Sample(atoms=atoms, request=number, log_likelihood=float(rng.normal()))

    def fit(self, examples, *, seed=0, checkpoint=None, on_epoch=None, epochs=3, **settings) -> None:
        self.memory = list(examples)
        self.card = {"toy": True, "examples": len(examples), "settings": sorted(settings)}
        for number in range(1, epochs + 1):
            if on_epoch is not None:
                on_epoch(Epoch(number=number, losses={"train": 1 / number, "held_out": 2 / number}, best=True))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        known = [
            {
                "numbers": example.atoms.numbers.tolist(),
                "positions": example.atoms.positions.tolist(),
                "cell": example.atoms.cell.array.tolist(),
                "weight": example.weight,
            }
            for example in self.memory
        ]
        (folder / "weights.json").write_text(json.dumps({"volume": self.volume, "noise": self.noise, "known": known}))
        (folder / "card.json").write_text(json.dumps({"generator": self.name, **self.card}))

    @classmethod
    def load(cls, folder: Path) -> Toy:
        kept = json.loads((folder / "weights.json").read_text())
        toy = cls(kept["volume"], kept["noise"])
        toy.card = json.loads((folder / "card.json").read_text())
        toy.memory = [
            Example(
                atoms=Atoms(known["numbers"], positions=known["positions"], cell=known["cell"], pbc=True),
                weight=known["weight"],
            )
            for known in kept["known"]
        ]
        return toy


def install(folder: Path, code: str, name: str = "foreign") -> None:
    """Write a package into a folder that registers ``Foreign`` of its one module as a generator, as pip would."""
    (folder / "foreign_package.py").write_text(code)
    about = folder / "foreign_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[hybridcsp.generators]\n{name} = foreign_package:Foreign\n")
