"""Settings of a search, which its keywords, its configuration and its run directory share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Limits
from hybridcsp.core.system import System
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.external import Command
from hybridcsp.objectives.choice import choices_of
from hybridcsp.objectives.conditions import Condition
from hybridcsp.objectives.goals import Goals
from hybridcsp.objectives.measured_pattern import MeasuredPattern, with_pattern
from hybridcsp.relaxation.backends.executors import LOCAL, build_executor, check_executor
from hybridcsp.relaxation.backends.executors.registry import absolute_executor
from hybridcsp.relaxation.batch_size import check_batch_calculator, check_batch_executor, read_batch
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.dft.chosen import check_elements
from hybridcsp.relaxation.calculators.registry import CalculatorLike, check_calculator
from hybridcsp.relaxation.objective_trial import try_objectives
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.retraining import Retraining
from hybridcsp.search.allocation import Allocation
from hybridcsp.search.allocations import DEFAULT_ALLOCATION, find_allocation
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.stopping import StoppingCriteria
from hybridcsp.sources.base import BaseSource
from hybridcsp.sources.registry import DEFAULT_SOURCES, ONE_SHOT
from hybridcsp.utils.checks import whole_number
from hybridcsp.utils.paths import absolute_program
from hybridcsp.utils.resources import available_cores

#: Calculator of a search whose settings name none.
DEFAULT_CALCULATOR = "chgnet"

#: Arguments that take the fields of nested settings.
_NESTED: dict[type, str] = {
    RelaxationSettings: "relaxation=RelaxationSettings(...)",
    Limits: "limits=Limits(...)",
    FollowUp: "then=FollowUp(...)",
    MeasuredPattern: "xrd=MeasuredPattern(...)",
    StoppingCriteria: "run()",
}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of a search, apart from its problem and its run directory.

    Parameters
    ----------
    calculator
        A name (``"chgnet"``, ``"mace:PATH"``, ``"module:factory"``), an ASE calculator, or a function that returns one.
        ``None``: structures are relaxed outside, through ask and tell.
    python, device, precision
        Path of the Python interpreter in which the calculator is built, device on which it computes, such as
        ``"cuda"``, and its precision, ``"float32"`` or ``"float64"``. Default: those of the calculator, see
        :class:`~hybridcsp.relaxation.calculators.choice.CalculatorChoice`, which ``calculator`` may also be.
    sources
        Names (``"random"``, ``"seeds:PATH"``) or :class:`~hybridcsp.sources.base.BaseSource` objects, which share the
        relaxations. Default: those of a search of a formula; a search of a chemical system that is given no settings
        uses :data:`~hybridcsp.sources.registry.SYSTEM_SOURCES`.
    allocation
        The rule that divides relaxations between the sources: ``"earnings"`` (the highest expected rate of success per
        force call), ``"equal"`` shares, or an :class:`~hybridcsp.search.allocation.Allocation`.
    seed
        Random seed. One worker and one seed give the same search every time.
    workers
        Number of worker processes, with one thread each. Default: one per core. With another executor than that of this
        machine: the largest number of relaxations at once. Default: as many as it has workers.
    executor
        Where the relaxations run: ``"local"``, worker processes of this machine, or on a cluster, such as
        ``"dask:tcp://head:8786"`` or ``"parsl:FILE"``; :mod:`hybridcsp.relaxation.backends.executors` has all of them.
    batch
        Number of candidates that each worker relaxes at the same time, evaluating their structures together, or
        ``"auto"``. Default: one. The calculator must be a batch calculator, such as CHGNet or MACE.
    relaxation
        Settings of relaxations; their pressure and fixed cell come from the problem.
    limits
        Force calls, seconds and memory that one relaxation may use.
    retraining
        When and how generators among the sources are retrained on the minima of the search.
    external
        Commands that generate structures, by name; the source ``"external:NAME"`` runs one.
    one_shot
        Number of samples of a generator per job; the job evaluates each and relaxes the most promising. 1 makes every
        sample a job of its own. Default: 12, and 1 for ask and tell. Sources that are passed as objects keep their own
        number.
    references
        Structure files of known phases, in a search of a chemical system: they are relaxed first, and enter the hull.
    then
        Follow-up relaxations of the best minima with other calculators: a
        :class:`~hybridcsp.search.follow_up.FollowUp`, or a calculator or several, as ``calculator`` may be given.
    objectives
        Objectives beside a low enthalpy: ``"density:max"``, ``"bulk_modulus:120"`` (near this value),
        ``"my.py:function:min"``, or each as an :class:`~hybridcsp.objectives.ObjectiveChoice`.
    where
        Condition on the values of minima, such as ``"density > 4 and height < 0.2"``: comparisons of objectives, or of
        ``height`` (the enthalpy above the lowest minimum in eV/atom), joined by ``and``. Minima that do not meet it are
        recorded, but are no parents of evolution, no lessons, and not on the Pareto front.
    xrd
        Measured powder pattern to which minima shall be similar: its path, or a
        :class:`~hybridcsp.objectives.MeasuredPattern` with its wavelength and axis. It becomes one of the
        ``objectives``, and with ``at_least`` a part of ``where``.
    keep_evaluations
        Whether all structures that are evaluated, with energies, forces and stresses, are kept in the folder
        ``evaluations`` of the run directory: potentials can be trained on them.

    Raises
    ------
    InputError, CalculatorError
        For values that are not valid.
    """

    calculator: CalculatorLike | None = DEFAULT_CALCULATOR
    python: str | None = None
    device: str | None = None
    precision: str | None = None
    sources: Sequence[str | BaseSource] = DEFAULT_SOURCES
    allocation: Allocation | str = DEFAULT_ALLOCATION
    seed: int = 0
    workers: int | None = None
    executor: str = LOCAL
    batch: int | str | None = None
    relaxation: RelaxationSettings = field(default_factory=RelaxationSettings)
    limits: Limits = field(default_factory=Limits)
    retraining: Retraining = field(default_factory=Retraining)
    external: Mapping[str, Command] = field(default_factory=dict)
    one_shot: int | None = None
    references: Sequence[str | Path] = ()
    then: FollowUp = field(default_factory=FollowUp)
    objectives: Sequence[Any] = ()
    where: str = ""
    xrd: MeasuredPattern = field(default_factory=MeasuredPattern)
    keep_evaluations: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.python, str):
            object.__setattr__(self, "python", absolute_program(self.python, Path.cwd()))
        if self.choice is not None:
            check_calculator(self.choice)
        if self.batch is not None:
            object.__setattr__(self, "batch", read_batch(self.batch))  # the way to set a field of a frozen dataclass
            self._check_batch(self.batch)
        object.__setattr__(self, "then", FollowUp.of(self.then))
        self.then.check()
        object.__setattr__(self, "xrd", MeasuredPattern.of(self.xrd).in_folder(Path.cwd()))
        object.__setattr__(self, "where", self.xrd.condition(self.where))
        choices = choices_of(with_pattern(self.objectives, self.xrd), self.where)
        object.__setattr__(self, "objectives", tuple(one.in_folder(Path.cwd()) for one in choices))
        for name, least in (("workers", 1), ("seed", 0), ("one_shot", 1)):
            value = getattr(self, name)
            if value is not None or name == "seed":
                number = whole_number(name, value, f"a whole number from {least}", least)
                object.__setattr__(self, name, number)
        if not isinstance(self.keep_evaluations, bool):
            raise InputError("keep_evaluations", self.keep_evaluations, "one of true and false")
        object.__setattr__(self, "executor", absolute_executor(check_executor(self.executor), Path.cwd()))
        if isinstance(self.allocation, str):
            object.__setattr__(self, "allocation", find_allocation(self.allocation))
        elif not isinstance(self.allocation, Allocation):
            allowed = (
                "the name of an allocation, or an instance of a subclass of hybridcsp.search.allocation.Allocation"
            )
            raise InputError("allocation", self.allocation, allowed)

    def _check_batch(self, batch: int | str) -> None:
        """Check that candidates can be relaxed at the same time.

        Raises
        ------
        InputError
            If there is no calculator, or it evaluates one structure after the other.
        """
        if self.choice is None:
            raise InputError("batch", batch, reason="it belongs to a calculator, and none is given")
        check_batch_calculator(batch, self.choice)
        check_batch_executor(batch, self.executor)

    @property
    def choice(self) -> CalculatorChoice | None:
        """The calculator with its interpreter, device and precision; ``None`` for ask and tell.

        Raises
        ------
        InputError
            If an option is given without a calculator, or has a wrong value.
        """
        options = {"python": self.python, "device": self.device, "precision": self.precision}
        if self.calculator is None:
            for option, value in options.items():
                if value is not None:
                    raise InputError(option, value, reason="it belongs to a calculator, and none is given")
            return None
        given = self.calculator
        choice = given if isinstance(given, CalculatorChoice) else CalculatorChoice(calculator=given)
        return choice.changed(**options)

    def resolved(self, problem: Problem | System, *, ask_and_tell: bool) -> SearchSettings:
        """Return the settings with every default and every value that the problem determines filled in.

        Parameters
        ----------
        problem
            The problem to search.
        ask_and_tell
            Whether only the user evaluates structures.

        Raises
        ------
        InputError
            If the settings of relaxations have another pressure than the problem, the executor cannot be used, there
            are follow-up calculators with ask and tell, a DFT file lacks the pseudopotential of an element, or an
            objective cannot be built, has no goal, or fails for a test structure.
        """
        problems = [problem] if isinstance(problem, Problem) else list(map(problem.problem, problem.compositions))
        for_trial = max(problems, key=lambda one: len(one.composition))
        objectives = try_objectives(self.objectives, for_trial, self.limits, ask_and_tell=ask_and_tell)
        elements = sorted({element for one in problems for element in one.composition})
        magnetic = any(problem.initial_magmoms.values())
        for calculator in (self.choice, *self.then.calculators):
            check_elements(calculator, elements, magnetic=magnetic)
        pressure = self.relaxation.pressure_gpa
        if pressure not in (0.0, problem.pressure_gpa):
            allowed = (
                f"the pressure of the problem, {problem.pressure_gpa:g} GPa; set pressure_gpa of the problem instead"
            )
            raise InputError("relaxation.pressure_gpa", pressure, allowed)
        if ask_and_tell and self.then.calculators:
            reason = "there are no workers with ask and tell; relax the minima afterwards with hybridcsp refine"
            raise InputError("then", list(self.then.names), reason=reason)
        one_shot = self.one_shot
        if one_shot is None:
            one_shot = 1 if ask_and_tell else ONE_SHOT
        relaxation = replace(self.relaxation, pressure_gpa=problem.pressure_gpa, fixed_cell=problem.cell is not None)
        workers = self.workers
        if self.executor != LOCAL:
            build_executor(self.executor)
        elif workers is None:
            workers = available_cores()
        return replace(self, workers=workers, relaxation=relaxation, one_shot=one_shot, objectives=objectives)

    def check_condition(self, problem: Problem | System) -> None:
        """Check that some minimum can meet the condition; called when a search begins, and not when it is resumed.

        Raises
        ------
        InputError
            If the comparisons contradict each other, the problem or the limits of relaxations.
        """
        problems = [problem] if isinstance(problem, Problem) else [problem.problem(one) for one in problem.compositions]
        outside = self.calculator is None  # relaxations of the user have no limits
        limits = self.relaxation
        volumes = (0.0, math.inf) if outside else (limits.min_volume_per_atom, limits.max_volume_per_atom)
        bounds = {}
        for choice in self.objectives:
            lowest, highest = zip(*(choice.kind.bounds(one, volumes) for one in problems), strict=True)
            bounds[choice.name] = (min(lowest), max(highest))
        Condition(self.where).check(bounds)

    @property
    def goals(self) -> Goals:
        """The objectives and the condition by which resolved settings judge minima."""
        return Goals.of_settings(self._record_of_objectives())

    def _record_of_objectives(self) -> dict[str, Any]:
        """Return the plain JSON of the objectives and the condition; empty without any."""
        record: dict[str, Any] = {}
        if self.objectives:
            record["objectives"] = [choice.record(choice.build()) for choice in self.objectives]
        return record | ({"where": self.where} if self.where else {})

    def record(self, problem: Problem | System, weights: Mapping[str, str]) -> dict[str, Any]:
        """Return the plain JSON that the archive keeps of resolved settings; objects are recorded by their class.

        Parameters
        ----------
        problem
            The problem to search.
        weights
            Digests of the generators' weights, by source.
        """
        record = {
            "version": version("hybridcsp"),
            "problem": problem.describe(),
            "calculator": _recorded(self.choice.calculator if self.choice else None),
            "sources": [_recorded(source) for source in self.sources],
            "allocation": _recorded(self.allocation),
            "seed": self.seed,
            "workers": self.workers,
            "relaxation": asdict(self.relaxation),
            "limits": asdict(self.limits),
            "retraining": asdict(self.retraining),
            "external": {name: asdict(command) for name, command in self.external.items()},
            "one_shot": self.one_shot,
            "weights": dict(weights),
        }
        if self.executor != LOCAL:
            record["executor"] = self.executor
        if self.batch is not None:
            record["batch"] = self.batch
        if self.references:
            record["references"] = [str(Path(path).absolute()) for path in self.references]
        if self.keep_evaluations:
            record["keep_evaluations"] = True
        options = {"python": self.choice.python, **self.choice.options} if self.choice else {}
        record |= {option: value for option, value in options.items() if value is not None}
        record |= self._record_of_objectives()
        return record | ({"then": self.then.record()} if self.then.calculators else {})


