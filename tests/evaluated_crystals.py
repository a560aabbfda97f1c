"""Evaluated crystals, and sizes of networks that are trained within a second."""

from dataclasses import replace

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.potentials.architecture import MaceSizes
from hybridcsp.potentials.committee import TRAINING
from hybridcsp.potentials.evaluations import Evaluations

TINY = MaceSizes(channels=4, angular=1, correlation=1, interactions=1, radial=4, cutoff=4.0)
SHORT = replace(TRAINING, epochs=4, batch_size=6)


def crystals(trajectories=5, steps=4):
    """Return evaluations of deformed copper and silver by EMT."""
    rng = np.random.default_rng(1)
    data = Evaluations(calculator="emt")
    for trajectory in range(trajectories):
        symbol = "Cu" if trajectory % 2 else "Ag"
        for _ in range(steps):
            atoms = bulk(symbol, "fcc", a=3.6 + 0.3 * rng.random(), cubic=True)
            atoms.positions += rng.normal(scale=0.1, size=(4, 3))
            atoms.calc = EMT()
            results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            results["stress"] = atoms.get_stress()
            atoms.calc = SinglePointCalculator(atoms, **results)
            data.frames.append(atoms)
            data.trajectories.append(f"trajectory {trajectory}")
    return data
