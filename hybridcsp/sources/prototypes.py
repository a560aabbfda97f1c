"""Known prototypes with other elements: AFLOW's, those counted in the training data, and a person's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols

from hybridcsp.problem import Problem
from hybridcsp.prototypes import Library, Options, TemplateLibrary, aflow, shipped_table
from hybridcsp.records import (
    LOWEST,
    RELAX,
    RIVALS,
    Candidate,
    Cost,
    Outcome,
    Proposal,
    Relaxed,
    as_rival,
    check_one_shot,
)
from hybridcsp.similarity import STARTS, StructureIndex, describe
from hybridcsp.sources import Context

#: Options tried in one call before it is given up.
OPTIONS_PER_CALL = 50

#: So many proposals are the most probable options, before energies put options in order.
FIRST_CHOICES = 1

#: Operator of proposals that hold several options.
BY_ENERGY = "by-energy"


@dataclass(frozen=True, eq=False, slots=True)
class _Built:
    """An option with its structure."""

    rank: int
    atoms: Atoms
    operator: str
    about: Mapping[str, Any]


class PrototypesSource:
    """Element substitution: each known prototype with the problem's elements in it, the most probable first.

    Coordinates are AFLOW's or a person's own (operators ``aflow`` and ``template``), or are drawn on the Wyckoff
    positions of a prototype that the training data are known to hold (``wyckoff-table``). The order depends on the
    problem alone (:class:`hybridcsp.prototypes.Options`); what is drawn follows the search's seed.

    With ``one_shot`` that order is the first proposal's alone. Each of the later ones holds the next options and the
    best of those before (``by-energy``): a job takes one energy of each, counted like all force calls, and relaxes the
    lowest. The others wait with their energies. What is known already, as the start of a proposal or a minimum, is
    passed over.

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
        self._waiting: dict[int, tuple[_Built, float | None]] = {}  # by rank, in no job now: with enthalpies per atom
        self._sent: dict[int, list[_Built]] = {}  # by candidate
        self._minima = StructureIndex(energy_window=None, tolerances=STARTS)

    @property
    def exhausted(self) -> bool:
        """Whether every option that can be built was proposed."""
        return not self._waiting and next(self._untaken(), None) is None

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return the next ``n`` crystals, or one proposal where energies choose.

        The tag of each holds ``prototype`` (its label), ``spacegroup``, ``sites`` (elements of the slots), ``template``
        (where the coordinates come from, ``None`` if they were drawn), ``draw``, ``chance`` (estimated) and ``rank``,
        its place in the order of options. Where energies choose, ``options`` holds that and the ``operator`` for each
        of ``candidate.starts``. ``passed`` are the ranks of those that came to nothing on the way.
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
                proposals.append(_proposal([built], passed, start))
                passed = []
        return proposals

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Go on to the options after these."""
        for candidate in candidates:
            tag = candidate.proposal.tag
            built = []
            for about, atoms in zip(tag.get("options", [tag]), candidate.starts, strict=True):
                operator = about.get("operator", candidate.operator)
                built.append(_Built(int(about["rank"]), atoms, operator, about))
            if len(built) > 1:
                self._sent[candidate.id] = built
            self._choices += 1
            for one in built:
                self._waiting.pop(one.rank, None)
            self._taken.update([one.rank for one in built], tag.get("passed", ()))
            while self._next in self._taken:
                self._next += 1

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of minima, and keep what was in a job and was not relaxed."""
        if self.one_shot == 1:
            return
        for outcome in outcomes:
            if outcome.candidate.id in self._sent:
                self._keep(self._sent.pop(outcome.candidate.id), outcome.start_enthalpies)
            if isinstance(outcome, Relaxed) and outcome.opened:
                self._minima.add(outcome.candidate.id, describe(outcome.atoms))
                self._waiting = {rank: one for rank, one in self._waiting.items() if not self._is_known(one[0].atoms)}

    def _keep(self, built: Sequence[_Built], enthalpies: Sequence[float | None]) -> None:
        """Let those wait that a job did not relax."""
        if not enthalpies:  # it did not come so far; the first would have been relaxed
            self._waiting.update((one.rank, (one, None)) for one in built[1:])
            return
        known = [(one, enthalpy) for one, enthalpy in zip(built, enthalpies, strict=True) if enthalpy is not None]
        relaxed = min(known, key=lambda pair: pair[1])[0]
        self._waiting.update((one.rank, (one, enthalpy)) for one, enthalpy in known if one is not relaxed)

    def _by_energy(self, context: Context) -> list[Proposal]:
        """Return one job: the next options and the best of those whose energies are known, with the same atoms."""
        start = time.perf_counter()
        waiting = [one for one, enthalpy in self._waiting.values() if enthalpy is None]
        fresh = [one for one in waiting if self._units(one) == self._units(waiting[0])][: self.one_shot - 1]
        passed: list[int] = []
        repeated: list[_Built] = []
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
        ranked = sorted((e, rank) for rank, (_, e) in self._waiting.items() if e is not None)
        best = [self._waiting[rank][0] for _, rank in ranked]
        alike = [one for one in best if not fresh or self._units(one) == self._units(fresh[0])]
        chosen = fresh + alike[:1] or repeated[:1]
        return [_proposal(chosen, passed, start)] if chosen else []

    def _units(self, built: _Built) -> int | None:
        return self._problem.units_of(built.atoms.numbers)

    def _untaken(self) -> Iterator[int]:
        return (rank for rank in self._options.possible(self._next) if rank not in self._taken)

    def _build(self, rank: int, context: Context) -> _Built | None:
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
        return _Built(rank, atoms, "wyckoff-table" if template is None else template.kind, about)

    def _is_known(self, atoms: Atoms) -> bool:
        return self._minima.find(describe(atoms)) is not None


def _proposal(built: Sequence[_Built], passed: Sequence[int], start: float) -> Proposal:
    first, *others = built
    tag: dict[str, Any] = {"passed": list(passed)} if passed else {}
    if others:
        tag["options"] = [{**one.about, "operator": one.operator} for one in built]
        tag[RIVALS] = [as_rival(one.atoms, first.atoms) for one in others]
    else:
        tag |= first.about
    return Proposal(
        atoms=first.atoms,
        operator=BY_ENERGY if others else first.operator,
        tag=tag,
        cost=Cost(seconds=time.perf_counter() - start),
        level=LOWEST if others else RELAX,
    )
