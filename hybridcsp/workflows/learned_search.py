"""A search on the fly: relaxations with a committee that learns, and an expensive calculator where it is needed.

In each round a committee of potentials is trained on all evaluations by the expensive calculator, and a search runs
with it. Its promising minima, and structures about which it is uncertain, are relaxed by the expensive calculator,
whose evaluations extend the training data. Active learning of this kind was shown for structure searches with moment
tensor potentials (doi:10.1103/PhysRevB.99.064114) and Gaussian processes (doi:10.1103/PhysRevLett.124.086102).

The run directory is an ordinary one of a search with the expensive calculator, whose only source are the selected
structures; it holds no energy of a committee. Each round has a folder of its own with the committee and its search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Limits
from hybridcsp.errors import InputError
from hybridcsp.io.structure_writer import structure_writer
from hybridcsp.potentials.architecture import sizes_named
from hybridcsp.potentials.calculator import UNCERTAIN
from hybridcsp.potentials.committee import TRAINING, Committee
from hybridcsp.potentials.evaluations import read_evaluations
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import CalculatorLike, check_calculator
from hybridcsp.relaxation.calculators.server.identity import describe
from hybridcsp.search.search import Search
from hybridcsp.sources.registry import DEFAULT_SOURCES
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.weights_io import CARD
from hybridcsp.utils.files import make_folder
from hybridcsp.utils.locks import FileLock, LockFileError, LockHeldError
from hybridcsp.workflows.design_rounds import read_frames, read_record
from hybridcsp.workflows.learned_rounds import (
    CHECKPOINT,
    LOCK,
    POTENTIAL,
    SEARCH,
    SELECTED,
    START,
    LearningAccount,
    LearningPlan,
    check_same_plan,
    read_account,
    round_folder,
    select,
    selected_file,
    write_account,
)

# Number of the best minima that are refined at the end with the expensive calculator.
_REFINED = 5
# More than any number of selected structures.
_ALL = 10**6


class LearnedSearch:
    """Search with an expensive calculator and a committee of potentials that learns from it.

    The same call continues after every interruption: what is complete in the directory is not repeated. With one
    worker, the results are those of a run without interruption.

    Parameters
    ----------
    problem
        Problem of one composition.
    calculator
        Expensive calculator. Every energy in the results is of this one.
    plan
        Settings of the rounds.
    directory
        Run directory, a new one or that of the same search.
    sources
        Names of the sources of candidates, for the start and for the searches with the committee.
    workers
        Number of worker processes. Default: one per core.
    on_progress
        Function that is called with a short text when a step begins.

    Raises
    ------
    InputError, CalculatorError
        If a setting or the calculator cannot be used, or MACE is not installed.
    """

    def __init__(
        self,
        problem: Problem,
        calculator: CalculatorLike,
        plan: LearningPlan | None = None,
        *,
        directory: Path | str,
        sources: Sequence[str] = DEFAULT_SOURCES,
        workers: int | None = None,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not isinstance(problem, Problem):
            raise InputError(
                "problem",
                problem,
                reason="a potential that learns is for one composition, and this is another kind of problem",
            )
        if problem.cell is not None:
            raise InputError("cell", problem.cell, reason="the training needs stresses, and a fixed cell has none")
        check_calculator(calculator)
        self.problem = problem
        self.calculator = calculator
        self.plan = plan or LearningPlan()
        self.directory = Path(directory).absolute()
        self._sources = tuple(sources)
        self._workers = workers
        self._show = on_progress
        Committee(sizes_named(self.plan.size))  # MACE must be installed

    def run(self, on_account: Callable[[LearningAccount], None] = lambda _: None) -> list[LearningAccount]:
        """Run all rounds that are left, and refine the best minima.

        The rounds end early if the committee finds no minimum that the expensive calculator does not know.

        Parameters
        ----------
        on_account
            Function that is called with the account of each complete round, those of earlier runs included.

        Returns
        -------
        list of LearningAccount
            The start and all rounds.

        Raises
        ------
        InputError
            If the directory belongs to something else or is in use, or the evaluations are too few to learn from.
        RelaxationsFailedError
            If the first relaxations with the expensive calculator all fail for the same reason.
        """
        make_folder(self.directory, key="--directory")
        others = {
            "problem": self.problem.describe(),
            "calculator": self._shown,
            "sources": list(self._sources),
        }
        accounts: list[LearningAccount] = []
        with _locked(self.directory):
            check_same_plan(self.directory, self.plan, others)
            for number in range(self.plan.rounds + 1):
                account = read_account(self.directory, number)
                if account is None:
                    account = self._round(number) if number else self._start()
                    write_account(self.directory, account)
                accounts.append(account)
                on_account(account)
                if not any(account.selected.values()):
                    break
            self._show("refining the best minima")
            self._calculate(_REFINED)
        return accounts

    def _start(self) -> LearningAccount:
        """Relax the first structures of the sources with the expensive calculator."""
        file = selected_file(self.directory, 0)
        if not file.exists():
            self._show("proposing structures")
            with Search(
                self.problem,
                calculator=None,
                sources=self._sources,
                seed=self.plan.seed,
                directory=round_folder(self.directory, 0) / SEARCH,
            ) as search:
                missing = self.plan.start - len(search.pending())
                if missing > 0:
                    search.ask(missing)
                found = [candidate.atoms for candidate in search.pending()]
            if not found:
                raise InputError("sources", self._sources, reason="there is no source that proposes a structure")
            for atoms in found:
                atoms.info = {"selected": START}
            _write(file, found)
        self._show(f"relaxing {self.plan.start} structures with {self._shown}")
        return LearningAccount(number=0, selected=_reasons(file), **self._calculate())

    def _round(self, number: int) -> LearningAccount:
        """Train a committee, search with it, and relax the selected structures with the expensive calculator."""
        card = self._trained(number)
        file = selected_file(self.directory, number)
        if not file.exists():
            self._show(f"round {number}: searching with the committee")
            self._search(number)
        with Archive(round_folder(self.directory, number) / SEARCH) as archive:
            ends = [one for one in archive.history() if isinstance(one, Relaxed | Failed)]
            calls = archive.state.cost.force_calls
        self._show(f"round {number}: relaxing selected structures with {self._shown}")
        held_out = card.get("held_out") or {}
        return LearningAccount(
            number=number,
            learned=int(card["crystals"]),
            errors=held_out.get("mean_absolute_errors", {}),
            relaxed=sum(isinstance(one, Relaxed) for one in ends),
            stopped=sum(isinstance(one, Failed) and UNCERTAIN in one.detail for one in ends),
            committee_calls=calls,
            selected=_reasons(file),
            **self._calculate(),
        )

    def _search(self, number: int) -> None:
        """Search with the committee of a round, and write the structures for the expensive calculator."""
        folder = round_folder(self.directory, number)
        with Search(
            self.problem,
            calculator=f"committee:{folder / POTENTIAL}:{self.plan.limit!r}",
            sources=self._sources,
            seed=self.plan.seed + number,
            workers=self._workers,
            directory=folder / SEARCH,
        ) as search:
            search.run(relaxations=self.plan.relaxations, refine=0, stop_after_failures=0)
            with Archive(self.directory) as expensive:
                _write(selected_file(self.directory, number), select(search.archive, expensive, self.plan))

    def _trained(self, number: int) -> dict[str, Any]:
        """Return the card of the committee of a round, which is trained if it is not there."""
        folder = round_folder(self.directory, number) / POTENTIAL
        card = read_record(folder / CARD)
        if card is not None:
            return card
        self._show(f"round {number}: training")
        plan = self.plan
        committee = Committee(sizes_named(plan.size))
        settings = TrainingSettings(**{**vars(TRAINING), "epochs": plan.epochs})

        def on_epoch(epoch: Epoch) -> None:
            self._show(f"round {number}: training {epoch.part}, epoch {epoch.number + 1}")

        committee.fit(
            read_evaluations([self.directory], key="--directory"),
            members=plan.members,
            most=plan.most,
            seed=plan.seed,
            training=settings,
            checkpoint=folder / CHECKPOINT,
            on_epoch=on_epoch,
        )
        committee.save(folder)
        for checkpoint in folder.glob(f"*{CHECKPOINT}"):
            checkpoint.unlink()
        return committee.card

    def _calculate(self, refine: int = 0) -> dict[str, Any]:
        """Relax all selected structures with the expensive calculator that were not relaxed before."""
        with Search(
            self.problem,
            calculator=self.calculator,
            sources=[f"seeds:{self.directory / SELECTED}"],
            seed=self.plan.seed,
            workers=self._workers,
            limits=Limits(force_calls=self.plan.max_steps, seconds=self.plan.seconds),
            directory=self.directory,
            keep_evaluations=True,
        ) as search:
            search.run(relaxations=_ALL, refine=refine)
            archive = search.archive
            return {
                "force_calls": archive.state.cost.force_calls,
                "minima": archive.number_of_minima,
                "best": archive.best_enthalpy_per_atom,
            }

    @property
    def _shown(self) -> str:
        """Name of the expensive calculator; the same for another object of the same kind."""
        choice = CalculatorChoice.of(self.calculator)
        return describe(choice.calculator) if isinstance(choice.calculator, BaseCalculator) else str(choice)


def _reasons(file: Path) -> dict[str, int]:
    """Return the number of selected structures by reason."""
    return dict(Counter(str(atoms.info["selected"]) for atoms in read_frames(file)))


def _write(file: Path, structures: Sequence[Atoms]) -> None:
    """Write selected structures into a file, which is empty if there are none."""
    make_folder(file.parent, key="--directory")
    with structure_writer(file, key="--directory", follow=False) as write:
        for atoms in structures:
            write(atoms)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory."""
    try:
        lock = FileLock(directory / LOCK)
    except LockHeldError as error:
        raise InputError("--directory", directory, reason=f"it is in use by {error.holder}") from None
    except LockFileError as error:
        raise InputError("--directory", directory, reason=f"it cannot be used: {error}") from None
    try:
        yield
    finally:
        lock.release()
