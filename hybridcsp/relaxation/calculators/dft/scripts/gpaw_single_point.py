"""Single point of GPAW, run by the Python that has GPAW: ``python gpaw_single_point.py INPUT OUTPUT``.

It needs only GPAW and the ASE below it, imports nothing of hybridcsp, and is written for Python 3.9. Input and output
are JSON. ``version`` in place of both prints the version of GPAW.
"""

# ruff: noqa: PTH123, T201 - it runs on its own

from __future__ import annotations

import json
import sys


def main(source: str, target: str) -> None:
    """Read the structure and the parameters, compute, and write the results."""
    from ase import Atoms
    from gpaw import GPAW, PW, setup_paths
    from gpaw.mpi import world

    with open(source) as file:
        given = json.load(file)
    setup_paths.insert(0, given["setup_path"])
    atoms = Atoms(given["numbers"], cell=given["cell"], positions=given["positions"], pbc=True)
    if given["magmoms"] is not None:
        atoms.set_initial_magnetic_moments(given["magmoms"])
    atoms.calc = GPAW(mode=PW(given["cutoff"]), txt="gpaw.txt", **given["parameters"])
    results = {
        "energy": float(atoms.get_potential_energy()),
        "free_energy": float(atoms.get_potential_energy(force_consistent=True)),
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress().tolist(),
    }
    if given["magmoms"] is not None:
        results["magmoms"] = atoms.get_magnetic_moments().tolist()
    if world.rank == 0:
        with open(target, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    if sys.argv[1:] == ["version"]:
        import gpaw

        print("gpaw", gpaw.__version__)
    else:
        main(*sys.argv[1:])
