"""Check that a run directory can be resumed with given settings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from hybridcsp.archive.archive import Archive
from hybridcsp.errors import ArchiveError
from hybridcsp.objectives.registry import class_of

log = logging.getLogger(__name__)

#: Settings that must not change while a search exists; the others may differ between sessions.
LASTING = ("problem", "calculator", "sources", "allocation", "seed", "relaxation", "precision", "objectives", "where")

# Settings of the calculator on which its energies depend, and those that a record omits if they are not given.
_OF_CALCULATOR = ("calculator", "precision")
_OMITTED = ("precision", "objectives", "where")

_CALCULATORS = "hybridcsp.relaxation.calculators"

#: Names that run directories of version 0.1.0 may hold for objects, and their present names.
FORMER_NAMES = {
    "hybridcsp.allocation.EqualShares": "hybridcsp.search.allocation.EqualAllocation",
    "hybridcsp.allocation.Earnings": "hybridcsp.search.success_allocation.SuccessAllocation",
    "hybridcsp.search.allocation.ThompsonAllocation": "hybridcsp.search.success_allocation.SuccessAllocation",
    f"{_CALCULATORS}.build_emt": f"{_CALCULATORS}.server.builders.build_emt",
    f"{_CALCULATORS}.registry.build_emt": f"{_CALCULATORS}.server.builders.build_emt",
    f"{_CALCULATORS}.registry.build_lj": f"{_CALCULATORS}.server.builders.build_lj",
    f"{_CALCULATORS}.build_lj": f"{_CALCULATORS}.server.builders.build_lj",
    "hybridcsp.relaxation.chgnet_fast.build_chgnet": f"{_CALCULATORS}.chgnet.build_chgnet",
    "hybridcsp.relaxation.chgnet_fast.FastCHGNetCalculator": f"{_CALCULATORS}.chgnet.FastCHGNetCalculator",
    "hybridcsp.relaxation.chgnet_fast.QuietCHGNetCalculator": f"{_CALCULATORS}.chgnet.QuietCHGNetCalculator",
    "hybridcsp.relaxation.mace_loading.build_mace": f"{_CALCULATORS}.server.mace.build_mace",
    f"{_CALCULATORS}.mace.build_mace": f"{_CALCULATORS}.server.mace.build_mace",
}


def check_same_search(settings: Mapping[str, Any], archive: Archive, *, allow_calculator_change: bool = False) -> None:
    """Check that recorded settings are those of the search in an archive.

    Parameters
    ----------
    settings
        The record of the settings, see :meth:`~hybridcsp.search.settings.SearchSettings.record`.
    archive
        The archive; one without sessions accepts any settings.
    allow_calculator_change
        Whether the calculator may be another one than before.

    Raises
    ------
    ArchiveError
        If a setting that must not change differs.
    """
    if archive.state.settings:
        with archive.reading():
            _compare(settings, archive.state.settings[-1], archive, allow_calculator_change)


def check_same_calculator(label: str, archive: Archive) -> None:
    """Check that a calculator is the one that an archive's energies come from.

    Parameters
    ----------
    label
        The label of the calculator.
    archive
        The archive; one without energies accepts any calculator.

    Raises
    ------
    ArchiveError
        If it is another calculator or has other parameters; the error lists the differences.
    """
    known = archive.state.calculator
    if known is not None and known != label:
        raise _calculator_differs(known, label, archive)


def check_same_files(parameters: Mapping[str, str], archive: Archive) -> None:
    """Check that the files of a calculator are those that an archive's energies come from.

    Parameters
    ----------
    parameters
        Digests of the files by parameter, which
        :func:`~hybridcsp.relaxation.calculators.registry.parameters_ahead` returns.
    archive
        The archive of a search whose calculator has the same name.

    Raises
    ------
    ArchiveError
        If one of the files has changed.
    """
    known = archive.state.calculator
    if known is None:
        return
    before = _parameters(known)
    changed = {name: value for name, value in parameters.items() if before.get(name, value) != value}
    if changed:
        label = known
        for name, value in changed.items():
            label = label.replace(f"{name}={before[name]}", f"{name}={value}")
        raise _calculator_differs(known, label, archive)


def _compare(
    settings: Mapping[str, Any], before: Mapping[str, Any], archive: Archive, allow_calculator_change: bool
) -> None:
    if settings["calculator"] is not None and "calculator" not in before:
        raise ArchiveError(
            f"{archive.directory} holds results of {archive.state.calculator}, which must not be compared with "
            f"energies of another calculator: use them in a search in another directory (source seeds:PATH), or "
            f"continue here with ask and tell (calculator=None)"
        )
    lasting = [name for name in LASTING if name not in _OF_CALCULATOR or not allow_calculator_change]
    known = [name for name in lasting if name in before or name in _OMITTED]
    different = [
        name
        for name in known
        if _with_present_names(_without_digests(before.get(name))) != _without_digests(settings.get(name))
    ]
    if different:
        listed = "; ".join(f"{name} was {before.get(name)!r}, now {settings.get(name)!r}" for name in different)
        raise ArchiveError(
            f"{archive.directory} holds another search ({listed}): choose another directory, or use the same settings"
        )
    _compare_files_of_objectives(settings, before, archive)
    for name, weights in before.get("weights", {}).items():
        if settings["weights"].get(name, weights) != weights:
            log.warning("source %s: its weights differ from those that this search has used so far", name)


def _compare_files_of_objectives(settings: Mapping[str, Any], before: Mapping[str, Any], archive: Archive) -> None:
    """Check that the files of objectives have the content that the values in an archive come from.

    A function may have been corrected, so that its change is a warning only.

    Raises
    ------
    ArchiveError
        If the file of another objective has changed.
    """
    for now, then in zip(settings.get("objectives", ()), before.get("objectives", ()), strict=True):
        if "digest" not in then or "digest" not in now or now["digest"] == then["digest"]:
            continue
        name, text = now["name"], now["objective"]
        if isinstance(text, str) and class_of(text).runs_code:
            log.warning("objective %s: its file has changed; earlier values are those of the former function", name)
        else:
            file = text.partition(":")[2] if isinstance(text, str) else f"the file of the objective {name}"
            raise ArchiveError(
                f"{file} has changed since the search in {archive.directory} began, so that values of the objective "
                f"{name} from before and after cannot be compared: restore the file, or choose another directory"
            )


def _without_digests(recorded: Any) -> Any:
    """Return recorded objectives without the hashes of their files, and any other setting as it is."""
    if isinstance(recorded, list) and all(isinstance(item, dict) for item in recorded):
        return [{key: value for key, value in item.items() if key != "digest"} for item in recorded]
    return recorded


def _with_present_names(recorded: Any) -> Any:
    """Return a recorded setting with the present names of objects whose modules or classes were renamed."""
    if isinstance(recorded, list):
        return [_with_present_names(item) for item in recorded]
    if isinstance(recorded, dict) and recorded.keys() == {"python"}:
        return {"python": FORMER_NAMES.get(recorded["python"], recorded["python"])}
    return recorded


def _calculator_differs(known: str, label: str, archive: Archive) -> ArchiveError:
    before, now = _parameters(known), _parameters(label)
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    changes = [f"{name} {before.get(name, 'not given')} -> {now.get(name, 'not given')}" for name in names]
    difference = "; ".join(changes) if known.split(" (")[0] == label.split(" (")[0] and changes else f"now {label}"
    return ArchiveError(
        f"{archive.directory} holds energies of {known}, which must not be compared with those of another calculator "
        f"({difference}): choose another directory; or allow the change, and the new energies are ranked by themselves "
        f"(hybridcsp resume --allow-calculator-change, in Python allow_calculator_change=True)"
    )


def _parameters(label: str) -> dict[str, str]:
    """Return the parameters that a calculator's label contains."""
    return dict(re.findall(r"[(,] ?([\w.]+)=(.*?)(?=, [\w.]+=|\)$)", label))
