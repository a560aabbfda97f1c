"""ABINIT through ASE."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from ase import Atoms
from ase.io.abinit import read_abinit_outputs, write_abinit_in
from pydantic import model_validator

from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.dft.kpoints import kpoint_grid
from hybridcsp.relaxation.calculators.dft.program import ProgramError, run_program, tail
from hybridcsp.relaxation.calculators.dft.pseudopotentials import Pseudopotentials
from hybridcsp.relaxation.calculators.dft.settings import DFTSettings, Energy
from hybridcsp.relaxation.calculators.jobs import Target

#: Names in the folder: ASE reads what is called like this.
_NAME = "abinit"
_LOG = "abinit.log"

_SMEARINGS = {"gaussian": 7, "fermi-dirac": 3, "cold": 4, "methfessel-paxton": 6}

#: Variables that say when the density has converged.
_TOLERANCES = {"toldfe", "tolvrs", "tolwfr"}

#: Number of seconds in which the program must tell its version.
_SECONDS = 60.0


class Abinit(DFTSettings):
    """Settings of ABINIT.

    Attributes
    ----------
    pseudopotentials
        Files of pseudopotentials or PAW data.
    density_cutoff
        Cutoff of the fine grid of PAW in eV (``pawecutdg``).
    functional
        Number of the exchange-correlation functional (``ixc``); ``None`` takes that of the pseudopotentials.
    """

    code: Literal["abinit"] = "abinit"
    pseudopotentials: Pseudopotentials
    density_cutoff: Energy | None = None
    functional: int | None = None

    outputs: ClassVar[tuple[str, ...]] = (_LOG, f"{_NAME}.abo")
    reserved: ClassVar[dict[str, str]] = {
        "ecut": "cutoff",
        "pawecutdg": "density_cutoff",
        "ixc": "functional",
        "xc": "functional",
        "occopt": "smearing",
        "tsmear": "smearing",
        "smearing": "smearing",
        "nsppol": "spin",
        "spinat": "moments",
        "pseudos": "pseudopotentials",
        "pp_dirpath": "pseudopotentials",
        "pps": "pseudopotentials",
        **dict.fromkeys(("ngkpt", "kptopt", "kptrlatt", "shiftk", "nshiftk", "kpts", "kptrlen"), "kspacing"),
        **dict.fromkeys(("ionmov", "optcell", "ntime", "geoopt", "moldyn", "ndtset", "raw", "prtwf", "irdwfk"), ""),
        **dict.fromkeys(("acell", "rprim", "natom", "ntypat", "znucl", "typat", "xred", "xcart", "optforces"), ""),
    }

    @model_validator(mode="after")
    def _check_keywords(self) -> Abinit:
        for key in {"toldff", "tolrff"} & set(self.keywords):
            reason = (
                "where forces vanish by symmetry, it is met before the density has converged; use tolvrs, such as 1e-10"
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
        """Return what ``abinit --version`` prints; errors as in the base class."""
        return _version(tuple(self.argv))

    def write(self, folder: Path, atoms: Atoms, *, fresh: bool, target: Target | None = None) -> list[str]:
        """Write ``abinit.in``; parameters as in the base class."""
        saved, reused = folder / f"{_NAME}o_WFK", folder / f"{_NAME}i_WFK"
        reused.unlink(missing_ok=True)
        if saved.exists() and not fresh:
            saved.replace(reused)
        for old in (f"{_NAME}.abo", f"{_NAME}o_EIG"):  # ABINIT would write another file beside them
            (folder / old).unlink(missing_ok=True)
        variables: dict[str, Any] = {"ecut": self.cutoff, "kptopt": 1, "nshiftk": 1, "shiftk": [0.0, 0.0, 0.0]}
        variables["ngkpt"] = list(kpoint_grid(atoms.cell.array, self.kspacing))
        variables |= {"optforces": 1, "optstress": 1, "irdwfk": int(reused.exists()), "prtwf": int(self.restart)}
        if self.smearing:
            variables |= {"occopt": _SMEARINGS[self.smearing.kind], "tsmear": self.smearing.width}  # ASE adds eV
        if self.density_cutoff is not None:
            variables["pawecutdg"] = self.density_cutoff
        if not _TOLERANCES & set(self.keywords):
            variables["tolvrs"] = 1e-10
        if self.functional is not None:
            variables["ixc"] = self.functional
        # Random crystals may have any translations; only GW needs those that ABINIT insists on.
        variables["chksymtnons"] = 0
        # ASE adds ixc for LDA unless the data are PAW in XML, which name their functional as all files do.
        parameters = {"xc": "LDA", "pps": "pawxml", **self.keywords, **variables}
        species = sorted(set(atoms.numbers.tolist()))
        files = [str(self.pseudopotentials.file(atoms.symbols[atoms.numbers == number][0])) for number in species]
        with (folder / f"{_NAME}.in").open("w", encoding="utf-8") as file:
            write_abinit_in(file, atoms, param=parameters, species=species, pseudos=files)
        return [*self.argv, f"{_NAME}.in"]

    def read(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """Return the results in ``abinit.abo``; parameters and errors as in the base class."""
        output = folder / f"{_NAME}.abo"
        # ABINIT goes on in this case, and ends with exit status 0.
        if "not enough scf cycles to converge" in output.read_text(errors="replace").lower():
            raise ProgramError(f"the density did not converge (more steps: keywords.nstep){tail(output)}")
        return dict(read_abinit_outputs(folder, _NAME))


@cache
def _version(command: tuple[str, ...]) -> str:
    with TemporaryDirectory() as name:
        run_program([*command, "--version"], Path(name), _LOG, seconds=_SECONDS)
        words = (Path(name) / _LOG).read_text(errors="replace").split()
        if len(words) != 1:
            raise ProgramError(f"{command[0]} --version does not print a version only{tail(Path(name) / _LOG)}")
    return words[0]
