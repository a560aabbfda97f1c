"""Quantum ESPRESSO's pw.x through ASE."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.espresso import EspressoTemplate
from ase.io.espresso import Namelist, write_espresso_in
from ase.units import Bohr, GPa, Rydberg
from pydantic import model_validator

from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.dft.kpoints import kpoint_grid
from hybridcsp.relaxation.calculators.dft.program import ProgramError, run_program, tail
from hybridcsp.relaxation.calculators.dft.pseudopotentials import Pseudopotentials
from hybridcsp.relaxation.calculators.dft.settings import DFTSettings, Energy
from hybridcsp.relaxation.calculators.jobs import Target

_INPUT, _OUTPUT = "espresso.pwi", "espresso.pwo"

#: Folder of wave functions and density, in that of the calculation.
_SAVED = "saved"

_SMEARINGS = {"gaussian": "gauss", "fermi-dirac": "fd", "cold": "mv", "methfessel-paxton": "mp"}

#: First version that reads starting magnetisations in μ_B. Earlier ones read a fraction of the valence electrons, and a
#: tenth of the moment is a sensible one.
_IN_MU_B = (7, 3)

#: Number of seconds in which the program must tell its version.
_SECONDS = 60.0


class QuantumEspresso(DFTSettings):
    """Settings of Quantum ESPRESSO.

    Attributes
    ----------
    pseudopotentials
        UPF files.
    density_cutoff
        Cutoff of the density in eV; by default four times that of the wave functions, which is enough for
        norm-conserving pseudopotentials only.
    """

    code: Literal["quantum-espresso"] = "quantum-espresso"
    pseudopotentials: Pseudopotentials
    density_cutoff: Energy | None = None

    relaxes: ClassVar[bool] = True
    outputs: ClassVar[tuple[str, ...]] = (_OUTPUT, "CRASH")
    reserved: ClassVar[dict[str, str]] = {
        "ecutwfc": "cutoff",
        "ecutrho": "density_cutoff",
        "smearing": "smearing",
        "degauss": "smearing",
        "nspin": "spin",
        "starting_magnetization": "moments",
        "pseudo_dir": "pseudopotentials",
        **dict.fromkeys(
            ("calculation", "outdir", "wfcdir", "prefix", "tprnfor", "tstress", "ibrav", "nat", "ntyp", "press"), ""
        ),
        **dict.fromkeys(("nstep", "startingpot", "startingwfc", "restart_mode", "forc_conv_thr", "press_conv_thr"), ""),
    }

    @model_validator(mode="after")
    def _check_keywords(self) -> QuantumEspresso:
        nested = Namelist(dict(self.keywords))
        nested.to_nested("pw")
        sections = {name: dict(table) for name, table in nested.items()}
        if self.smearing and "occupations" in sections.get("system", {}):
            value = sections["system"]["occupations"]
            raise InputError("keywords.occupations", value, reason="it is not used with smearing; set smearing = false")
        for key in self.keywords:
            if key not in sections and not any(key in table for table in sections.values()):
                reason = (
                    "pw.x has no such keyword or namelist; the namelists are control, system, electrons, ions, cell"
                )
                raise InputError(f"keywords.{key}", self.keywords[key], reason=reason)
        return self

    @property
    def elements(self) -> list[str]:
        """Elements that have a pseudopotential."""
        return self.pseudopotentials.elements

    def check_element(self, element: str) -> None:
        """Check that there is a pseudopotential of an element; errors as in the base class."""
        self.pseudopotentials.file(element)

    def digest_of_files(self) -> str:
        """Return a hash of the pseudopotentials."""
        return self.pseudopotentials.digest()

    def read_version(self) -> str:
        """Return the version of pw.x, which it prints for any input; errors as in the base class."""
        return _version(tuple(self.argv))

    def write(self, folder: Path, atoms: Atoms, *, fresh: bool, target: Target | None = None) -> list[str]:
        """Write ``espresso.pwi``; parameters as in the base class."""
        saved = folder / _SAVED
        if fresh:
            shutil.rmtree(saved, ignore_errors=True)
        reused = (saved / "pwscf.save" / "data-file-schema.xml").exists()
        table = Namelist(
            {key: dict(value) if isinstance(value, dict) else value for key, value in self.keywords.items()}
        )
        table.to_nested("pw")
        table["control"].update(
            calculation="scf" if target is None else "relax" if target.fixed_cell else "vc-relax",
            outdir=f"./{_SAVED}",
            prefix="pwscf",
            pseudo_dir=str(self.pseudopotentials.folder),
            tprnfor=True,
            tstress=True,
        )
        table["system"].update(self._system())
        table["electrons"].setdefault("conv_thr", 1e-8)
        if reused:
            table["electrons"].update(startingpot="file", startingwfc="file")
        if target is not None:
            table["control"].update(nstep=target.steps, forc_conv_thr=target.max_force / (Rydberg / Bohr))
            table["control"].setdefault("etot_conv_thr", 1e-5)
            if not target.fixed_cell:
                in_kbar = 10 / GPa
                table["cell"].update(press=target.pressure * in_kbar, press_conv_thr=target.max_stress * in_kbar)
        moments = (
            {"rescale_magmom_fac": 1.0 if _numbers(self.read_version()) >= _IN_MU_B else 10.0} if self.spin else {}
        )
        with (folder / _INPUT).open("w", encoding="utf-8") as file:
            write_espresso_in(
                file,
                atoms,
                input_data=table,
                pseudopotentials={one: self.pseudopotentials.file(one).name for one in set(atoms.symbols)},
                kpts=kpoint_grid(atoms.cell.array, self.kspacing),
                **moments,
            )
        for old in ("CRASH", _OUTPUT):
            (folder / old).unlink(missing_ok=True)
        return [*self.argv, "-in", _INPUT]

    def _system(self) -> dict[str, Any]:
        found: dict[str, Any] = {"ecutwfc": self.cutoff / Rydberg}
        if self.density_cutoff is not None:
            found["ecutrho"] = self.density_cutoff / Rydberg
        if self.smearing:
            width = self.smearing.width / Rydberg
            found |= {"occupations": "smearing", "smearing": _SMEARINGS[self.smearing.kind], "degauss": width}
        if self.spin:
            found["nspin"] = 2
        return found

    def read(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """Return the results in ``espresso.pwo``; parameters and errors as in the base class."""
        _check_output(folder / _OUTPUT)
        results = dict(EspressoTemplate().read_results(folder))
        results.pop("magmoms", None)  # ASE takes another column of the output of some versions
        text = (folder / _OUTPUT).read_text(errors="replace")
        moments = re.findall(r"^\s*atom:?\s+\d+.*?\bmagn[=:]\s*(-?\d+\.\d+)", text, re.MULTILINE)[-len(atoms) :]
        if self.spin and len(moments) == len(atoms):
            results["magmoms"] = np.array(moments, dtype=float)
        return results

    def read_relaxed(self, folder: Path, atoms: Atoms) -> tuple[Atoms, int]:
        """Return the last structure in ``espresso.pwo``; parameters and errors as in the base class."""
        images = ase.io.read(folder / _OUTPUT, index=":", format="espresso-out")
        text = (folder / _OUTPUT).read_text(errors="replace")
        return images[-1], max(1, len(re.findall(r"^!", text, re.MULTILINE)))


@cache
def _version(command: tuple[str, ...]) -> str:
    """Return the version that the program prints before it misses its input."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            run_program(command, folder, _OUTPUT, seconds=_SECONDS)
        except ProgramError as error:  # there is no input, so that it fails in any case
            if "cannot be started" in str(error):
                raise
        found = re.search(r"Program PWSCF v\.\s*(\S+)", (folder / _OUTPUT).read_text(errors="replace"))
        if found is None:
            raise ProgramError(f"{command[0]} does not print the version of pw.x{tail(folder / _OUTPUT)}")
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _check_output(file: Path) -> None:
    """Check that a calculation has ended and its density has converged.

    Raises
    ------
    ProgramError
        If not.
    """
    text = file.read_text(errors="replace")
    if "convergence NOT achieved" in text:
        raise ProgramError(
            f"the density did not converge (more steps: keywords.electrons.electron_maxstep){tail(file)}"
        )
    if "JOB DONE" not in text:
        raise ProgramError(f"the output is incomplete{tail(file)}")
