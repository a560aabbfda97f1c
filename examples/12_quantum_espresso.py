"""DFT: silicon with Quantum ESPRESSO, described by a DFT file; each worker process runs a pw.x of its own.

The settings are quick, not converged. Optionally the number of relaxations as an argument: each takes about a minute.
The same from the command line: hybridcsp search Si2 --calculator dft.toml --workers 2 --time-limit 3h
"""

import os
import shutil
import sys
from pathlib import Path

from hybridcsp import Limits, Search

FOLDER = Path(os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo"))
PSEUDOPOTENTIAL = "Si.pz-vbc.UPF"

if shutil.which("pw.x") is None:
    sys.exit("pw.x is not on the PATH: install Quantum ESPRESSO (Debian and Ubuntu: apt install quantum-espresso)")
if not (FOLDER / PSEUDOPOTENTIAL).exists():
    sys.exit(f"{PSEUDOPOTENTIAL} is not in {FOLDER}: set ESPRESSO_PSEUDO to the folder that has it, or name another")

Path("dft.toml").write_text(  # hybridcsp calculators template quantum-espresso explains all keys
    f"""
code = "quantum-espresso"
command = ["pw.x"]
kspacing = 0.6          # 1/Å with the factor 2 pi: as dense in every cell, so that energies can be compared
smearing = {{ kind = "cold", width = "0.01 Ry" }}

[pseudopotentials]
folder = "{FOLDER}"
Si = "{PSEUDOPOTENTIAL}"

[[stages]]              # coarse, to save time
cutoff = "12 Ry"
max_force = 0.3         # eV/Å

[[stages]]              # the last one gives the energies
cutoff = "20 Ry"
"""
)
search = Search(
    "Si2",
    formula_units=1,
    calculator="dft.toml",
    directory="silicon",
    workers=2,
    limits=Limits(force_calls=200, seconds=3 * 3600),  # of one relaxation
)
# Where pw.x fails or its SCF does not converge, that relaxation has failed, is counted, and the search goes on.
search.run(relaxations=int(sys.argv[1]) if len(sys.argv) > 1 else 10, refine=1)
for minimum in search.minima(3):
    print(minimum.spacegroup, minimum.enthalpy_per_atom, minimum.found_by.operator)
