"""CP2K through ASE's writer of its input. Its output is read here, because ASE reads that of its own shell only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.cp2k import CP2K, InputSection, parse_input
from ase.units import Bohr, GPa, Hartree, kB
from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from hybridcsp.errors import InputError, message_of
from hybridcsp.relaxation.calculators.dft.kpoints import kpoint_grid
from hybridcsp.relaxation.calculators.dft.program import ProgramError, run_program, tail
from hybridcsp.relaxation.calculators.dft.settings import DFTSettings, Smearing
from hybridcsp.relaxation.calculators.jobs import Target
from hybridcsp.relaxation.calculators.server.identity import digest_of_file
from hybridcsp.utils.paths import absolute

#: Name of the project, with which the names of all files begin.
_NAME = "cp2k"
_INPUT, _OUTPUT = f"{_NAME}.inp", f"{_NAME}.out"

#: Number of seconds in which the program must tell its version.
_SECONDS = 60.0


class Library(BaseModel):
    """A file with data of all elements, and the names of those that are used.

    Attributes
    ----------
    file
        The file; absolute.
    name
        Name for all elements that are not named.
    names
        Names by element.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    name: str | None = None
    names: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _sort(cls, raw: Any, info: ValidationInfo) -> Any:
        """Separate the elements from the other keys, and make the file absolute."""
        if not isinstance(raw, dict) or "names" in raw:
            return raw
        names = {key: value for key, value in raw.items() if re.fullmatch("[A-Z][a-z]?", key)}
        found: dict[str, Any] = {key: value for key, value in raw.items() if key not in names} | {"names": names}
        if isinstance(found.get("file"), str):
            found["file"] = Path(absolute(found["file"], (info.context or {}).get("folder") or Path.cwd()))
        return found

    @model_validator(mode="after")
    def _check(self) -> Library:
        if not self.file.is_file():
            raise InputError("file", self.file, "an existing file with data of the elements")
        return self

    def entry(self, element: str) -> str | None:
        """Return the name for an element; ``None`` if there is none in the file."""
        name = self.names.get(element, self.name)
        return name if name is not None and (element, name.upper()) in _entries(self.file) else None

    @property
    def elements(self) -> set[str]:
        """Elements with an entry of their name."""
        return {element for element, _ in _entries(self.file) if self.entry(element) is not None}


