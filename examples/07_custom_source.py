"""A source of your own beside ours: it stretches and shears the best minimum found so far."""

from collections.abc import Sequence

import numpy as np

from hybridcsp import Proposal, Search
from hybridcsp.sources.base import BaseSource, Context


class Strained(BaseSource):
    """Proposes strained copies of the best minimum."""

    name = "strained"

    def propose(self, n: int, context: Context) -> Sequence[Proposal]:
        """Offer nothing until there is a minimum; all randomness comes from the context."""
        best = context.archive.minima(1)
        if not best:
            return []
        atoms = best[0].atoms
        strain = np.eye(3) + context.rng.normal(0, 0.3, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        return [Proposal(atoms=atoms, operator="strain", parents=(best[0].found_by.id,))]


search = Search(
    "CuAu",
    formula_units=(2, 4),
    calculator="emt",
    sources=["random", Strained()],
    allocation="equal",  # half of the relaxations each; by default the source that is likelier to succeed gets more
    directory="cuau",
    workers=1,
)
search.run(relaxations=12)
for minimum in search.minima(3):
    print(minimum.spacegroup, minimum.enthalpy_per_atom, minimum.found_by.source)
for (source, _), tally in search.archive.state.tallies.items():
    print(f"{source}: {tally.relaxed} relaxed, {tally.first_reached} new minima")
