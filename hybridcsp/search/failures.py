"""The error of a search in which every relaxation failed."""

from __future__ import annotations

import textwrap
from pathlib import Path

from hybridcsp.archive.follow_ups import FollowUpLevel
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.tallies import Failures
from hybridcsp.core.outcomes import FailureReason
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
    results = state.worker_results
    failures = results.failures or _most_common(state)
    same = " for the same reason, one after the other" if results.failures and failures.count > 1 else ""
    detail = textwrap.shorten(failures.detail, _LONGEST, placeholder=" …") or "no details"
    return RelaxationsFailedError(
        f"none of {results.attempts} relaxations has succeeded, and {failures.count} failed{same}: "
        f"{failures.reason}: {detail}. {_advice(failures.reason, directory)}. Nothing "
        "is lost: resume the search once the cause is removed, or continue regardless with stop_after_failures = 0 "
        "(--stop-after-failures 0)"
    )


def why_none_succeeded(level: FollowUpLevel, directory: Path) -> str:
    """Explain why no follow-up relaxation with a calculator has succeeded; empty if one has, or none has ended.

    Parameters
    ----------
    level
        The follow-up relaxations with the calculator.
    directory
        The run directory.
    """
    if level.results or level.unconverged or not level.failures:
        return ""
    reason, count = level.failed.most_common(1)[0]
    first = next(event for event in level.failures if event.reason == reason)
    detail = textwrap.shorten(first.detail, _LONGEST, placeholder=" …") or "no details"
    return (
        f"none of {len(level.failures)} follow-up relaxations with {level.spec} has succeeded ({count} {reason}: "
        f"{detail}), so that the ranking is that without this calculator. {_advice(reason, directory)}. The results "
        "of the search are complete; resume it once the cause is removed"
    )


def _advice(reason: str, directory: Path) -> str:
    logs = directory / "workers"
    output = f"; the output of the workers is in {logs}" if logs.is_dir() else ""
    return _ADVICE.get(FailureReason(reason), "Check how they were relaxed") + output


def _most_common(state: SearchState) -> Failures:
    reason, count = state.tallies.failed().most_common(1)[0]
    return Failures(reason=reason, detail=state.explanations[reason], count=count)
