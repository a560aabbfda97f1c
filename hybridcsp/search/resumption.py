"""What must be the same for a search to be taken up again, and what is said of what is not."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from hybridcsp.archive.archive import Archive
from hybridcsp.errors import ArchiveError

log = logging.getLogger(__name__)

#: Settings that a search keeps for life; the others may change from one session to the next.
LASTING = ("problem", "calculator", "sources", "allocation", "seed", "relaxation")


def described(thing: object) -> dict[str, str]:
    """Describe an object that cannot be written down."""
    kind = thing if isinstance(thing, type) else getattr(thing, "__qualname__", None) or type(thing)
    name = kind if isinstance(kind, str) else kind.__qualname__
    return {"python": f"{getattr(thing, '__module__', type(thing).__module__)}.{name}"}


def check_same_calculator(label: str, archive: Archive) -> None:
    """Compare a calculator with the one that an archive's energies come from.

    Raises
    ------
    ArchiveError
        If it is another one, or has other parameters: with the difference.
    """
    known = archive.state.calculator
    if known is not None and known != label:
        raise _another_calculator(known, label, archive)


def check_same_files(ahead: Mapping[str, str], archive: Archive) -> None:
    """Compare the files that a calculator is made of with those that an archive's energies come from.

    Parameters
    ----------
    ahead
        What :func:`~hybridcsp.relaxation.calculators.registry.parameters_ahead` tells of the calculator.
    archive
        Of the search, whose calculator has the same name.

    Raises
    ------
    ArchiveError
        If one of them has changed.
    """
    known = archive.state.calculator
    if known is None:
        return
    before = _parameters(known)
    changed = {name: value for name, value in ahead.items() if before.get(name, value) != value}
    if changed:
        label = known
        for name, value in changed.items():
            label = label.replace(f"{name}={before[name]}", f"{name}={value}")
        raise _another_calculator(known, label, archive)


def _another_calculator(known: str, label: str, archive: Archive) -> ArchiveError:
    before, now = _parameters(known), _parameters(label)
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    changes = [f"{name} {before.get(name, 'not given')} -> {now.get(name, 'not given')}" for name in names]
    difference = "; ".join(changes) if known.split(" (")[0] == label.split(" (")[0] and changes else f"now {label}"
    return ArchiveError(
        f"{archive.directory} holds energies of {known}, and those of another calculator cannot be compared with them "
        f"({difference}): choose another directory; or allow the change, and the new energies are ranked by themselves "
        f"(hybridcsp resume --allow-calculator-change, in Python allow_calculator_change=True)"
    )


def _parameters(label: str) -> dict[str, str]:
    """Return the parameters that are named in a calculator's label."""
    return dict(re.findall(r"[(,] ?([\w.]+)=(.*?)(?=, [\w.]+=|\)$)", label))


def check_same(settings: Mapping[str, Any], archive: Archive, *, another_calculator: bool = False) -> None:
    """Compare settings with those that the searches of an archive so far were made with.

    Parameters
    ----------
    settings, archive
        What is compared.
    another_calculator
        Whether the calculator may be another one.

    Raises
    ------
    ArchiveError
        If they are those of another search.
    """
    if not archive.state.settings:
        return
    with archive.reading():
        _compare(settings, archive.state.settings[-1], archive, another_calculator)


def _compare(
    settings: Mapping[str, Any], before: Mapping[str, Any], archive: Archive, another_calculator: bool
) -> None:
    if settings["calculator"] is not None and "calculator" not in before:
        raise ArchiveError(
            f"{archive.directory} holds results of {archive.state.calculator}, which energies of another calculator "
            f"cannot be compared with: use them in a search in another directory (source seeds:PATH), or go on here "
            f"with ask and tell (calculator=None)"
        )
    lasting = [name for name in LASTING if name != "calculator" or not another_calculator]
    different = [name for name in lasting if name in before and before[name] != settings[name]]
    if different:
        listed = "; ".join(f"{name} was {before[name]!r}, now {settings[name]!r}" for name in different)
        raise ArchiveError(f"{archive.directory} holds another search ({listed}): choose another directory")
    for name, weights in before.get("weights", {}).items():
        if settings["weights"].get(name, weights) != weights:
            log.warning("source %s: its weights are not those that this search has used so far", name)
