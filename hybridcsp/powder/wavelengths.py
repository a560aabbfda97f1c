"""Wavelengths of X-rays: pymatgen's names of emission lines, or numbers with a unit."""

from __future__ import annotations

import re

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.utils.quantities import read_quantity

#: Emission line of most laboratory diffractometers.
DEFAULT_WAVELENGTH = "CuKa"

# Range of wavelengths with which powder patterns are measured, in Å.
_SHORTEST, _LONGEST = 0.1, 3.0


def read_wavelength(text: str, key: str = "wavelength") -> float:
    """Return a wavelength in Å.

    Parameters
    ----------
    text
        Emission line by pymatgen's names, such as ``"CuKa"`` (the mean of Kα1 and Kα2), ``"CuKa1"`` or ``"MoKa"``; the
        case does not matter, and ``"Cu Kα"`` is understood. Or a number in Å or with a unit: ``"1.5406"``, ``"0.15406
        nm"``.
    key
        Name of the option or parameter, for error messages.

    Raises
    ------
    InputError
        If the text is neither a known name nor a wavelength from 0.1 to 3 Å.
    """
    from pymatgen.analysis.diffraction.xrd import WAVELENGTHS

    plain = text.strip()
    if re.match(r"[+-]?[.\d]", plain):
        value = read_quantity(key, plain, "Å")
        if not _SHORTEST <= value <= _LONGEST:
            nanometres = "; write the unit of a number in nm, such as 0.154nm" if value > 0 else ""
            raise InputError(key, text, f"a wavelength from {_SHORTEST:g} to {_LONGEST:g} Å{nanometres}")
        return value
    folded = re.sub(r"[\s_-]", "", plain.replace("α", "a").replace("β", "b")).casefold()
    folded = folded.replace("alpha", "a").replace("beta", "b")
    for name, value in WAVELENGTHS.items():
        if folded in (name.casefold(), name.casefold().removesuffix("ka") if name.endswith("Ka") else None):
            return float(value)
    raise UnknownNameError(key, text, list(WAVELENGTHS), "or a wavelength in Å, such as 1.5406")