class Cp2k(DFTSettings):
    """Settings of CP2K with Gaussians and plane waves (Quickstep).

    Attributes
    ----------
    cutoff
        Cutoff of the finest grid of the density in eV.
    functional
        Exchange-correlation functional.
    pseudopotentials, basis
        Files of pseudopotentials and basis sets, and the names in them.
    empty_states
        Number of empty states that are computed if there is smearing.
    input
        Further input, in the format of CP2K, to which everything else is added.
    """

    code: Literal["cp2k"] = "cp2k"
    functional: str = "PBE"
    smearing: Smearing | Literal[False] = Smearing(kind="fermi-dirac", width=0.1)
    pseudopotentials: Library
    basis: Library
    empty_states: int = 20
    input: str = ""

    smearings: ClassVar[tuple[str, ...]] = ("fermi-dirac",)
    of_files: ClassVar[tuple[str, ...]] = ("pseudopotentials", "basis")
    outputs: ClassVar[tuple[str, ...]] = (_OUTPUT,)
    reserved: ClassVar[dict[str, str]] = {
        "basis_set": "basis",
        "basis_set_file": "basis",
        "cutoff": "cutoff",
        "inp": "input",
        "potential_file": "pseudopotentials",
        "pseudo_potential": "pseudopotentials",
        "uks": "spin",
        "xc": "functional",
        **dict.fromkeys(("label", "command", "debug", "auto_write", "stress_tensor", "print_level", "restart"), ""),
        **dict.fromkeys(("atoms", "ignore_bad_restart_file", "set_pos_file", "force_eval_method"), ""),
    }

    @model_validator(mode="after")
    def _check_keywords(self) -> Cp2k:
        for key, value in self.keywords.items():
            if key not in CP2K.default_parameters:
                reason = "it is no parameter of ASE's calculator of CP2K; other input belongs into the key input"
                raise InputError(f"keywords.{key}", value, reason=reason)
        try:
            self._text(Atoms("H", cell=[3.0, 3.0, 3.0], pbc=True))
        except Exception as error:  # ASE raises plain exceptions, for example for a keyword that is there twice
            reason = f"it does not fit to what hybridcsp and ASE add to it ({message_of(error)})"
            raise InputError("input", self.input, reason=reason) from error
        return self

    @property
    def elements(self) -> list[str]:
        """Elements that have a pseudopotential and a basis set."""
        return sorted(self.pseudopotentials.elements & self.basis.elements)

    def check_element(self, element: str) -> None:
        """Check that there are a pseudopotential and a basis set of an element; errors as in the base class."""
        for key, library in (("pseudopotentials", self.pseudopotentials), ("basis", self.basis)):
            if library.entry(element) is None:
                names = sorted(name for one, name in _entries(library.file) if one == element)
                given = library.names.get(element, library.name)
                there = f"{library.file} holds {', '.join(names) or 'nothing'} for {element}"
                raise InputError(f"{key}.{element}", given, reason=f"{there}; name one of them under this key")

    def digest_of_files(self) -> str:
        """Return a hash of the two files."""
        return "-".join(str(digest_of_file(one.file)) for one in (self.pseudopotentials, self.basis))

    def read_version(self) -> str:
        """Return the version of CP2K; errors as in the base class."""
        return _version(tuple(self.argv))

    def write(self, folder: Path, atoms: Atoms, *, fresh: bool, target: Target | None = None) -> list[str]:
        """Write ``cp2k.inp``; parameters as in the base class."""
        for old in folder.glob(f"{_NAME}-*"):
            old.unlink()
        (folder / _INPUT).write_text(self._text(atoms), encoding="utf-8")
        return [*self.argv, "-i", _INPUT]

    def _text(self, atoms: Atoms) -> str:
        """Return the input for a structure."""
        writer = _Writer(
            basis_set=None,
            basis_set_file=str(self.basis.file),
            cutoff=self.cutoff,
            inp="\n".join(self._root(atoms).write()),
            potential_file=str(self.pseudopotentials.file),
            pseudo_potential=None,
            print_level="MEDIUM",
            uks=self.spin,
            xc=self.functional,
            **self.keywords,
        )
        return writer.text(atoms)

    def _root(self, atoms: Atoms) -> InputSection:
        """Return the part of the input that ASE does not write."""
        root = parse_input(self.input)
        root.add_keyword("FORCE_EVAL/PRINT/FORCES", "_SECTION_PARAMETERS_ ON")
        grid = [number + 1 - number % 2 for number in kpoint_grid(atoms.cell.array, self.kspacing)]
        if grid != [1, 1, 1]:
            root.add_keyword("FORCE_EVAL/DFT/KPOINTS", "SCHEME MONKHORST-PACK " + " ".join(map(str, grid)))
        scf = "FORCE_EVAL/DFT/SCF"
        if not any(line.upper().split()[:1] == ["EPS_SCF"] for line in root.get_subsection(scf).keywords):
            root.add_keyword(scf, "EPS_SCF 1.0E-7")  # with that of CP2K, 1e-5, forces are too inaccurate to relax
        if self.smearing:
            root.add_keyword(scf, f"ADDED_MOS {self.empty_states}")
            root.add_keyword(f"{scf}/SMEAR", "_SECTION_PARAMETERS_ ON")
            root.add_keyword(f"{scf}/SMEAR", "METHOD FERMI_DIRAC")
            root.add_keyword(f"{scf}/SMEAR", f"ELECTRONIC_TEMPERATURE [K] {self.smearing.width / kB:.8f}")
        moments = self._moments_by_element(atoms)
        for element in sorted(set(atoms.symbols)):
            kind = InputSection(name="KIND", params=element)
            kind.keywords = [f"BASIS_SET {self.basis.entry(element)}"]
            kind.keywords.append(f"POTENTIAL {self.pseudopotentials.entry(element)}")
            if self.spin:
                kind.keywords.append(f"MAGNETIZATION {moments[element]:g}")
            root.get_subsection("FORCE_EVAL/SUBSYS").subsections.append(kind)
        return root

    def _moments_by_element(self, atoms: Atoms) -> dict[str, float]:
        found: dict[str, float] = {}
        for symbol, moment in zip(atoms.symbols, self.spins(atoms) or [], strict=False):
            if found.setdefault(symbol, moment) != moment:
                raise ProgramError(
                    f"ASE writes one initial moment of each element for CP2K, but those of {symbol} differ"
                )
        return found

    def read(self, folder: Path, atoms: Atoms) -> dict[str, Any]:
        """Return the results in the output; parameters and errors as in the base class."""
        file = folder / _OUTPUT
        text = file.read_text(errors="replace")
        if "SCF run NOT converged" in text:
            raise ProgramError(f"the density did not converge (more steps: keywords.max_scf){tail(file)}")
        return read_output(text, len(atoms))


