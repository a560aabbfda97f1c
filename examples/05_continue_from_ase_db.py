"""Going on from structures in a database of ASE: those with energies count as found, those without are seeds.

The database is known.db; where there is none, a small one is made.
"""

from pathlib import Path

import ase.db
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from hybridcsp import Search

DATABASE = Path("known.db")


def relaxed(atoms: Atoms) -> Atoms:
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05)
    return atoms


if not DATABASE.exists():
    with ase.db.connect(DATABASE) as begun:
        begun.write(relaxed(bulk("Cu", "fcc", a=3.6)), relaxed=True)
        begun.write(relaxed(bulk("Cu", "hcp", a=2.6, c=4.2)), relaxed=True)
        begun.write(bulk("Cu", "bcc", a=2.9))
        begun.write(bulk("Cu", "sc", a=2.4))

search = Search(
    "Cu",
    formula_units=(1, 4),
    calculator="emt",  # the one that the energies in the database come from: only like energies can be compared
    sources=[f"seeds:{DATABASE}", "basin-hopping"],  # it starts at the best minima, including those of the database
    directory="copper",
    workers=1,
)
if search.archive.candidates == 0:  # not when this script goes on with the search
    for row in ase.db.connect(DATABASE).select(relaxed=True):
        search.add(row.toatoms())
search.run(relaxations=12)
for minimum in search.minima(5):
    print(minimum.spacegroup, minimum.enthalpy_per_atom, minimum.found_by.source, minimum.multiplicity)
