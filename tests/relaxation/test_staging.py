"""Relaxations in stages and by codes themselves, with calculators that cost nothing."""

import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import EVALUATE, REFINE, RELAX, Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.calculators.jobs import JobCalculator, OwnRelaxation, Stage, TimeUsedUpError
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings


class Counted(EMT):
    """EMT that counts the structures that it is given, and may raise an error in one of them."""

    def __init__(self, error=None):
        super().__init__()
        self.structures, self.error = set(), error

    @property
    def calls(self):
        return len(self.structures)

    def calculate(self, atoms, *arguments, **options):
        self.structures.add(atoms.positions.tobytes() + atoms.cell.tobytes())
        if self.error is not None:
            raise self.error
        super().calculate(atoms, *arguments, **options)


class Staged(Counted, JobCalculator):
    """Calculator that notes what it is told about jobs."""

    def __init__(self, earlier=(), own=None, error=None):
        super().__init__(error)
        self.earlier, self.own, self.told = earlier, own, []

    def work_in(self, folder):
        self.told.append(folder)

    def begin(self, job):
        self.told.append(job.level)

    def end(self, *, failed):
        self.told.append(failed)


class Own(OwnRelaxation):
    """Relaxation by ASE that stands for that of a code; it may stop early."""

    def __init__(self, steps=100, error=None):
        self.targets, self.steps, self.error = [], steps, error

    def relax(self, atoms, target):
        self.targets.append(target)
        if self.error is not None:
            raise self.error
        copied = atoms.copy()
        copied.calc = EMT()
        what = copied if target.fixed_cell else FrechetCellFilter(copied, scalar_pressure=target.pressure)
        optimizer = BFGS(what, logfile=None)
        optimizer.run(fmax=min(target.max_force, target.max_stress) / 10, steps=min(self.steps, target.steps))
        atoms.set_cell(copied.cell)
        atoms.positions[:] = copied.positions
        return optimizer.nsteps + 1


def relax(calculator, level=RELAX, settings=None, **limits):
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(1.05 * atoms.cell.array, scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="seed"), id=1, source="seeds")
    job = Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(**limits))
    return run_job(job, calculator, "emt", settings or RelaxationSettings())


def test_stages_before_the_last_save_force_calls_of_the_last():
    coarse, alone = Counted(), Staged()
    staged = Staged(earlier=[Stage(calculator=coarse, max_force=0.1)])
    outcome, expected = relax(staged), relax(alone)
    assert outcome.converged
    assert outcome.cost.force_calls == coarse.calls + staged.calls
    assert staged.calls < alone.calls == expected.cost.force_calls
    assert outcome.evaluation.energy == pytest.approx(expected.evaluation.energy, abs=0.01)
    assert staged.told == [RELAX, False]


def test_calculator_is_told_of_every_job_and_how_it_ended():
    calculator = Staged(earlier=[Stage(calculator=Counted())])
    relax(calculator, EVALUATE)
    assert (calculator.told, calculator.earlier[0].calculator.calls) == ([EVALUATE, False], 0)
    broken = Staged(error=ValueError("no"))
    assert isinstance(relax(broken), Failed)
    assert broken.told == [RELAX, True]


def test_refinement_begins_with_the_last_stage():
    calculator = Staged(earlier=[Stage(calculator=Counted())])
    assert relax(calculator, REFINE).converged
    assert calculator.earlier[0].calculator.calls == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeUsedUpError("late"), FailureReason.TIME_LIMIT),
        (RuntimeError("wrong"), FailureReason.CALCULATOR),
        (MemoryError(), FailureReason.MEMORY_LIMIT),
    ],
)
def test_error_in_any_stage_fails_the_candidate_only(error, reason):
    for calculator in (
        Staged(earlier=[Stage(calculator=Counted(error))]),
        Staged(earlier=[Stage(calculator=Counted(), own=Own(error=error))]),
        Staged(own=Own(error=error)),
        Staged(error=error),
    ):
        outcome = relax(calculator)
        assert isinstance(outcome, Failed)
        assert outcome.reason is reason
        assert str(error) in outcome.detail


@pytest.mark.parametrize("pressure", [0.0, 20.0])
def test_code_relaxes_to_the_pressure_of_the_search(pressure):
    own = Own()
    outcome = relax(Staged(own=own), settings=RelaxationSettings(pressure_gpa=pressure))
    assert outcome.converged
    assert own.targets[0].pressure == pytest.approx(pressure * GPa)
    assert outcome.atoms.get_stress()[:3] == pytest.approx([-pressure * GPa] * 3, abs=0.3 * GPa)
    assert outcome.detail == "relaxed by the code itself"


def test_code_relaxes_positions_only_in_a_fixed_cell():
    own = Own()
    outcome = relax(Staged(own=own), settings=RelaxationSettings(fixed_cell=True))
    assert outcome.converged
    assert own.targets[0].fixed_cell
    assert outcome.atoms.cell.volume == pytest.approx(1.05**3 * bulk("Cu", cubic=True).cell.volume)


def test_code_is_asked_again_until_a_single_point_agrees_but_not_forever():
    own = Own(steps=1)
    outcome = relax(Staged(own=own))
    assert isinstance(outcome, Relaxed)
    assert not outcome.converged
    assert len(own.targets) == 3


def test_steps_of_the_code_count_as_force_calls_and_keep_to_the_limit():
    own = Own()
    outcome = relax(Staged(own=own), force_calls=4)
    assert isinstance(outcome, Relaxed)
    assert own.targets[0].steps == 3
    assert outcome.cost.force_calls >= 4


def test_other_calculators_are_not_concerned():
    calculator = Counted()
    assert isinstance(calculator, Calculator)
    assert relax(calculator).converged