def read_output(text: str, n_atoms: int) -> dict[str, Any]:
    """Return energy, forces and stress in the output of a single point.

    The formats are those of CP2K until 2024, and those since 2025. Units are taken from the headings, because they
    depend on the version and the input: by default, stresses are printed in GPa until 2024, and in bar since 2025.

    Raises
    ------
    ProgramError
        If they are incomplete, or their units are unknown.
    """
    energies = re.findall(rf"ENERGY\| Total FORCE_EVAL.*?{_UNIT}:?\s+(-?\d+\.\d+)\s*$", text, re.MULTILINE)
    force_units = re.findall(rf"ATOMIC FORCES in {_UNIT}|FORCES\| Atomic forces {_UNIT}", text)
    forces = re.findall(rf"^\s*\d+\s+\d+\s+[A-Z][a-z]?\s+{_THREE}\s*$", text, re.MULTILINE) or re.findall(
        rf"^\s*FORCES\|\s+\d+\s+{_THREE}\s+\S+\s*$", text, re.MULTILINE
    )
    found = _STRESS.search(text)
    rows = text[found.end() :] if found else ""
    stress = re.findall(rf"^\s*(?:STRESS\|\s+)?[xyzXYZ]\s+{_THREE}\s*$", rows, re.MULTILINE)
    if not energies or not force_units or len(forces) < n_atoms or found is None or len(stress) < 3:
        raise ProgramError("the output does not hold an energy, forces and a stress")
    unit, energy = energies[-1]
    tensor = -_factor(found[1], _PRESSURES) * np.array(stress[:3], dtype=float)  # CP2K's sign is the opposite one
    total = float(energy) * _factor(unit, _ENERGIES)
    return {
        "energy": total,
        "free_energy": total,
        "forces": np.array(forces[-n_atoms:], dtype=float) * _factor("".join(force_units[-1]), _FORCES),
        "stress": ((tensor + tensor.T) / 2).ravel()[[0, 4, 8, 5, 2, 1]],
    }


def _factor(unit: str, known: Mapping[str, float]) -> float:
    """Return the value of a unit in those of ASE."""
    if unit.lower() not in known:
        raise ProgramError(
            f"the output has the unit {unit}, and only {', '.join(known)} can be read: change the key input"
        )
    return known[unit.lower()]


_THREE = r"\s+".join([r"(-?\d+\.\d+(?:E[+-]\d+)?)"] * 3)

#: A unit in brackets, round ones in old versions.
_UNIT = r"[\[(]([^\s\])]+)[\])]"

_STRESS = re.compile(rf"(?:STRESS TENSOR|STRESS\| \w+ stress tensor) {_UNIT}")

_ENERGIES = {"hartree": Hartree, "a.u.": Hartree}
_FORCES = {"hartree/bohr": Hartree / Bohr, "a.u.": Hartree / Bohr}
_PRESSURES = {"gpa": GPa, "bar": 1e-4 * GPa, "kbar": 0.1 * GPa}


class _Writer(CP2K):  # type: ignore[misc]
    """ASE's calculator as the writer of an input file; it starts no program."""

    def __init__(self, **parameters: Any) -> None:
        self._debug = False
        self._force_env_id = None
        self._shell = None
        Calculator.__init__(self, label=_NAME, **parameters)

    def text(self, atoms: Atoms) -> str:
        """Return the input for a structure."""
        self.atoms = atoms
        return str(self._generate_input())


@cache
def _entries(file: Path) -> frozenset[tuple[str, str]]:
    """Return the elements and names in a file with data of elements: lines such as ``Si GTH-PBE-q4 GTH-PBE``."""
    found: set[tuple[str, str]] = set()
    for line in file.read_text(errors="replace").splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and re.fullmatch("[A-Z][a-z]?", words[0]) and not words[1].lstrip("-").isdigit():
            found |= {(words[0], word.upper()) for word in words[1:]}
    return frozenset(found)


@cache
def _version(command: tuple[str, ...]) -> str:
    with TemporaryDirectory() as name:
        run_program([*command, "--version"], Path(name), _OUTPUT, seconds=_SECONDS)
        found = re.search(r"CP2K version (\S+)", (Path(name) / _OUTPUT).read_text(errors="replace"))
        if found is None:
            raise ProgramError(f"{command[0]} does not print the version of CP2K{tail(Path(name) / _OUTPUT)}")
    return found[1]
