"""A generator of your own, which learns during the search: noisy copies of the minima, and random crystals before."""

import json
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp import Problem, Search
from hybridcsp.generators import Example, Sample
from hybridcsp.retraining import Retraining
from hybridcsp.sources.generative import GenerativeSource


class NoisyCopies:
    """Remembers crystals and their weights; that is all its learning."""

    name = "noisy-copies"
    conditions = frozenset()  # nothing but contents can be asked for
    batch = 12  # samples at a time

    def __init__(self):
        self.card, self.known = {}, []

    def fit(self, examples, *, seed=0, checkpoint=None, on_epoch=None, epochs=1, learning_rate=0.0, anchor=0.0):
        """Learn: these three settings are what a search asks for."""
        self.known = list(examples)  # a real model would go through them `epochs` times
        self.card = {"crystals": len(self.known)}

    def sample(self, requests, rng):
        """Answer every request, in order; all randomness comes from ``rng``."""
        return [Sample(atoms=self.one(request.contents, rng), request=i) for i, request in enumerate(requests)]

    def one(self, contents, rng):
        """Make one crystal of exactly these contents."""
        symbols = "".join(symbol * count for symbol, count in contents.items())
        alike = [example for example in self.known if len(example.atoms) == len(Atoms(symbols))]
        if not alike:
            cell = np.eye(3) * (14 * len(Atoms(symbols))) ** (1 / 3) + rng.normal(0, 0.3, (3, 3))
            return Atoms(symbols, cell=cell, scaled_positions=rng.random((len(Atoms(symbols)), 3)), pbc=True)
        weights = np.array([example.weight for example in alike])
        atoms = alike[rng.choice(len(alike), p=weights / weights.sum())].atoms.copy()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.15, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.4, atoms.positions.shape)
        return atoms

    def save(self, folder):
        """Write two files; a torch model would write its weights with safetensors, see hybridcsp.generators.storage."""
        known = [(e.atoms.numbers.tolist(), e.atoms.positions.tolist(), e.atoms.cell.tolist()) for e in self.known]
        weights = [example.weight for example in self.known]
        Path(folder, "weights.json").write_text(json.dumps(list(zip(known, weights, strict=True))))
        Path(folder, "card.json").write_text(json.dumps({"generator": self.name, **self.card}))

    @classmethod
    def load(cls, folder):
        """Read what was saved: each version that a search adopts comes from its folder."""
        model = cls()
        for (numbers, positions, cell), weight in json.loads(Path(folder, "weights.json").read_text()):
            atoms = Atoms(numbers, positions=positions, cell=cell, pbc=True)
            model.known.append(Example(atoms=atoms, weight=weight))
        return model


if __name__ == "__main__":
    problem = Problem("CuAu", formula_units=(1, 3))
    search = Search(
        problem,
        calculator="emt",
        sources=["random", GenerativeSource(problem, generator=NoisyCopies())],
        retraining=Retraining(new_minima=4, trial=3),
        directory="learning",
        workers=1,
    )
    search.run(relaxations=20)
    for source, changes in search.archive.ledger.adoptions.items():
        for change in changes:
            print(f"{source}: {change['detail']}")
    best = search.minima(1)[0]
    print(f"{best.enthalpy_per_atom:.4f} eV/atom, space group {best.spacegroup}, from {best.found_by.operator}")
