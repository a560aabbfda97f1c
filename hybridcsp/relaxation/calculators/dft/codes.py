"""The DFT codes by name, and the reading of DFT files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hybridcsp.errors import InputError, UnknownNameError, UnreadableError, did_you_mean, with_hint
from hybridcsp.relaxation.calculators.dft.settings import OF_FILE, DFTFile, DFTSettings
from hybridcsp.utils.paths import absolute, expanded
from hybridcsp.utils.reading import read_toml

#: Classes of settings, ``module:class`` of this package, by the names of the codes.
CODES = {
    "quantum-espresso": "quantum_espresso:QuantumEspresso",
    "vasp": "vasp:Vasp",
    "gpaw": "gpaw:Gpaw",
    "abinit": "abinit:Abinit",
    "cp2k": "cp2k:Cp2k",
}

#: Key that a DFT file has and other calculator files do not have.
KEY = "code"


def settings_class(code: Any) -> type[DFTSettings]:
    """Return the class of the settings of a code.

    Raises
    ------
    InputError
        If there is no such code.
    """
    if not isinstance(code, str) or code not in CODES:
        if isinstance(code, str) and code:
            raise UnknownNameError("code", code, CODES)
        raise InputError("code", code, f"one of {', '.join(CODES)}")
    module, _, name = CODES[code].partition(":")
    found: type[DFTSettings] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return found


def template(code: str) -> str:
    """Return a DFT file with comments for a code; errors as in :func:`settings_class`."""
    settings_class(code)
    return (resources.files("hybridcsp") / "data" / "dft" / f"{code}.toml").read_text(encoding="utf-8")


def read_dft_file(path: Path) -> DFTFile:
    """Read and check a DFT file; no program is started.

    Raises
    ------
    InputError
        If it does not exist, is not TOML, or has an unknown key or a wrong value.
    """
    path = Path(absolute(str(path), Path.cwd()))
    try:
        raw = read_toml(expanded(path))
    except UnreadableError as error:
        raise InputError("calculator", path, reason=error.reason) from None
    file = DFTFile(path, ())
    try:
        return DFTFile(path, _stages(raw, path.parent))
    except InputError as error:
        raise file.wrong(error) from None


def _stages(raw: Mapping[str, Any], folder: Path) -> tuple[DFTSettings, ...]:
    kind = settings_class(raw.get(KEY))
    common = dict(raw)
    if isinstance(common.get("scratch"), str):
        common["scratch"] = absolute(common["scratch"], folder)
    stages = common.pop("stages", [{}])
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise InputError("stages", stages, "a list of tables, [[stages]], from coarse to tight")
    found = []
    for number, stage in enumerate(stages, 1):
        where = f"stages.{number}." if len(stages) > 1 else ""
        for key, value in stage.items():
            if key in OF_FILE:
                raise InputError(f"{where}{key}", value, reason="this key belongs to the whole file, not to a stage")
        found.append(_validated(kind, _merged(common, stage), folder, where if stage else ""))
    if found[-1].max_force is not None:
        reason = "the last stage ends where the search says it (--fmax); this key is for the stages before it"
        raise InputError("max_force", found[-1].max_force, reason=reason)
    return tuple(found)


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with the values of another one in their place, and tables in them alike."""
    merged = dict(table)
    for key, value in over.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _validated(kind: type[DFTSettings], raw: dict[str, Any], folder: Path, where: str) -> DFTSettings:
    """Return checked settings.

    Raises
    ------
    InputError
        For the first mistake.
    """
    if "folder" in raw:
        raise InputError("folder", raw["folder"], reason="it belongs into the table [pseudopotentials]")
    try:
        return kind.model_validate(raw, context={"folder": folder})
    except ValidationError as invalid:
        details = invalid.errors()[0]
    path = [str(part) for part in details["loc"] if part not in ("Smearing", "literal[False]")]
    key = where + ".".join(path)
    error = details.get("ctx", {}).get("error")
    if isinstance(error, InputError):
        named = ".".join(part for part in (key.rstrip("."), error.key) if part)
        raise InputError(named, error.value, error.allowed, reason=error.reason)
    if details["type"] == "missing":
        raise InputError(key, None, f"a value, as in hybridcsp calculators template {raw[KEY]}")
    if details["type"] == "extra_forbidden":
        known = [name for name in kind.model_fields if name != "folder"] + ["stages"]
        hint = did_you_mean(path[-1], known) if len(path) == 1 else ""
        listed = f"there is no such key; the keys are {', '.join(known)}" if len(path) == 1 else "there is no such key"
        raise InputError(key, details["input"], reason=with_hint(listed, hint))
    message = str(details["msg"]).removeprefix("Input should be ")
    raise InputError(key, details["input"], f"{message}")
