import numpy as np
from crystals import rutile

from hybridcsp.structure.conversion import from_pymatgen, to_pymatgen


def test_conversion_to_pymatgen_and_back_preserves_the_structure():
    atoms = rutile()
    again = from_pymatgen(to_pymatgen(atoms))
    assert np.allclose(again.positions, atoms.positions)
    assert np.allclose(again.cell.array, atoms.cell.array)
    assert (again.numbers == atoms.numbers).all()
