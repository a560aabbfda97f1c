"""VASP through ASE."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import ase.calculators.vasp as ase_vasp
import ase.io
from ase import Atoms
from ase.calculators.vasp.create_input import count_symbols
from ase.units import GPa
from pydantic import model_validator

from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.dft.kpoints import kpoint_grid
from hybridcsp.relaxation.calculators.dft.program import ProgramError, tail
from hybridcsp.relaxation.calculators.dft.pseudopotentials import Pseudopotentials
from hybridcsp.relaxation.calculators.dft.settings import DFTSettings
from hybridcsp.relaxation.calculators.jobs import Target

_OUTPUT = "vasp.out"

#: Name of the file in the folder of each potential.
_POTCAR = "POTCAR"

_SMEARINGS = {"gaussian": 0, "fermi-dirac": -1, "methfessel-paxton": 1}


class Vasp(DFTSettings):
    """Settings of VASP.

    Attributes
    ----------
    version
        Version of the program, such as ``"6.4.2"``, which cannot be asked for it. Every calculation is compared with
        it.
    pseudopotentials
        Folders that contain a file ``POTCAR`` each, such as those in ``potpaw_PBE.54``.
    """

    code: Literal["vasp"] = "vasp"
    version: str
    pseudopotentials: Pseudopotentials

    relaxes: ClassVar[bool] = True
    tells_version: ClassVar[bool] = False
    smearings: ClassVar[tuple[str, ...]] = tuple(_SMEARINGS)
    outputs: ClassVar[tuple[str, ...]] = (_OUTPUT, "OUTCAR", "vasprun.xml")
    reserved: ClassVar[dict[str, str]] = {
        "encut": "cutoff",
        "kspacing": "kspacing",
        "kpts": "kspacing",
        "gamma": "kspacing",
        "reciprocal": "kspacing",
        "ismear": "smearing",
        "sigma": "smearing",
        "ispin": "spin",
        "magmom": "moments",
        "setups": "pseudopotentials",
        "pp": "pseudopotentials",
        "command": "command",
        **dict.fromkeys(("nsw", "ibrion", "isif", "pstress", "ediffg", "istart", "icharg", "lwave", "lcharg"), ""),
        **dict.fromkeys(("directory", "label", "txt", "atoms", "restart", "ignore_bad_restart_file"), ""),
    }

    @model_validator(mode="after")
    def _check_keywords(self) -> Vasp:
        for key, value in self.keywords.items():
            try:
                ase_vasp.Vasp(**{key: value})
            except (TypeError, ValueError, NotImplementedError) as error:
                reason = f"it cannot be written as a tag of INCAR ({error})"
                raise InputError(f"keywords.{key}", value, reason=reason) from error
        return self

    @property
    def elements(self) -> list[str]:
        """Elements that have a pseudopotential."""
        return self.pseudopotentials.elements

    def check_element(self, element: str) -> None:
        """Check that there is a pseudopotential of an element; errors as in the base class."""
        if not (self.pseudopotentials.file(element) / _POTCAR).is_file():
            raise InputError(
                f"pseudopotentials.{element}",
                self.pseudopotentials.file(element),
                "a folder that contains a file POTCAR",
            )

    def digest_of_files(self) -> str:
        """Return a hash of the pseudopotentials."""
        return self.pseudopotentials.digest(_POTCAR)

    def read_version(self) -> str:
        """Return the version that the file names."""
        return self.version

    def write(self, folder: Path, atoms: Atoms, *, fresh: bool, target: Target | None = None) -> list[str]:
        """Write ``INCAR``, ``POSCAR``, ``KPOINTS`` and ``POTCAR``; parameters as in the base class."""
        grid = kpoint_grid(atoms.cell.array, self.kspacing)
        before = _grid(folder)
        if fresh or before != grid:  # wave functions at other k-points are of no use
            (folder / "WAVECAR").unlink(missing_ok=True)
        for old in (_OUTPUT, "OUTCAR", "vasprun.xml", "CONTCAR", "CHGCAR"):
            (folder / old).unlink(missing_ok=True)
        self._calculator(folder, grid, target).write_input(atoms)
        return self.argv

    def _calculator(self, folder: Path, grid: tuple[int, int, int], target: Target | None) -> _Vasp:
        tags: dict[str, Any] = {"encut": self.cutoff, "kpts": grid, "gamma": True, "lcharg": False}
        tags |= {"ispin": 2 if self.spin else 1, "lwave": self.restart}
        if "ediff" not in self.keywords:
            tags["ediff"] = 1e-6  # with that of VASP, 1e-4, forces are too inaccurate to relax
        if self.spin and "lorbit" not in self.keywords:
            tags["lorbit"] = 11  # without it, OUTCAR has no magnetic moments of atoms
        if self.smearing:
            tags |= {"ismear": _SMEARINGS[self.smearing.kind], "sigma": self.smearing.width}
        else:
            tags |= {"ismear": -5}
        if target is None:
            tags |= {"nsw": 0, "ibrion": -1, "isif": 2}
        else:
            tags |= {"nsw": target.steps, "ibrion": 2, "isif": 2 if target.fixed_cell else 3}
            tags |= {"ediffg": -target.max_force, "pstress": 10 * target.pressure / GPa}  # kbar
        return _Vasp(self.pseudopotentials, directory=str(folder), **(self.keywords | tags))

    def read(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """Return the results in ``vasprun.xml`` and ``OUTCAR``; parameters and errors as in the base class."""
        calculator = self._calculator(folder, kpoint_grid(atoms.cell.array, self.kspacing), None)
        calculator.initialize(atoms)
        calculator.read_results()
        self._check_version(calculator.read_version())
        if not calculator.read_convergence():
            raise ProgramError(f"the electrons did not converge (NELM, ALGO){tail(folder / _OUTPUT)}")
        results = dict(calculator.results)
        if not self.spin:
            results.pop("magmoms", None)
        return results

    def read_relaxed(self, folder: Path, atoms: Atoms) -> tuple[Atoms, int]:
        """Return the structure in ``CONTCAR``; parameters and errors as in the base class."""
        calculator = self._calculator(folder, kpoint_grid(atoms.cell.array, self.kspacing), None)
        calculator.initialize(atoms)
        if (found := calculator.read_version()) is not None:
            self._check_version(found)
        end = ase.io.read(folder / "CONTCAR", format="vasp")[calculator.resort]
        steps = 1
        with suppress(Exception):  # the readers of ASE raise anything for an incomplete file
            steps = len(ase.io.read(folder / "vasprun.xml", index=":", format="vasp-xml"))
        return end, steps

    def _check_version(self, found: str | None) -> None:
        if found is None or not (found == self.version or found.startswith(f"{self.version}.")):
            raise ProgramError(f"the program is VASP {found}, but the file says version = {self.version!r}")


class _Vasp(ase_vasp.Vasp):  # type: ignore[misc]
    """ASE's calculator with potentials from any folder; it writes input and reads output, and starts nothing."""

    def __init__(self, pseudopotentials: Pseudopotentials, **options: Any) -> None:
        self._pseudopotentials = pseudopotentials
        super().__init__(**options)

    def _build_pp_list(self, atoms: Atoms, setups: Any = None, special_setups: Any = ()) -> list[str]:
        symbols, _ = count_symbols(atoms, exclude=special_setups)
        return [str(self._pseudopotentials.file(symbol) / _POTCAR) for symbol in symbols]


def _grid(folder: Path) -> tuple[int, ...] | None:
    """Return the grid of k-points in the folder of the calculation before."""
    with suppress(OSError, ValueError, IndexError):
        return tuple(int(part) for part in (folder / "KPOINTS").read_text().splitlines()[3].split())
    return None
