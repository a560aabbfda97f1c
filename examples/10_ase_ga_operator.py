"""Operators of ase-ga (pip install ase-ga) in our evolution, beside ours: its rattle, and its cut-and-splice."""

import sys
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from hybridcsp import Problem, Search
from hybridcsp.operators import OPERATORS, WeightedOperator
from hybridcsp.operators.ase_ga import AseGaOperator, Distances, cut_and_splice
from hybridcsp.sources.evolution import EvolutionSource

try:
    from ase_ga.standardmutations import RattleMutation
except ImportError:
    sys.exit("this script needs ase-ga: pip install ase-ga")


def rattle(parents: Sequence[Atoms], blmin: Distances, rng: np.random.RandomState) -> RattleMutation:
    """Build the operator: called for every child, with parents and shortest distances in ase-ga's own form."""
    return RattleMutation(blmin, n_top=len(parents[0]), rattle_strength=0.5, rng=rng)


problem = Problem("CuAu", formula_units=(2, 4))
theirs = [
    WeightedOperator(AseGaOperator(rattle, name="ase-ga-rattle"), prior=9.0),
    WeightedOperator(cut_and_splice(), prior=9.0),
]
evolution = EvolutionSource(problem, operators=[*OPERATORS, *theirs])
# Searching alone, evolution begins with random crystals, and breeds as soon as there are six minima.
search = Search(problem, calculator="emt", sources=[evolution], directory="cuau", seed=2, workers=1)
search.run(relaxations=24, refine=0)
for (source, operator), tally in search.archive.state.tallies.items():
    print(f"{source:10} {operator:22} {tally.relaxed:3} relaxed, {tally.first_reached} new minima")
