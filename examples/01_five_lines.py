"""A whole search: TiO2 with CHGNet. Optionally the number of relaxations as an argument."""

import sys

from hybridcsp import Search

search = Search("TiO2", formula_units=(1, 4), calculator="chgnet", directory="tio2")
search.run(relaxations=int(sys.argv[1]) if len(sys.argv) > 1 else 100)
for minimum in search.minima(5):
    print(minimum.spacegroup, minimum.enthalpy_per_atom)
