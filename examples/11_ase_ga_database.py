"""What hybridcsp found goes into the database of an ase-ga run (pip install ase-ga), which then breeds from it.

The database is cuau-ga.db; where there is none, one is made with two starting candidates. Run again, it adds what is
new.
"""

import sys
from pathlib import Path

from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup import crystal

from hybridcsp import Search
from hybridcsp.operators.ase_ga import individual

try:
    from ase_ga.data import DataConnection, PrepareDB
    from ase_ga.population import Population
    from ase_ga.standard_comparators import EnergyComparator
except ImportError:
    sys.exit("this script needs ase-ga: pip install ase-ga")

DATABASE = Path("cuau-ga.db")


def scored(atoms: Atoms, energy: float, enthalpy: float, confid: int) -> Atoms:
    """Return a structure as ase-ga wants it: sorted, tagged, with a score that is the higher the better."""
    result = individual(atoms, confid)
    result.calc = SinglePointCalculator(result, energy=energy)
    result.info["key_value_pairs"]["raw_score"] = -enthalpy
    return result


if not DATABASE.exists():
    begun = PrepareDB(str(DATABASE), simulation_cell=Atoms(pbc=True), stoichiometry=[29, 29, 79, 79], population_size=8)
    for number, length in enumerate((3.9, 4.1)):
        start = crystal("CuAu", [(0, 0, 0), (0.5, 0, 0.5)], spacegroup=123, cellpar=[length] * 3 + [90] * 3)
        start.calc = EMT()
        energy = start.get_potential_energy()
        begun.add_relaxed_candidate(scored(start, energy, energy, number))

# The same contents as in the database: all cells of an ase-ga run hold the same atoms.
search = Search("Cu2Au2", formula_units=1, calculator="emt", directory="cuau", seed=1)
search.run(relaxations=10, refine=0)

database = DataConnection(str(DATABASE))
for minimum in search.minima():
    if not database.is_duplicate(hybridcsp=minimum.id):
        found = minimum.best
        one = scored(found.atoms, found.evaluation.energy, found.evaluation.enthalpy, minimum.id)
        one.info["key_value_pairs"] |= {"hybridcsp": minimum.id, "origin": f"hybridcsp {minimum.found_by.operator}"}
        database.add_relaxed_candidate(one)

for one in Population(database, population_size=8, comparator=EnergyComparator(dE=0.01)).get_current_population():
    print(f"{one.info['key_value_pairs']['origin']:25} {-one.info['key_value_pairs']['raw_score']:8.4f} eV")
