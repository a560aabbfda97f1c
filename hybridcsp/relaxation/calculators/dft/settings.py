"""The keys of a DFT file that all codes have, its stages, and what a code must be able to do."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from ase import Atoms
from ase.data import chemical_symbols
from ase.units import Hartree, Rydberg
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.relaxation.calculators.dft.program import ProgramError, find_program
from hybridcsp.relaxation.calculators.jobs import Target

#: Keys that belong to the whole file and cannot be overridden by a stage.
OF_FILE = ("code", "version", "keep", "scratch", "stages")

_UNITS = {"ev": 1.0, "ry": Rydberg, "ha": Hartree, "hartree": Hartree}
_SYMBOLS = frozenset(chemical_symbols[1:])
_NUMBER = re.compile(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*([A-Za-z]+)\s*")


def _in_ev(value: Any) -> Any:
    """Return a number of eV; a text must have one of the units eV, Ry and Ha."""
    if not isinstance(value, str | bool):
        return value
    found = _NUMBER.fullmatch(str(value))
    if found is None or found[2].lower() not in _UNITS:
        raise InputError("", value, "a number of eV, or a text such as '60 Ry', '30 Ha' or '800 eV'")
    return float(found[1]) * _UNITS[found[2].lower()]


Energy = Annotated[float, BeforeValidator(_in_ev), Field(gt=0, allow_inf_nan=False)]


class Smearing(BaseModel):
    """Occupation of the states around the Fermi level.

    Attributes
    ----------
    kind
        Distribution; each code has some of them. ``"cold"`` is that of Marzari and Vanderbilt.
    width
        In eV; for ``"fermi-dirac"`` Boltzmann's constant times the temperature.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["gaussian", "fermi-dirac", "cold", "methfessel-paxton"] = "gaussian"
    width: Energy = 0.1


