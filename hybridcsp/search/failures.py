"""The error of a search in which every relaxation failed."""

from __future__ import annotations

import textwrap
from pathlib import Path

from hybridcsp.archive.state import Failures, SearchState
from hybridcsp.core.records import FailureReason
from hybridcsp.errors import RelaxationsFailedError

#: Longest detail in characters that the error quotes.
_LONGEST = 400

_ELEMENTS = "Check that the calculator knows these elements at this pressure, and that its units are eV and Å"

#: Advice by reason of failure.
_ADVICE = {
    FailureReason.CALCULATOR: "Check that the calculator evaluates one such structure in Python",
    FailureReason.WRONG_RESULTS: "Correct the calculator: it has to return what ASE's calculators return",
    FailureReason.NON_FINITE: _ELEMENTS,
    FailureReason.FORCE_EXPLOSION: _ELEMENTS,
    FailureReason.OVERLAP: _ELEMENTS,
    FailureReason.ISOLATED_ATOMS: _ELEMENTS,
    FailureReason.VOLUME: _ELEMENTS,
    FailureReason.TIME_LIMIT: "Allow a relaxation more time: limits.seconds, --time-limit",
    FailureReason.MEMORY_LIMIT: "Allow a worker more memory: limits.memory, --memory-limit",
    FailureReason.WORKER_DIED: "The process of the calculator crashed; its output shows where",
}


def all_failed(state: SearchState, directory: Path) -> RelaxationsFailedError:
    """Return the error that reports how all relaxations of a search failed, with advice.

    Parameters
    ----------
    state
        State of a search in which relaxations by the workers have failed and none has succeeded.
    directory
        The run directory.
    """
    failures = state.failures or _most_common(state)
    same = " for the same reason, one after the other" if state.failures and failures.count > 1 else ""
    logs = directory / "workers"
    output = f"; the output of the workers is in {logs}" if logs.is_dir() else ""
    advice = _ADVICE.get(FailureReason(failures.reason), "Check how they were relaxed")
    detail = textwrap.shorten(failures.detail, _LONGEST, placeholder=" …") or "no details"
    return RelaxationsFailedError(
        f"none of {state.attempts} relaxations has succeeded, and {failures.count} failed{same}: "
        f"{failures.reason}: {detail}. {advice}{output}. Nothing is lost: resume the search once the cause is removed, "
        "or continue regardless with stop_after_failures = 0 (--stop-after-failures 0)"
    )


def _most_common(state: SearchState) -> Failures:
    reason, count = state.failed().most_common(1)[0]
    return Failures(reason=reason, detail=state.explanations[reason], count=count)
