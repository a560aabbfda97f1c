"""What other programs generate: files of theirs, or a command that is run whenever more is wanted."""

from __future__ import annotations

from hybridcsp.core.problem import Problem
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.sources.seeds import SeedsSource


class ExternalSource(SeedsSource):
    """Structures that another program made, each proposed once, in order.

    Like :class:`~hybridcsp.sources.seeds.SeedsSource`, but for output of many compositions: a folder, an extxyz file, a
    zip archive of CIFs, or a table with a column of CIFs. It is read as a stream, and only what is of the problem's
    contents is kept; the rest is counted.

    Parameters
    ----------
    problem
        What is searched.
    argument
        The file or folder.

    Raises
    ------
    InputError
        If there is nothing at that path, or no structure there can be used.
    """

    kind = "external"
    operator = "external"

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        self._path = str(argument)
        self._others = 0
        super().__init__(problem, argument)
        self._tell_of_others()

    def _take(self, found: Frame | ReadFailure, problem: Problem) -> None:
        if isinstance(found, Frame) and problem.units_of(found.atoms.numbers) is None:
            self._others += 1
        else:
            super()._take(found, problem)

    def _complaint(self, problem: Problem) -> str:
        self._tell_of_others()
        return super()._complaint(problem)

    def _tell_of_others(self) -> None:
        if self._others:
            self.unusable.append((self._path, f"{self._others} structures of other contents"))
