"""DFT: silicon with Quantum ESPRESSO through ASE; each worker process has a pw.x of its own.

The settings are quick, not converged. Optionally the number of relaxations as an argument: each takes about a minute.
"""

import os
import shutil
import sys
from pathlib import Path

from ase.calculators.espresso import Espresso, EspressoProfile

from hybridcsp import Limits, Search

FOLDER = Path(os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo"))
PSEUDOPOTENTIAL = "Si.pz-vbc.UPF"

if shutil.which("pw.x") is None:
    sys.exit("pw.x is not on the PATH: install Quantum ESPRESSO (Debian and Ubuntu: apt install quantum-espresso)")
if not (FOLDER / PSEUDOPOTENTIAL).exists():
    sys.exit(f"{PSEUDOPOTENTIAL} is not in {FOLDER}: set ESPRESSO_PSEUDO to the folder that has it, or name another")


def espresso() -> Espresso:
    """Build the calculator: this is called once in each worker, and pw.x needs a folder for each."""
    return Espresso(
        profile=EspressoProfile("pw.x", pseudo_dir=FOLDER),
        directory=f"silicon/pw-{os.getpid()}",
        pseudopotentials={"Si": PSEUDOPOTENTIAL},
        kspacing=0.1,  # 1/Å, without 2 pi: as dense in every cell, so that energies can be compared
        input_data={
            "control": {"tprnfor": True, "tstress": True},  # forces, and the stress that relaxes cells
            "system": {"ecutwfc": 20, "occupations": "smearing", "smearing": "mv", "degauss": 0.01},
            "electrons": {"conv_thr": 1e-8},
        },
    )


search = Search(
    "Si2",
    formula_units=1,
    calculator=espresso,
    directory="silicon",
    workers=2,
    limits=Limits(force_calls=200, seconds=3 * 3600),  # of one relaxation
)
# Where pw.x fails or its SCF does not converge, that relaxation has failed, is counted, and the search goes on.
search.run(relaxations=int(sys.argv[1]) if len(sys.argv) > 1 else 10, refine=1)
for minimum in search.minima(3):
    print(minimum.spacegroup, minimum.enthalpy_per_atom, minimum.found_by.operator)
