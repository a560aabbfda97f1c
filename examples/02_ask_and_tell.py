"""Your own relaxation in the middle; here ASE's FIRE with EMT, it might be a DFT queue that takes days."""

from ase import Atoms
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from hybridcsp import Search


def relax(atoms: Atoms) -> tuple[int, bool]:
    atoms.calc = EMT()
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    converged = optimizer.run(fmax=0.05, steps=200)
    return optimizer.nsteps + 1, bool(converged)


search = Search("CuAu3", formula_units=1, calculator=None, directory="cuau3")
search.ask(max(0, 4 - len(search.pending())))

# What was asked for is kept: if this script is killed here and started again, the same candidates are pending.
for candidate in search.pending():
    atoms = candidate.atoms
    try:
        force_calls, converged = relax(atoms)
    except ValueError as error:
        search.fail(candidate, f"could not be relaxed: {error}")
    else:
        search.tell(candidate, atoms, force_calls=force_calls, converged=converged)

for minimum in search.minima():
    print(minimum.spacegroup, minimum.enthalpy_per_atom, minimum.multiplicity)
