"""Two levels: a fast potential searches, and a better calculator relaxes the best minima again and ranks them.

Names of two calculators may be given: 06_two_levels.py chgnet sevennet:l3i5. The second may also be a DFT file, as in
12_quantum_espresso.py. Run again, it continues where it ended.
"""

import sys

from hybridcsp import FollowUp, Problem, Search

FAST, BETTER = sys.argv[1:] or ("emt", "chgnet")

# The best four minima of the search, and no others, are relaxed by the better calculator.
then = FollowUp(calculators=[BETTER], best=4, window=0.0)
problem = Problem("CuAu", formula_units=(1, 2))
sources = ["random", "prototypes"]
with Search(problem, calculator=FAST, then=then, sources=sources, directory="two-levels", seed=3) as search:
    search.run(relaxations=10)
    for rank, minimum in enumerate(search.minima(), start=1):
        if not minimum.follow_ups:  # minima without a result of the better calculator are the last
            break
        print(
            f"{rank}. {minimum.final.enthalpy_per_atom:9.4f} eV/atom, space group {minimum.spacegroup:3};"
            f" was {minimum.search_rank}{', the calculators disagree' if minimum.disagrees() else ''}"
        )
