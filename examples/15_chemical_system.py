"""All compositions of copper and gold with the EMT potential, and which of them lie on the convex hull."""

from ase.build import bulk
from ase.io import write

from hybridcsp import Search

write("known.extxyz", [bulk("Cu"), bulk("Au")])  # known phases, which are relaxed with the potential of the search
search = Search(
    "Cu-Au",
    composition_grid=4,  # all formulas of at most four atoms
    max_atoms=8,
    references=["known.extxyz"],
    sources=["random", "prototypes", "evolution"],
    calculator="emt",
    directory="cu-au",
)
search.run(relaxations=50)
print("on the hull:", *search.archive.state.hull.stable)
for minimum in search.minima(8):
    known = "known" if minimum.is_known_phase else ""
    print(f"{minimum.composition:6s} {1000 * minimum.above_hull:6.1f} meV/atom  {minimum.spacegroup:3d} {known}")
