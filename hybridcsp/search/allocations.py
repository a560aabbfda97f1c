"""The allocations that settings name."""

from __future__ import annotations

from collections.abc import Callable

from hybridcsp.core.problem import Problem
from hybridcsp.errors import UnknownNameError
from hybridcsp.search.allocation import Allocation, EqualAllocation
from hybridcsp.search.success_allocation import SuccessAllocation

#: Allocations by the names that run directories hold. Run directories of versions in which ``"earnings"`` was another
#: rule are continued with the present one.
ALLOCATIONS: dict[str, Callable[[Problem, int], Allocation]] = {
    "earnings": SuccessAllocation,
    "equal": EqualAllocation,
}

#: Further names of allocations.
_SYNONYMS = {"thompson": "earnings"}

#: Name of the allocation of a search whose settings name none.
DEFAULT_ALLOCATION = "earnings"


def find_allocation(name: str) -> str:
    """Return the name under which an allocation is recorded.

    Raises
    ------
    UnknownNameError
        If there is no such allocation.
    """
    name = _SYNONYMS.get(name, name)
    if name not in ALLOCATIONS:
        raise UnknownNameError("allocation", name, [*ALLOCATIONS, *_SYNONYMS])
    return name
