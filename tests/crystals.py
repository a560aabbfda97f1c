"""Small structures, sources and backends that tests make for themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup import crystal

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.event_log import EventLog
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.records import FOLLOW_UP, LOWEST, Candidate, Job, Proposal
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.sources.base import BaseSource, Context, SourceStatus


def rutile(a: float = 4.6, c: float = 2.96, u: float = 0.305) -> Atoms:
    positions = [(0, 0, 0), (0.5, 0.5, 0.5), (u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5), (0.5 - u, 0.5 + u, 0.5)]
    return Atoms("Ti2O4", scaled_positions=positions, cell=[a, a, c], pbc=True)


def anatase() -> Atoms:
    positions = [
        (0, 0, 0),
        (0.75, 0.25, 0.5),
        (0.792, 0.792, 0.416),
        (0.208, 0.208, 0.584),
        (0.542, 0.042, 0.916),
        (0.958, 0.458, 0.084),
    ]
    cell = [[3.78, 0, 0], [0, 3.78, 0], [1.89, 1.89, 4.76]]
    return Atoms("Ti2O4", cell=cell, scaled_positions=positions, pbc=True)


def quartz() -> Atoms:
    basis = [(0.47, 0, 1 / 3), (0.4135, 0.267, 0.2142)]
    return crystal(["Si", "O"], basis, spacegroup=152, cellpar=[4.91, 4.91, 5.4, 90, 90, 120])


def random_crystal(symbols: str, volume_per_atom: float, rng: np.random.Generator) -> Atoms:
    """Random positions in a random cell, without any regard to distances, except that no atoms coincide."""
    n = len(Atoms(symbols))
    cell = np.eye(3) + rng.normal(0, 0.15, (3, 3))
    cell *= (n * volume_per_atom / abs(np.linalg.det(cell))) ** (1 / 3)
    while True:
        atoms = Atoms(symbols, cell=cell, scaled_positions=rng.random((n, 3)), pbc=True)
        if n == 1 or atoms.get_all_distances(mic=True)[np.triu_indices(n, 1)].min() > 0.6:
            return atoms


class P1Source(BaseSource):
    """Random crystals without symmetry: the simplest source that proposes many different things."""

    name = "p1"

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.made = 0
        self.heard: list[Outcome] = []

    def status(self) -> SourceStatus:
        return SourceStatus.EXHAUSTED if self.most is not None and self.made >= self.most else SourceStatus.READY

    def propose(self, n: int, context: Context) -> Sequence[Proposal]:
        problem, rng = context.problem, context.rng
        units = int(rng.choice(problem.units))
        symbols = "".join(f"{symbol}{count}" for symbol, count in problem.contents(units).items())
        volume = problem.expected_volume_per_atom * rng.uniform(0.9, 1.3)
        return [Proposal(atoms=random_crystal(symbols, volume, rng), operator="p1", tag={"units": units})]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        self.made += len(candidates)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        self.heard += outcomes


class ListSource(BaseSource):
    """Proposes what it was given, one after the other."""

    name = "list"

    def __init__(self, structures: Sequence[Atoms], operator: str = "given") -> None:
        self.structures = list(structures)
        self.operator = operator
        self.next = 0

    def status(self) -> SourceStatus:
        return SourceStatus.READY if self.next < len(self.structures) else SourceStatus.EXHAUSTED

    def propose(self, n: int, context: Context) -> Sequence[Proposal]:
        chosen = self.structures[self.next : self.next + n]
        return [Proposal(atoms=atoms, operator=self.operator, parents=(1,) * (self.next > 0)) for atoms in chosen]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        self.next += len(candidates)


def relaxed(candidate: Candidate, energy_per_atom: float, atoms: Atoms | None = None, **changes: object) -> Relaxed:
    """A relaxation that ended in a structure, by default in the one it began with."""
    end = (candidate.atoms if atoms is None else atoms).copy()
    energy = energy_per_atom * len(end)
    end.calc = SinglePointCalculator(end, energy=energy, forces=np.zeros((len(end), 3)), stress=np.zeros(6))
    evaluation = Evaluation(
        level=str(changes.pop("level", "relax")),
        calculator=str(changes.pop("calculator", "test")),
        energy=energy,
        enthalpy=energy,
        max_force=0.0,
        max_stress_residual=0.0,
    )
    return Relaxed(candidate=candidate, atoms=end, evaluation=evaluation, **({"converged": True} | changes))  # type: ignore[arg-type]


def followed_up(of: int, energy_per_atom: float | None, **changes: object) -> FollowUpOutcome:
    """A follow-up relaxation of a minimum of the search that ended in a minimum of its own; failed without energy."""
    number, calculator = int(str(changes.pop("number", 1))), str(changes.pop("calculator", "second"))
    candidate = Candidate(proposal=Proposal(atoms=rutile(), operator="random"), id=of, source="random")
    ended: Relaxed | Failed = Failed(candidate=candidate, reason=FailureReason.TIME_LIMIT, level=FOLLOW_UP)
    if energy_per_atom is not None:
        changes = {"minimum": of, "is_new_minimum": True, "level": FOLLOW_UP, "calculator": calculator} | changes
        ended = relaxed(candidate, energy_per_atom, **changes)  # type: ignore[arg-type]
    return FollowUpOutcome(of=of, number=number, spec="second", calculator=calculator, outcome=ended)


def preferred(minima: Sequence[Minimum]) -> list[PreferredMinimum]:
    """The minima by their enthalpies, with heights and ends as without follow-ups."""
    ranked = sorted(minima, key=lambda minimum: minimum.enthalpy_per_atom)
    lowest = ranked[0].enthalpy_per_atom if ranked else 0.0
    return [PreferredMinimum(minimum=m, height=m.enthalpy_per_atom - lowest, end=m.best) for m in ranked]


def archive_of(minima: Sequence[Minimum]) -> Archive:
    """An archive as far as sources read the minima in it."""
    found = preferred(minima)
    archive = SimpleNamespace(
        minima=lambda n=None: [one.minimum for one in found[:n]], preferred_minima=lambda n=None: found[:n]
    )
    return cast(Archive, archive)


class InlineBackend(Backend):
    """Runs each job in this process, when somebody waits for it."""

    def __init__(self, runner: Callable[[Job], Relaxed | Failed], capacity: int = 1) -> None:
        self.runner = runner
        self.capacity = capacity
        self.jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        return [self.runner(self.jobs.popleft())] if self.jobs else []

    def close(self) -> None:
        self.jobs.clear()


def instant_relaxation(job: Job) -> Relaxed | Failed:
    """Relax to nowhere, with an energy that depends on the structure alone."""
    several = job.level == LOWEST
    starts = job.candidate.starts if several else [job.atoms]
    energies = [-3.0 - 1.0 / float(np.linalg.norm(start.cell.array @ start.cell.array.T)) for start in starts]
    lowest = int(np.argmin(energies))
    told = tuple(energies) if several else ()
    return relaxed(job.candidate, energies[lowest], starts[lowest], level=job.level, start_enthalpies=told)


def what_happened(directory: Path) -> list[tuple[object, ...]]:
    """Every event of a search with its structure to the last bit, but for how long things took."""
    log = EventLog(directory, write=False)
    events = []
    for event in log.read():
        if event.kind not in ("opened", "stopped"):
            data = {key: value for key, value in event.to_json().items() if key != "cost"}
            atoms = None if event.row is None else log.atoms(event.row)
            structure = None if atoms is None else (atoms.positions.tobytes(), atoms.cell.array.tobytes())
            events.append((event.kind, data, structure))
    return events
