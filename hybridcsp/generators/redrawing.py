"""Repeated draws of samples whose atoms are too close, or that are no crystals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ase import Atoms

from hybridcsp.generators.base import Reject, Sample
from hybridcsp.structure.validity import is_too_close

Wanted = TypeVar("Wanted")


def draw_repeatedly(
    waiting: Sequence[tuple[int, Wanted]], draw: Callable[[list[Wanted]], Sequence[Atoms | str]], rounds: int
) -> dict[int, Sample | Reject]:
    """Draw a crystal for each request, and in further rounds for those whose crystal is missing or too dense.

    A crystal that is too dense is the answer if no later draw gives one.

    Parameters
    ----------
    waiting
        Numbers of the requests, each with what ``draw`` needs to know of it.
    draw
        Function that returns a crystal for each of several requests, or the reason why there is none.
    rounds
        Largest number of rounds.

    Returns
    -------
    dict
        Answers by the numbers of the requests.
    """
    answers: dict[int, Sample | Reject] = {}
    for _ in range(rounds):
        if not waiting:
            break
        again = []
        for (number, wanted), found in zip(waiting, draw([wanted for _, wanted in waiting]), strict=True):
            if isinstance(found, Atoms):
                answers[number] = Sample(atoms=found, request=number)
            elif not isinstance(answers.get(number), Sample):
                answers[number] = Reject(request=number, reason=found)
            if not isinstance(found, Atoms) or is_too_close(found):
                again.append((number, wanted))
        waiting = again
    return answers
