"""Known prototypes with other elements: AFLOW's, those counted in the training data, and a person's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from ase import Atoms
from ase.data import chemical_symbols

from hybridcsp.problem import Problem
from hybridcsp.prototypes import Library, Options, TemplateLibrary, aflow, shipped_table
from hybridcsp.records import Candidate, Outcome, Proposal, Relaxed
from hybridcsp.similarity import STARTS, StructureIndex, describe
from hybridcsp.sources import Context
from hybridcsp.sources.one_shot import Start, Waiting, check_one_shot, proposal, starts_of

#: Options tried in one call before it is given up.
OPTIONS_PER_CALL = 50

#: So many proposals are the most probable options, before energies put options in order.
FIRST_CHOICES = 1


class PrototypesSource:
    """Element substitution: each known prototype with the problem's elements in it, the most probable first.

    Coordinates are AFLOW's or a person's own (operators ``aflow`` and ``template``), or are drawn on the Wyckoff
    positions of a prototype that the training data are known to hold (``wyckoff-table``). The order depends on the
    problem alone (:class:`hybridcsp.prototypes.Options`); what is drawn follows the search's seed.

    With ``one_shot`` that order alone decides of the first proposal only. Then the next options and the lowest of those
    before are one job, which takes one energy of each, counted like all force calls, and relaxes the lowest; the two
    that are then the lowest follow (:mod:`hybridcsp.sources.one_shot`). What is a known minimum is passed over.

    Parameters
    ----------
    problem
        What is searched. With a fixed cell there is nothing to propose.
    argument
        A file or folder of structures to take as templates beside AFLOW's. Their index is kept in the user's cache.
    libraries
        Other libraries than AFLOW's: none, or one without what a benchmark seeks (:meth:`AflowLibrary.without`).
    one_shot
        How many options together are one job; 1: every option is a job, and the most probable comes first.

    Raises
    ------
    InputError
        If there is nothing at that path, or no crystal in it, or ``one_shot`` is less than 1.
    """

    def __init__(
        self,
        problem: Problem,
        argument: str | None = None,
        *,
        libraries: Sequence[Library] | None = None,
        one_shot: int = 1,
    ) -> None:
        check_one_shot(one_shot)
        self._problem = problem
        self.one_shot = one_shot
        own: list[Library] = [] if argument is None else [TemplateLibrary(argument)]
        self._options = Options(problem, shipped_table(), [*own, *([aflow()] if libraries is None else libraries)])
        self._choices = 0
        self._taken: set[int] = set()  # ranks
        self._next = 0  # every rank below is taken
        self._waiting = Waiting(lambda tag: tag["rank"])
        self._minima = StructureIndex(energy_window=None, tolerances=STARTS)

    @property
    def exhausted(self) -> bool:
        """Whether every option that can be built was proposed, and none waits or may come back from a job."""
        return self._waiting.empty and next(self._untaken(), None) is None

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return the next ``n`` crystals, or one proposal where energies choose.

        The tag of each holds ``prototype`` (its label), ``spacegroup``, ``sites`` (elements of the slots), ``template``
        (where the coordinates come from, ``None`` if they were drawn), ``draw``, ``chance`` (estimated) and ``rank``,
        its place in the order of options. ``passed``, if there, are the ranks of those that came to nothing on the way.
        """
        if self.one_shot > 1 and self._choices >= FIRST_CHOICES:
            return self._by_energy(context)
        proposals: list[Proposal] = []
        passed: list[int] = []
        for rank in islice(self._untaken(), OPTIONS_PER_CALL):
            if len(proposals) == n:
                break
            start = time.perf_counter()
            built = self._build(rank, context)
            if built is None:
                passed.append(rank)
            else:
                proposals.append(proposal([built], _passed(passed), time.perf_counter() - start))
                passed = []
        return proposals

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Go on to the options after these."""
        for candidate in candidates:
            self._choices += 1
            self._waiting.proposed(candidate)
            ranks = [int(start.about["rank"]) for start in starts_of(candidate)]
            self._taken.update(ranks, candidate.proposal.tag.get("passed", ()))
            while self._next in self._taken:
                self._next += 1

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of minima, and of the energies of what was not relaxed."""
        if self.one_shot == 1:
            return
        for outcome in outcomes:
            self._waiting.observe(outcome)
            if isinstance(outcome, Relaxed) and outcome.opened:
                self._minima.add(len(self._minima), describe(outcome.atoms))
                self._waiting.drop(self._is_known)

    def _by_energy(self, context: Context) -> list[Proposal]:
        """Return the best of those that wait, or one job of it and the next options, with the same atoms."""
        start = time.perf_counter()
        if self._waiting.next is not None:
            return [proposal([self._waiting.next], {}, time.perf_counter() - start)]
        lost = self._waiting.unranked()
        fresh = [one for one in lost if self._units(one) == self._units(lost[0])][: self.one_shot - 1]
        passed: list[int] = []
        repeated: list[Start] = []
        for rank in islice(self._untaken(), OPTIONS_PER_CALL):
            if len(fresh) == self.one_shot - 1:
                break
            if fresh and self._options[rank].units != self._units(fresh[0]):
                continue
            built = self._build(rank, context)
            if built is not None and not self._is_known(built.atoms):
                fresh.append(built)
            else:
                passed.append(rank)
                repeated += [built] if built is not None else []
        best = [one for one in self._waiting.ranked() if not fresh or self._units(one) == self._units(fresh[0])][:1]
        chosen = fresh + best or repeated[:1]
        return [proposal(chosen, _passed(passed), time.perf_counter() - start)] if chosen else []

    def _untaken(self) -> Iterator[int]:
        return (rank for rank in self._options.possible(self._next) if rank not in self._taken)

    def _build(self, rank: int, context: Context) -> Start | None:
        option = self._options[rank]
        atoms = option.build(self._problem, context.rng)
        if atoms is None:
            return None
        template = option.template
        about = {
            "prototype": str(option.label),
            "spacegroup": option.label.spacegroup,
            "sites": [chemical_symbols[z] for z in option.elements],
            "template": None if template is None else template.name,
            "draw": option.draw,
            "chance": option.chance,
            "rank": rank,
        }
        return Start(atoms, "wyckoff-table" if template is None else template.kind, about)

    def _units(self, start: Start) -> int | None:
        return self._problem.units_of(start.atoms.numbers)

    def _is_known(self, atoms: Atoms) -> bool:
        return self._minima.find(describe(atoms)) is not None


def _passed(ranks: Sequence[int]) -> dict[str, list[int]]:
    return {"passed": list(ranks)} if ranks else {}
