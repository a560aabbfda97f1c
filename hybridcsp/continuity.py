"""What must be the same for a search to be taken up again, and what is said of what is not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hybridcsp.archive import Archive
from hybridcsp.errors import ArchiveError

log = logging.getLogger(__name__)

#: Settings that a search keeps for life; the others may change from one session to the next.
LASTING = ("problem", "calculator", "sources", "allocation", "seed", "relaxation")


def described(thing: object) -> dict[str, str]:
    """Describe an object that cannot be written down."""
    kind = thing if isinstance(thing, type) else getattr(thing, "__qualname__", None) or type(thing)
    name = kind if isinstance(kind, str) else kind.__qualname__
    return {"python": f"{getattr(thing, '__module__', type(thing).__module__)}.{name}"}


def check_same(settings: Mapping[str, Any], archive: Archive) -> None:
    """Compare settings with those that the searches of an archive so far were made with.

    Raises
    ------
    ArchiveError
        If they are those of another search.
    """
    if not archive.ledger.settings:
        return
    with archive.reading():
        _compare(settings, archive.ledger.settings[-1], archive)


def _compare(settings: Mapping[str, Any], before: Mapping[str, Any], archive: Archive) -> None:
    if settings["calculator"] is not None and "calculator" not in before:
        raise ArchiveError(
            f"{archive.directory} holds results of {archive.ledger.calculator}, which energies of another calculator "
            f"cannot be compared with: use them in a search in another directory (source seeds:PATH), or go on here "
            f"with ask and tell (calculator=None)"
        )
    different = [name for name in LASTING if name in before and before[name] != settings[name]]
    if different:
        listed = "; ".join(f"{name} was {before[name]!r}, now {settings[name]!r}" for name in different)
        raise ArchiveError(f"{archive.directory} holds another search ({listed}): choose another directory")
    for name, weights in before.get("weights", {}).items():
        if settings["weights"].get(name, weights) != weights:
            log.warning("source %s: its weights are not those that this search has used so far", name)
