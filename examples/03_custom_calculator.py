"""Any ASE calculator: an object, or a function that makes one, which then runs in the worker processes."""

from ase.calculators.lj import LennardJones

from hybridcsp import Search


def argon() -> LennardJones:
    return LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0, smooth=True)


search = Search("Ar", formula_units=(1, 4), calculator=argon, directory="argon", seed=1)
search.run(relaxations=10)
for minimum in search.minima(3):
    print(minimum.spacegroup, minimum.enthalpy_per_atom)
