"""GPAW through ASE, in any Python that has it: parallel runs and crashes are those of a program of their own."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from ase import Atoms

from hybridcsp.relaxation.calculators.dft.journal import arrays
from hybridcsp.relaxation.calculators.dft.kpoints import kpoint_grid
from hybridcsp.relaxation.calculators.dft.program import ProgramError, run_program, tail
from hybridcsp.relaxation.calculators.dft.pseudopotentials import Pseudopotentials
from hybridcsp.relaxation.calculators.dft.settings import DFTSettings
from hybridcsp.relaxation.calculators.jobs import Target

_INPUT, _OUTPUT, _RESULTS = "input.json", "gpaw.out", "results.json"

_SCRIPT = str(Path(__file__).parent / "scripts" / "gpaw_single_point.py")

#: Names of the distributions; that of Methfessel and Paxton of order 0 is a Gaussian.
_SMEARINGS: dict[str, dict[str, Any]] = {
    "gaussian": {"name": "methfessel-paxton", "order": 0},
    "fermi-dirac": {"name": "fermi-dirac"},
    "cold": {"name": "marzari-vanderbilt"},
    "methfessel-paxton": {"name": "methfessel-paxton", "order": 1},
}

#: Number of seconds in which the program must tell its version.
_SECONDS = 60.0


class Gpaw(DFTSettings):
    """Settings of GPAW with plane waves.

    Attributes
    ----------
    functional
        Exchange-correlation functional; the PAW setups must be made for it.
    pseudopotentials
        PAW setups, such as ``Si.PBE.gz`` or, of another kind, ``Ti.11.PBE.gz``.
    """

    code: Literal["gpaw"] = "gpaw"
    functional: str = "PBE"
    pseudopotentials: Pseudopotentials

    outputs: ClassVar[tuple[str, ...]] = (_OUTPUT, "gpaw.txt")
    reserved: ClassVar[dict[str, str]] = {
        "mode": "cutoff",
        "kpts": "kspacing",
        "occupations": "smearing",
        "spinpol": "spin",
        "xc": "functional",
        "setups": "pseudopotentials",
        "txt": "",
    }

    @property
    def elements(self) -> list[str]:
        """Elements that have a setup."""
        return self.pseudopotentials.elements

    def check_element(self, element: str) -> None:
        """Check that there is a setup of an element; errors as in the base class."""
        self.pseudopotentials.file(element)

    def digest_of_files(self) -> str:
        """Return a hash of the setups."""
        return self.pseudopotentials.digest()

    def read_version(self) -> str:
        """Return the version of GPAW; errors as in the base class."""
        return _version(tuple(self.argv))

    def write(self, folder: Path, atoms: Atoms, *, fresh: bool, target: Target | None = None) -> list[str]:
        """Write ``input.json``; parameters as in the base class."""
        (folder / _RESULTS).unlink(missing_ok=True)
        parameters: dict[str, Any] = {
            "xc": self.functional,
            "kpts": {"size": kpoint_grid(atoms.cell.array, self.kspacing), "gamma": True},
            "setups": {one: self._kind(one) for one in sorted(set(atoms.symbols))},
            "spinpol": self.spin,
        }
        if self.smearing:
            parameters["occupations"] = {**_SMEARINGS[self.smearing.kind], "width": self.smearing.width}
        else:
            parameters["occupations"] = {"name": "fixed-uniform"}
        given = {
            "numbers": atoms.numbers.tolist(),
            "cell": atoms.cell.array.tolist(),
            "positions": atoms.positions.tolist(),
            "magmoms": self.spins(atoms),
            "setup_path": str(self.pseudopotentials.folder),
            "cutoff": self.cutoff,
            "parameters": self.keywords | parameters,
        }
        (folder / _INPUT).write_text(json.dumps(given), encoding="utf-8")
        return [*self.argv, _SCRIPT, _INPUT, _RESULTS]

    def _kind(self, element: str) -> str:
        """Return the kind of the setup of an element, which stands between the symbol and the functional."""
        name = self.pseudopotentials.file(element).name.removesuffix(".gz")
        middle = name.removeprefix(f"{element}.").removesuffix(f".{self.functional}")
        return "paw" if middle in (name, self.functional) else middle

    def read(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """Return the results in ``results.json``; parameters and errors as in the base class."""
        return arrays(json.loads((folder / _RESULTS).read_text(encoding="utf-8")))


@cache
def _version(command: tuple[str, ...]) -> str:
    with TemporaryDirectory() as name:
        run_program([*command, _SCRIPT, "version"], Path(name), _OUTPUT, seconds=_SECONDS)
        found = re.search(r"^gpaw (\S+)", (Path(name) / _OUTPUT).read_text(errors="replace"), re.MULTILINE)
        if found is None:
            raise ProgramError(f"{command[0]} does not print the version of GPAW{tail(Path(name) / _OUTPUT)}")
    return found[1]
