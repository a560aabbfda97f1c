"""Two levels: a fast potential searches, and a better calculator relaxes and ranks the best of what it found.

Names of two calculators may be given: 06_two_levels.py chgnet mace:medium-mpa-0. For the second, DFT is more usual:
put a function that builds the calculator in its place, as in 12_quantum_espresso.py. Run again, it goes on where it
was.
"""

import sys
from pathlib import Path

import ase.io

from hybridcsp import Problem, Search

FAST, BETTER = sys.argv[1:] or ("emt", "chgnet")
BEST = 4

problem = Problem("CuAu", formula_units=(1, 2))
with Search(problem, calculator=FAST, sources=["random", "prototypes"], directory="level-1", seed=3) as first:
    first.run(relaxations=10)
    best = first.minima(BEST)

seeds = Path("level-1-best.extxyz")
ase.io.write(seeds, [minimum.atoms for minimum in best])

# Energies of different calculators are never mixed, so the second level is a search, and a directory, of its own. It
# has no source but the seeds: each is relaxed once, and the ranking is the second calculator's alone.
with Search(problem, calculator=BETTER, sources=[f"seeds:{seeds}"], directory="level-2") as second:
    second.run(relaxations=len(best))
    for rank, minimum in enumerate(second.minima(), start=1):
        before = minimum.found_by.proposal.tag["frame"] + 1
        print(f"{rank}. {minimum.enthalpy_per_atom:9.4f} eV/atom, space group {minimum.spacegroup:3}; was {before}.")
