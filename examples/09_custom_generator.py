"""A generator of your own, which learns during the search: noisy copies of its minima, random crystals before."""

import json
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp import Problem, Search
from hybridcsp.generators.base import Generator, Sample
from hybridcsp.retraining import Retraining
from hybridcsp.sources.generative import GenerativeSource


class NoisyCopies(Generator):
    """Remembers crystals and how much they weigh; that is all its learning."""

    name, batch_size = "noisy-copies", 12  # a search requests 12 samples at a time

    def __init__(self, known=()):
        self.known, self.card = list(known), {"crystals": len(known)}

    def fit(self, examples, *, seed=0, checkpoint=None, on_epoch=None, epochs=1, learning_rate=0.0, anchor=0.0):
        """Learn; the last three settings are what a search asks for."""
        self.__init__([(*(array.tolist() for array in e.atoms.todict().values()), e.weight) for e in examples])

    def sample(self, requests, rng):
        """Answer every request, in order; all randomness comes from ``rng``."""
        return [Sample(atoms=self.one(request.contents, rng), request=i) for i, request in enumerate(requests)]

    def one(self, contents, rng):
        """Make one crystal of exactly these contents."""
        atoms = Atoms("".join(symbol * count for symbol, count in contents.items()), pbc=True)
        alike = [one for one in self.known if len(one[0]) == len(atoms)]
        if not alike:
            cell = np.eye(3) * (14 * len(atoms)) ** (1 / 3) + rng.normal(0, 0.3, (3, 3))
            return Atoms(atoms.symbols, cell=cell, scaled_positions=rng.random((len(atoms), 3)), pbc=True)
        weights = np.array([weight for *_, weight in alike])
        numbers, positions, cell, _, _ = alike[rng.choice(len(alike), p=weights / weights.sum())]
        atoms = Atoms(numbers, positions=positions + rng.normal(0, 0.4, (len(atoms), 3)), cell=cell, pbc=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.15, (3, 3))), scale_atoms=True)
        return atoms

    def save(self, folder):
        """Write weights and card; for torch models there is hybridcsp.generators.weights_io."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "weights.json").write_text(json.dumps(self.known))
        Path(folder, "card.json").write_text(json.dumps({"generator": self.name, **self.card}))

    @classmethod
    def load(cls, folder):
        """Read what was saved: each version that a search adopts comes from its folder."""
        return cls(json.loads(Path(folder, "weights.json").read_text()))


if __name__ == "__main__":
    problem = Problem("CuAu", formula_units=(1, 3))
    sources, retraining = ["random", GenerativeSource(problem, generator=NoisyCopies())], Retraining(new_minima=4)
    search = Search(problem, sources=sources, calculator="emt", retraining=retraining, workers=1)
    search.run(relaxations=20)
    print(*(update.detail for update in search.archive.state.model_updates["noisy-copies"]), sep="\n")
    tags = [search.archive.candidate(n).proposal.tag for n in range(1, search.archive.candidates + 1)]
    print(f"{sum(tag.get('version', 0) > 0 for tag in tags)} of {len(tags)} candidates are of trained versions")
