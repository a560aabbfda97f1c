"""Hints for well-known calculators that are not registered by name but can be used through a Python function."""

from __future__ import annotations

#: Calculator classes, ``module:class``, by common names.
_CLASSES = {
    "aims": "ase.calculators.aims:Aims",
    "castep": "ase.calculators.castep:Castep",
    "dftb": "ase.calculators.dftb:Dftb",
    "lammps": "ase.calculators.lammpslib:LAMMPSlib",
    "siesta": "ase.calculators.siesta:Siesta",
    "deepmd": "deepmd.calculator:DP",
    "grace": "tensorpotential.calculator:TPCalculator",
    "m3gnet": "matgl.ext.ase:PESCalculator",
    "mattersim": "mattersim.forcefield:MatterSimCalculator",
    "nequip": "nequip.ase:NequIPCalculator",
    "orb": "orb_models.forcefield.calculator:ORBCalculator",
    "tblite": "tblite.ase:TBLite",
    "uma": "fairchem.core:FAIRChemCalculator",
}

#: Names of the codes that DFT files describe.
_DFT_CODES = {
    "abinit": "abinit",
    "cp2k": "cp2k",
    "espresso": "quantum-espresso",
    "gpaw": "gpaw",
    "vasp": "vasp",
}

_OTHER_NAMES = {
    "allegro": "nequip",
    "dft": "vasp",
    "dftb+": "dftb",
    "dp": "deepmd",
    "dpa": "deepmd",
    "fairchem": "uma",
    "fhi-aims": "aims",
    "gfn1": "tblite",
    "gfn2": "tblite",
    "matgl": "m3gnet",
    "megnet": "m3gnet",
    "pw": "espresso",
    "pwscf": "espresso",
    "pw.x": "espresso",
    "qe": "espresso",
    "quantum-espresso": "espresso",
    "quantumespresso": "espresso",
    "xtb": "tblite",
}


def how_to_use(name: str) -> str:
    """Return a hint at the use of a calculator that is not registered; empty if the name is unknown.

    Examples
    --------
    >>> how_to_use("mace-mp").split(",")[0]
    'mace:medium is MACE-MP-0'
    """
    plain = name.casefold().replace("_", "-").replace(" ", "-")
    if plain.startswith("mace"):
        return "mace:medium is MACE-MP-0, mace:medium-mpa-0 is MACE-MPA-0, mace:PATH a model file"
    if plain.startswith(("sevenn", "7net")):
        return "sevennet is SevenNet-0, sevennet:l3i5 SevenNet-l3i5, sevennet:PATH a checkpoint"
    plain = _OTHER_NAMES.get(plain, plain)
    if plain in _DFT_CODES:
        return (
            f"{name} is used through a DFT file: hybridcsp calculators template {_DFT_CODES[plain]} > dft.toml writes "
            "one, and --calculator dft.toml uses it (docs/user/dft.md)"
        )
    if plain not in _CLASSES:
        return ""
    module, _, kind = _CLASSES[plain].partition(":")
    return (
        f"{name} is used through ASE: write a module, for example my_{plain.replace('-', '_')}.py, with a function "
        f"make() that returns {module}.{kind}(...), and name it my_{plain.replace('-', '_')}:make "
        "(docs/dev/extending.md)"
    )