def sort_keywords(
    keywords: Mapping[str, Any], others: Sequence[str], problem: type[Problem | System] = Problem
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the keywords of a search into fields of :class:`SearchSettings` and fields of its problem.

    ``None`` stands for the default of a setting, except for ``calculator``.

    Parameters
    ----------
    keywords
        Keywords that the caller gave.
    others
        Names of the further arguments, which an error lists as well.
    problem
        Class of the problem.

    Raises
    ------
    UnknownNameError
        If a keyword is a field of neither.
    """
    of_settings = {one.name for one in fields(SearchSettings)}
    of_problem = {one.name for one in fields(problem)} - {"formula", "elements"}
    for name in keywords:
        if name not in of_settings | of_problem:
            nested = [
                f"; pass {name} to {argument}"
                for kind, argument in _NESTED.items()
                if name in {one.name for one in fields(kind)}
            ]
            raise UnknownNameError("keyword", name, of_settings | of_problem | set(others), "".join(nested)[2:])
    settings = {
        name: value
        for name, value in keywords.items()
        if name in of_settings and (value is not None or name == "calculator")
    }
    return settings, {name: value for name, value in keywords.items() if name in of_problem}


def _recorded(value: object) -> str | dict[str, str] | None:
    """Return a name as it is, and the class or function that stands for an object."""
    if isinstance(value, str | None):
        return value
    kind = value if isinstance(value, type) else getattr(value, "__qualname__", None) or type(value)
    name = kind if isinstance(kind, str) else kind.__qualname__
    return {"python": f"{getattr(value, '__module__', type(value).__module__)}.{name}"}
