"""Provide the source that substitutes elements in known prototypes: AFLOW's, those of the training data, the user's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

from ase import Atoms
from ase.data import chemical_symbols

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Cost, Proposal
from hybridcsp.prototypes import Library, Option, Options, TemplateLibrary, aflow, shipped_table
from hybridcsp.sources.base import BaseSource, Context, SourceStatus

#: Largest number of options that are tried in one call.
OPTIONS_PER_CALL = 50


class PrototypesSource(BaseSource):
    """Propose each known prototype with the elements of the problem, the most probable first.

    Coordinates are AFLOW's or the user's (operators ``aflow`` and ``template``), or are drawn on the Wyckoff
    positions of a prototype that the training data are known to hold (``wyckoff-table``). The order depends on the
    problem alone (:class:`hybridcsp.prototypes.Options`); coordinates that are drawn follow the seed of the search.

    Parameters
    ----------
    problem
        The problem of the search. With a fixed cell there is nothing to propose.
    argument
        File or folder of structures to use as templates in addition to AFLOW's. Their index is stored in the user's
        cache.
    libraries
        Libraries in place of AFLOW's, for instance one without the targets of a benchmark
        (:meth:`AflowLibrary.without`).

    Raises
    ------
    InputError
        If the path does not exist, or no crystal is found there.
    """

    def __init__(
        self, problem: Problem, argument: str | None = None, *, libraries: Sequence[Library] | None = None
    ) -> None:
        self._problem = problem
        own: list[Library] = [] if argument is None else [TemplateLibrary(argument)]
        self._options = Options(problem, shipped_table(), [*own, *([aflow()] if libraries is None else libraries)])
        self._next = 0

    def status(self) -> SourceStatus:
        """Return EXHAUSTED once every option that can be built has been proposed."""
        left = next(self._options.possible(self._next), None) is not None
        return SourceStatus.READY if left else SourceStatus.EXHAUSTED

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return the next ``n`` crystals.

        The tag of each holds ``prototype`` (its label), ``spacegroup``, ``sites`` (elements of the slots), ``template``
        (where the coordinates come from, ``None`` if they were drawn), ``draw``, ``chance`` (estimated) and ``rank``,
        its place in the order of options.
        """
        proposals: list[Proposal] = []
        for rank in islice(self._options.possible(self._next), OPTIONS_PER_CALL):
            if len(proposals) == n:
                break
            start = time.perf_counter()
            option = self._options[rank]
            atoms = option.build(self._problem, context.rng)
            if atoms is not None:
                proposals.append(_proposal(option, atoms, rank, time.perf_counter() - start))
        return proposals

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Continue with the options after these."""
        for candidate in candidates:
            self._next = max(self._next, int(candidate.proposal.tag["rank"]) + 1)


def _proposal(option: Option, atoms: Atoms, rank: int, seconds: float) -> Proposal:
    if option.template is None:
        operator, template = "wyckoff-table", None
    else:
        operator, template = option.template.kind, option.template.name
    tag = {
        "prototype": str(option.label),
        "spacegroup": option.label.spacegroup,
        "sites": [chemical_symbols[z] for z in option.elements],
        "template": template,
        "draw": option.draw,
        "chance": option.chance,
        "rank": rank,
    }
    return Proposal(atoms=atoms, operator=operator, tag=tag, cost=Cost(seconds=seconds))
