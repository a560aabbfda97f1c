"""Short searches for copper that relax structures instantly."""

import numpy as np
from crystals import InlineBackend, P1Source, instant_relaxation, random_crystal

from hybridcsp import Search

COPPER = {"formula_units": (1, 4), "distance_fraction": 0.05}


def search(directory, *sources, runner=instant_relaxation, capacity=1, **options):
    return Search(
        "Cu",
        calculator=None,
        directory=directory,
        sources=sources or [P1Source()],
        backend=InlineBackend(runner, capacity),
        **COPPER,
        **options,
    )


def crystals(n, seed=0):
    rng = np.random.default_rng(seed)
    return [random_crystal("Cu2", 20, rng) for _ in range(n)]
