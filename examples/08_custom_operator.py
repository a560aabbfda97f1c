"""An operator of your own in evolution, beside ours: it slides one half of a crystal along the cut."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp import Problem, Search
from hybridcsp.operators import OPERATORS, Operator, WeightedOperator
from hybridcsp.operators.common import finish
from hybridcsp.sources.evolution import EvolutionSource


@dataclass(frozen=True)
class Slip(Operator):
    """Half of the crystal slides over the other half, by any vector in the plane between them."""

    name: str = "slip"

    def applies_to(self, problem: Problem) -> bool:
        """Nothing can slide where there is one atom only."""
        return problem.units[-1] * problem.atoms_per_unit > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child, or None; all randomness comes from rng, and parents stay as they are."""
        (parent,) = parents
        axis, (along, across) = rng.integers(3), rng.random(2)
        scaled = parent.get_scaled_positions()
        upper = (scaled[:, axis] + rng.random()) % 1.0 > 0.5
        scaled[np.ix_(upper, [axis - 1])] += along
        scaled[np.ix_(upper, [axis - 2])] += across
        child = parent.copy()
        child.set_scaled_positions(scaled)
        # None where atoms overlap or a bound of the problem is not kept; the child keeps its parents' scale of volume.
        return finish(child, problem, parents=parents)


problem = Problem("CuAu", formula_units=(2, 4))
# Twice the share of heredity to begin with; after that it gets what it earns, as every operator does.
evolution = EvolutionSource(problem, operators=[*OPERATORS, WeightedOperator(Slip(), prior=6.0)])
# Searching alone, evolution begins with random crystals, and breeds as soon as there are six minima.
search = Search(problem, calculator="emt", sources=[evolution], directory="cuau", seed=1, workers=1)
search.run(relaxations=24, refine=0)
tallies = search.archive.state.tallies
for (source, operator), tally in tallies.items():
    print(f"{source:10} {operator:20} {tally.relaxed:3} relaxed, {tally.first_reached} new minima")
print(f"slip made {tallies[evolution.name, 'slip'].relaxed} of {search.archive.state.relaxations} relaxations")