class DFTSettings(BaseModel, ABC):
    """Settings of one stage of a DFT code.

    Attributes
    ----------
    command
        The program and its arguments, never interpreted by a shell.
    kspacing
        Largest distance of neighbouring k-points in Å⁻¹, with the factor 2π in the reciprocal vectors. The grids
        contain the Γ point, and depend on the cell alone.
    cutoff
        Energy cutoff of the plane waves in eV.
    smearing
        Smearing of the occupations; ``False`` for none, which is right for insulators only.
    spin
        Whether the calculation is spin-polarised.
    moments
        Initial magnetic moments in μ_B by element, for structures that have none; 1 μ_B for other elements.
    keywords
        Further keywords of the code.
    relax
        Who relaxes: ``"ase"``, ASE's optimiser with one calculation for each step, or ``"code"``, the code itself.
    restart
        Whether wave functions and densities of the calculation before are used again, where the code can do this.
    max_force
        Largest force in eV/Å at which a stage before the last ends.
    version
        Version of a code that cannot be asked for it.
    keep
        Which folders of relaxations are kept.
    scratch
        Folder in which relaxations work; by default the folder ``dft`` of the run directory.
    folder
        Folder of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    command: tuple[str, ...] = Field(min_length=1)
    kspacing: float = Field(gt=0, allow_inf_nan=False)
    cutoff: Energy
    smearing: Smearing | Literal[False] = Smearing()
    spin: bool = False
    moments: dict[str, float] = {}
    keywords: dict[str, Any] = {}
    relax: Literal["ase", "code"] = "ase"
    restart: bool = True
    max_force: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    version: str | None = None
    keep: Literal["failed", "all", "none"] = "failed"
    scratch: Path | None = None
    folder: Path = Field(default=Path(), exclude=True)

    #: Smearings that the code has.
    smearings: ClassVar[tuple[str, ...]] = ("gaussian", "fermi-dirac", "cold", "methfessel-paxton")
    #: Keywords that hybridcsp sets, with the keys that stand for them; the empty text stands for none.
    reserved: ClassVar[Mapping[str, str]] = {}
    #: Whether ASE reads the relaxations of the code itself.
    relaxes: ClassVar[bool] = False
    #: Whether the program tells its version.
    tells_version: ClassVar[bool] = True
    #: Files whose ends explain failures, the most telling first; the first receives the output of the program.
    outputs: ClassVar[tuple[str, ...]]

    @model_validator(mode="before")
    @classmethod
    def _add_folder(cls, raw: Any, info: ValidationInfo) -> Any:
        """Add the folder of the file, to which paths are relative."""
        return raw | {"folder": (info.context or {}).get("folder", Path.cwd())} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _check(self) -> DFTSettings:
        if any("\0" in part for part in self.command) or not self.command[0]:
            raise InputError("command", self.command, "a list of a program and its arguments")
        if self.smearing and self.smearing.kind not in self.smearings:
            raise InputError("smearing.kind", self.smearing.kind, f"one of {', '.join(self.smearings)} for {self.code}")
        if self.version is not None and self.tells_version:
            raise InputError("version", self.version, reason=f"{self.code} is asked for its version; leave the key out")
        if self.relax == "code" and not self.relaxes:
            reason = f"relaxations by {self.code} are not read by ASE; with relax = 'ase', ASE's optimiser is used"
            raise InputError("relax", self.relax, reason=reason)
        for element, moment in self.moments.items():
            if element not in _SYMBOLS or not math.isfinite(moment):
                raise InputError(f"moments.{element}", moment, "a number of μ_B by the symbol of an element, Fe = 5.0")
        for path, value in _leaves(self.keywords):
            name = re.sub(r"\(.*\)$", "", path[-1]).lower()
            if name in self.reserved:
                own = self.reserved[name]
                instead = f"use the key {own} for it" if own else "it must stay as it is, so that results can be read"
                raise InputError(f"keywords.{'.'.join(path)}", value, reason=f"it is set by hybridcsp; {instead}")
        return self

    @property
    def argv(self) -> list[str]:
        """The program, as an absolute path, and its arguments.

        Raises
        ------
        InputError
            If there is no such program.
        """
        found = find_program(self.command[0], self.folder)
        if found is None:
            raise InputError(
                "command", self.command[0], "the path of a program that can be executed, or the name of one on the PATH"
            )
        return [found, *self.command[1:]]

    def spins(self, atoms: Atoms) -> list[float] | None:
        """Return initial magnetic moments in μ_B, shape ``(n_atoms,)``; ``None`` without spin polarisation."""
        if not self.spin:
            return None
        given = [float(moment) for moment in atoms.get_initial_magnetic_moments()]
        return given if any(given) else [self.moments.get(symbol, 1.0) for symbol in atoms.get_chemical_symbols()]

    def prepared(self, atoms: Atoms) -> Atoms:
        """Return a copy of a structure with the initial magnetic moments of the calculation."""
        bare = Atoms(atoms.numbers, cell=atoms.cell.array, positions=atoms.positions, pbc=True)
        moments = self.spins(atoms)
        if moments is not None:
            bare.set_initial_magnetic_moments(moments)
        return bare

    @property
    def energetic(self) -> dict[str, Any]:
        """All settings on which energies depend, as plain JSON, apart from the contents of files."""
        ignored = {"command", "relax", "restart", "max_force", "keep", "scratch", "version"}
        raw: dict[str, Any] = json.loads(self.model_dump_json(exclude=ignored))
        for table in self.of_files:
            for place in ("folder", "file"):
                raw.get(table, {}).pop(place, None)
        return raw

    #: Tables of which the place of the files does not change energies, because their contents are compared.
    of_files: ClassVar[tuple[str, ...]] = ("pseudopotentials",)

    @property
    def digest(self) -> str:
        """Hash of all settings on which energies depend."""
        return sha256(json.dumps(self.energetic, sort_keys=True).encode()).hexdigest()[:16]

    @abstractmethod
    def check_element(self, element: str) -> None:
        """Check that there is a pseudopotential of an element.

        Raises
        ------
        InputError
            If not.
        """

    @property
    @abstractmethod
    def elements(self) -> list[str]:
        """Elements that have a pseudopotential."""

    @abstractmethod
    def digest_of_files(self) -> str:
        """Return a hash of the pseudopotentials and other files on which energies depend."""

    @abstractmethod
    def read_version(self) -> str:
        """Return the version of the code, for which the program may be run.

        Raises
        ------
        CalculatorError
            If it does not answer.
        """

    @property
    def found_version(self) -> str:
        """Version of the code: that of the file, or that which the program tells; errors as of :meth:`read_version`."""
        return self.version or self.read_version()

    @abstractmethod
    def write(self, folder: Path, atoms: Atoms, *, fresh: bool, target: Target | None = None) -> list[str]:
        """Write the input of a calculation and return the command that runs it.

        Parameters
        ----------
        folder
            Folder of the calculation. It may hold files of an earlier one.
        atoms
            The structure, with initial magnetic moments.
        fresh
            Whether wave functions and densities in the folder must not be used.
        target
            End of a relaxation by the code itself; ``None`` for a single point.
        """

    @abstractmethod
    def read(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """Return the results of a calculation in ASE's units, in the order of the atoms.

        Raises
        ------
        Exception
            If the output is incomplete or not converged.
        """

    def read_relaxed(self, folder: Path, atoms: Atoms) -> tuple[Atoms, int]:
        """Return the last structure of a relaxation by the code itself, and the number of its steps.

        Raises
        ------
        Exception
            If the output holds none.
        """
        raise ProgramError(f"ASE does not read relaxations by {self.code}")


def _leaves(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


@dataclass(frozen=True)
class DFTFile:
    """A DFT file: its stages, from coarse to tight.

    Attributes
    ----------
    path
        The file.
    stages
        Settings of the stages. Only energies of the last one are recorded.
    """

    path: Path
    stages: tuple[DFTSettings, ...]

    @property
    def last(self) -> DFTSettings:
        """Settings of the last stage, whose energies are recorded."""
        return self.stages[-1]

    def check(self) -> None:
        """Check that the programs of all stages are there.

        Raises
        ------
        InputError
            If not.
        """
        for stage in self.stages:
            try:
                _ = stage.argv
            except InputError as error:
                raise self.wrong(error) from None

    def check_elements(self, elements: Any, *, magnetic: bool = False) -> None:
        """Check that every stage has pseudopotentials of elements.

        Parameters
        ----------
        elements
            Chemical symbols.
        magnetic
            Whether the structures have initial magnetic moments.

        Raises
        ------
        InputError
            If one is missing, or the moments would be ignored.
        """
        if magnetic and not self.last.spin:
            reason = "the structures have initial magnetic moments, which only spin = true uses"
            raise self.wrong(InputError("spin", False, reason=reason))
        for stage in self.stages:
            for element in elements:
                try:
                    stage.check_element(element)
                except InputError as error:
                    raise self.wrong(error) from None

    def label(self) -> str:
        """Return the label of the energies: code, version, and hashes of all settings and files that they depend on.

        Raises
        ------
        CalculatorError
            If the version cannot be found.
        """
        last = self.last
        try:
            version = last.found_version
        except ProgramError as error:
            raise CalculatorError(f"{self.path}: {error}") from error
        words = [
            f"cutoff={last.cutoff:g}",
            f"kspacing={last.kspacing:g}",
            f"pseudopotentials={last.digest_of_files()}",
            f"settings={last.digest}",
        ]
        return f"{last.code} {version} ({', '.join(words)})"

    def wrong(self, error: InputError) -> InputError:
        """Return an error about the file that contains the error about one of its keys."""
        return InputError("calculator", self.path, reason=f"it contains a mistake: {error}")
