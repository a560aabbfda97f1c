"""Hybrid crystal structure prediction, driven through any ASE calculator.

Learned generators and population optimisers share one budget of relaxations, and generators are retrained on the
relaxed minima.

>>> from hybridcsp import Search
>>> search = Search("TiO2", formula_units=(1, 4), calculator="chgnet", directory="tio2")  # doctest: +SKIP
>>> search.run(relaxations=100)  # doctest: +SKIP
>>> for minimum in search.minima(5):  # doctest: +SKIP
...     print(minimum.spacegroup, minimum.enthalpy_per_atom)
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.archive.archive import Archive as Archive
    from hybridcsp.core.minimum import Minimum as Minimum
    from hybridcsp.core.problem import Problem as Problem
    from hybridcsp.core.records import Candidate as Candidate
    from hybridcsp.core.records import Limits as Limits
    from hybridcsp.core.records import Proposal as Proposal
    from hybridcsp.core.system import System as System
    from hybridcsp.relaxation.settings import RelaxationSettings as RelaxationSettings
    from hybridcsp.retraining import Retraining as Retraining
    from hybridcsp.search.follow_up import FollowUp as FollowUp
    from hybridcsp.search.search import Search as Search
    from hybridcsp.search.settings import SearchSettings as SearchSettings
    from hybridcsp.search.stopping import StoppingCriteria as StoppingCriteria

__version__ = "0.1.0"

# Failures of spglib are handled through its return values; without this its C code writes them to the terminal as well.
os.environ.setdefault("SPGLIB_WARNING", "OFF")

_PUBLIC = {
    "Archive": "archive",
    "Candidate": "core.records",
    "FollowUp": "search.follow_up",
    "Limits": "core.records",
    "Minimum": "core.minimum",
    "Problem": "core.problem",
    "Proposal": "core.records",
    "RelaxationSettings": "relaxation.settings",
    "Retraining": "retraining",
    "Search": "search",
    "SearchSettings": "search.settings",
    "StoppingCriteria": "search.stopping",
    "System": "core.system",
}

__all__ = ["__version__", *_PUBLIC]


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


def __getattr__(name: str) -> Any:
    # Public names are imported when they are used, so that the command line starts quickly.
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"hybridcsp.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'hybridcsp' has no attribute {name!r}")
