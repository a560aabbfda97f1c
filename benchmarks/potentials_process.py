"""Evaluate one calculator in the interpreter that runs this, as `potentials.py` asks on the standard input.

    python benchmarks/potentials_process.py NAME [PYTHON]

NAME is a calculator of hybridcsp; with PYTHON, it runs in a calculator server of that interpreter. Or it is
``served:sevennet`` and the like, the calculator that such a server builds, in this process and without the rest of
hybridcsp; ``sevenn:MODEL`` or ``sevenn:MODEL:MODAL``, SevenNet's own calculator; ``chgnet-own``, CHGNet's own.

Each line of input is ``{"elements": [...], "atoms": 6, "seeds": [0, 1, ...]}``: one crystal a seed is evaluated. The
answer is one line: for each crystal the milliseconds of energy, forces and stress, and their values.
"""

import json
import os
import sys
import time
import warnings
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import make_supercell

#: Supercells of a rutile cell of 6 atoms by their number of atoms.
SUPERCELLS = {6: (1, 1, 1), 12: (1, 1, 2), 24: (2, 1, 2), 48: (2, 2, 2)}


def crystal(elements, n_atoms, seed):
    """Return rutile with displaced atoms and a strained cell; each seed gives another geometry."""
    a, c, u = 4.6, 2.96, 0.305
    metal, other = elements
    positions = [(0, 0, 0), (0.5, 0.5, 0.5), (u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5), (0.5 - u, 0.5 + u, 0.5)]
    rutile = Atoms([metal] * 2 + [other] * 4, scaled_positions=positions, cell=[a, a, c], pbc=True)
    atoms = make_supercell(rutile, np.diag(SUPERCELLS[n_atoms]))
    rng = np.random.default_rng([seed, n_atoms])
    strain = np.eye(3) + rng.normal(scale=0.01, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += rng.normal(scale=0.03, size=(n_atoms, 3))
    return atoms


def build(name, python=None):
    """Return the calculator."""
    if name.startswith("sevenn:"):
        import torch
        from sevenn.calculator import SevenNetCalculator

        torch.set_num_threads(1)
        _, model, *modal = name.split(":")
        return SevenNetCalculator(model, device="cpu", **({"modal": modal[0]} if modal else {}))
    if name.startswith("served:"):
        return server_package().build(*name.split(":", 2)[1:])[0]
    if name == "chgnet-own":
        import torch
        from chgnet.model.dynamics import CHGNetCalculator

        torch.set_num_threads(1)
        return CHGNetCalculator(use_device="cpu")
    from hybridcsp.relaxation.calculators.registry import build_calculator

    if python is None:
        return build_calculator(name)[0]
    from hybridcsp.relaxation.calculators.choice import CalculatorChoice

    return build_calculator(CalculatorChoice(calculator=name, python=python))[0]


def server_package():
    """Return the module with the builders of hybridcsp's calculator servers, which needs no other part of hybridcsp."""
    folder = Path(__file__).parents[1] / "hybridcsp" / "relaxation" / "calculators" / "server"
    name = "hybridcsp_server"
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    package = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(package)
    return import_module(f"{name}.builders")


def evaluate(calculator, atoms):
    """Return the milliseconds of energy, forces and stress, and their values."""
    start = time.perf_counter()
    calculator.calculate(atoms, ["energy", "forces", "stress"])
    found = {name: np.asarray(calculator.results[name], dtype=float) for name in ("energy", "forces", "stress")}
    milliseconds = 1000 * (time.perf_counter() - start)
    if found["stress"].shape == (3, 3):
        found["stress"] = found["stress"].reshape(-1)[[0, 4, 8, 5, 2, 1]]
    return {"ms": milliseconds, **{name: value.tolist() for name, value in found.items()}}


def main():
    """Answer one line after the other."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.filterwarnings("ignore")
    calculator = build(*sys.argv[1:])
    for line in sys.stdin:
        asked = json.loads(line)
        crystals = [crystal(asked["elements"], asked["atoms"], seed) for seed in asked["seeds"]]
        answers.write(json.dumps([evaluate(calculator, atoms) for atoms in crystals]) + "\n")
        answers.flush()
    getattr(calculator, "close", lambda: None)()


if __name__ == "__main__":
    main()
