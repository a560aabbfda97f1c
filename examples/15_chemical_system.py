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
state = search.archive.state
print("on the hull:", *state.hull.stable)
for minimum in search.minima(8):
    formula, height = state.formula_of(minimum.found_by.id), state.height(state.basins[minimum.id])
    known = "known" if minimum.id in state.references else ""
    print(f"{formula:6s} {1000 * height:6.1f} meV/atom  {minimum.spacegroup:3d} {known}")
