"""Jobs that are relaxed at the same time have the outcomes that they have alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from batch_emt import BatchEMT

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.relaxation.batch import BatchedRelaxer
from hybridcsp.relaxation.batch_evaluation import BatchEvaluator
from hybridcsp.relaxation.batch_size import batch_size, check_batch_calculator, read_batch
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings


def job(atoms, number, level="relax", calculator=0, **limits):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test", tag={"mode": 1}), id=number, source="test")
    return Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(**limits), calculator=calculator)


def together(relaxer, jobs, at_once=100):
    """Relax jobs of which at most so many run at the same time; return the outcomes in order, and the batch."""
    batch, waiting, outcomes = BatchedRelaxer(relaxer=relaxer)(), list(enumerate(jobs)), {}
    while waiting or len(batch):
        while waiting and len(batch) < at_once:
            batch.add(*waiting.pop(0))
        for number, outcome, sound in batch.advance():
            outcomes[number] = outcome
            assert sound
    return [outcomes[number] for number in range(len(jobs))]


def facts(outcome):
    """Everything about an outcome but its seconds."""
    cost = outcome.cost.force_calls
    if isinstance(outcome, Failed):
        return "failed", outcome.reason, outcome.detail, cost
    evaluation = outcome.evaluation
    geometry = outcome.atoms.positions.tolist(), outcome.atoms.cell.tolist()
    return "relaxed", evaluation.energy, evaluation.enthalpy, outcome.converged, outcome.detail, geometry, cost


def copper(seed, a=3.6, rattle=0.1):
    atoms = bulk("Cu", a=a) * (2, 1, 1)
    atoms.rattle(rattle, seed=seed)
    return atoms


@pytest.fixture
def starts():
    """Sound structures, symmetric ones, and one that fails for each of several reasons."""
    symmetric = bulk("Cu", "bcc", a=3.2, cubic=True)
    overlapping = Atoms("Cu2", positions=[[0, 0, 0], [0.2, 0, 0]], cell=[4, 4, 4], pbc=True)
    unknown = bulk("Fe", cubic=True)
    sparse = Atoms("Cu2", positions=[[0, 0, 0], [2.5, 0, 0]], cell=[9, 9, 9], pbc=True)
    return [copper(1), symmetric, overlapping, unknown, sparse, copper(2, a=3.8)]


@pytest.mark.parametrize(("pressure_gpa", "at_once"), [(0.0, 2), (50.0, 100)])
def test_outcomes_are_those_of_jobs_that_are_relaxed_alone(starts, pressure_gpa, at_once):
    relaxer = Relaxer(calculator=BatchEMT, settings=RelaxationSettings(pressure_gpa=pressure_gpa))
    jobs = [job(atoms, number) for number, atoms in enumerate(starts)]
    alone = relaxer()
    expected = [facts(alone(one)) for one in jobs]
    assert {kind for kind, *_ in expected} == {"relaxed", "failed"}
    assert [facts(outcome) for outcome in together(relaxer, jobs, at_once)] == expected


def test_every_level_has_the_outcome_that_it_has_alone():
    relaxer = Relaxer(calculator=BatchEMT, follow_ups=(EMT,))
    jobs = [job(copper(n), n, level) for n, level in enumerate(("evaluate", "refine", "soft"))]
    jobs.append(job(copper(9), 9, "follow-up", calculator=1))  # EMT of ASE is no batch calculator
    alone = relaxer()
    assert [facts(outcome) for outcome in together(relaxer, jobs)] == [facts(alone(one)) for one in jobs]


def test_structures_are_evaluated_in_one_call():
    batch = BatchedRelaxer(relaxer=Relaxer(calculator=(calculator := BatchEMT())))()
    for number in range(5):
        batch.add(number, job(copper(number), number))
    for _ in range(3):
        assert batch.advance() == []
    assert calculator.sizes == [5, 5, 5]
    assert set(batch.steps()) == set(range(5))
    assert all(calls == 2 for calls, _ in batch.steps().values())  # the third has not been looked at


def test_seconds_of_jobs_are_shares_of_the_time():
    relaxer = Relaxer(calculator=BatchEMT)
    start = time.perf_counter()
    outcomes = together(relaxer, [job(copper(number), number) for number in range(8)])
    assert 0 < sum(outcome.cost.seconds for outcome in outcomes) < time.perf_counter() - start


def test_the_time_limit_is_that_of_each_job():
    first, second = together(Relaxer(calculator=BatchEMT), [job(copper(1), 1, seconds=0.0), job(copper(2), 2)])
    assert isinstance(first, Failed)
    assert first.reason is FailureReason.TIME_LIMIT
    assert isinstance(second, Relaxed)


class Poisoned(BatchEMT):
    """Batch calculator for which structures with a certain number of atoms are poison."""

    def __init__(self, poison):
        super().__init__()
        self._poison = poison

    def calculate_batch(self, structures):
        if any(len(atoms) == 1 for atoms in structures):
            self._poison()
        return super().calculate_batch(structures)


def _raise_memory_error():
    raise MemoryError("1 GiB")


@pytest.mark.parametrize(
    ("poison", "reason"),
    [(lambda: 1 / 0, FailureReason.CALCULATOR), (_raise_memory_error, FailureReason.MEMORY_LIMIT)],
)
def test_what_breaks_a_batch_fails_alone(poison, reason):
    jobs = [job(copper(1), 0), job(bulk("Cu"), 1), job(copper(2), 2)]
    outcomes = together(Relaxer(calculator=lambda: Poisoned(poison)), jobs)
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].reason is reason
    alone = Relaxer(calculator=BatchEMT)()
    assert [facts(outcomes[i]) for i in (0, 2)] == [facts(alone(jobs[i])) for i in (0, 2)]


def test_numbers_that_are_not_finite_fail_alone():
    class Infinite(BatchEMT):
        def results_of(self, atoms):
            results = super().results_of(atoms)
            return results | {"energy": np.nan} if len(atoms) == 1 else results

    broken, sound = together(Relaxer(calculator=Infinite), [job(bulk("Cu"), 0), job(copper(1), 1)])
    assert isinstance(broken, Failed)
    assert broken.reason is FailureReason.NON_FINITE
    assert isinstance(sound, Relaxed)


def test_batches_are_halved_when_memory_is_used_up_and_stay_small():
    class Small(BatchEMT):
        def calculate_batch(self, structures):
            if len(structures) > 2:
                _raise_memory_error()
            return super().calculate_batch(structures)

    calculator = Small()
    evaluator = BatchEvaluator(calculator)
    structures = [copper(number) for number in range(7)]
    results = evaluator.evaluate(structures)
    assert [result["energy"] for result in results] == [EMT().get_property("energy", atoms) for atoms in structures]
    assert evaluator.max_atoms <= 6
    calculator.sizes.clear()
    evaluator.evaluate(structures)
    assert sum(calculator.sizes) == 7
    assert max(calculator.sizes) <= 2


def test_number_of_atoms_at_once_is_limited():
    calculator = BatchEMT()
    calculator.max_atoms_at_once = 5
    BatchEvaluator(calculator).evaluate([copper(1), copper(2), copper(3), bulk("Cu"), bulk("Cu") * (3, 2, 2)])
    assert calculator.sizes == [2, 2, 1]


def test_values_of_objectives_are_those_of_jobs_that_are_relaxed_alone():
    relaxer = Relaxer(calculator=BatchEMT, objectives=(ObjectiveChoice.of("density:max"),))
    jobs = [job(copper(number), number) for number in range(3)]
    alone = relaxer()
    found = [outcome.objectives for outcome in together(relaxer, jobs)]
    assert found == [alone(one).objectives for one in jobs]
    assert all(values.keys() == {"density"} for values in found)


def test_evaluations_are_kept_as_those_of_jobs_that_are_relaxed_alone(tmp_path):
    jobs = [job(copper(number), number) for number in (1, 2)]
    alone = Relaxer(calculator=BatchEMT, evaluations=tmp_path / "alone")()
    for one in jobs:
        alone(one)
    together(Relaxer(calculator=BatchEMT, evaluations=tmp_path / "together"), jobs)
    expected = {file.name: file.read_text() for file in (tmp_path / "alone").iterdir()}
    assert len(expected) == 2
    assert {file.name: file.read_text() for file in (tmp_path / "together").iterdir()} == expected


def test_calculators_without_batches_are_refused():
    with pytest.raises(CalculatorError, match="EMT cannot evaluate several structures at once; leave batch out"):
        BatchedRelaxer(relaxer=Relaxer(calculator=EMT))()


@pytest.mark.parametrize("calculator", ["emt", "sevennet", EMT(), CalculatorChoice(calculator="lj")])
def test_calculators_that_are_known_to_have_no_batches_are_refused_before_they_are_built(calculator):
    with pytest.raises(InputError, match=r"batch = 8 .*evaluates one structure after the other; leave batch out"):
        check_batch_calculator(8, calculator)
    check_batch_calculator(1, calculator)


@pytest.mark.parametrize("calculator", ["chgnet", "mace:some.model", BatchEMT(), BatchEMT, "batch_emt:BatchEMT"])
def test_calculators_that_may_have_batches_are_accepted(calculator):
    check_batch_calculator("auto", calculator)


@pytest.mark.parametrize(("given", "read"), [("auto", "auto"), ("8", 8), (1, 1)])
def test_numbers_of_structures_are_read(given, read):
    assert read_batch(given) == read


@pytest.mark.parametrize("given", [0, -1, "many", "1.5", 2.0, True, None, ""])
def test_other_numbers_of_structures_are_refused(given):
    with pytest.raises(InputError, match='it must be a whole number from 1, or "auto"'):
        read_batch(given)


def test_the_automatic_number_of_structures_depends_on_the_device():
    on_gpu = batch_size("auto", CalculatorChoice(calculator="chgnet", device="cuda"))
    assert on_gpu > batch_size("auto", CalculatorChoice(calculator="chgnet")) > 1
    assert batch_size(3, CalculatorChoice(calculator="chgnet", device="cuda")) == 3


@pytest.fixture(scope="module")
def chgnet():
    return build_calculator("chgnet")[0]


def oxides():
    """Crystals without symmetry, of several sizes, of which one has no short bonds."""
    crystals = [
        bulk("NiO", "rocksalt", a=4.2),
        bulk("NiO", "rocksalt", a=4.4, cubic=True),
        bulk("CsCl", "cesiumchloride", a=4.1),
        bulk("Ar", "fcc", a=5.4),
        bulk("Si", "diamond", a=5.4),
    ]
    for number, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=number)
    return crystals


class TestCHGNet:
    def test_evaluates_crystals_together_as_it_does_alone(self, chgnet):
        crystals = oxides()
        for atoms, results in zip(crystals, chgnet.calculate_batch(crystals), strict=True):
            for name, tolerance in (("energy", 1e-5), ("forces", 1e-5), ("stress", 1e-6), ("magmoms", 1e-5)):
                np.testing.assert_allclose(results[name], chgnet.get_property(name, atoms), rtol=1e-5, atol=tolerance)

    def test_reports_isolated_atoms_of_the_crystals_that_have_some(self, chgnet):
        isolated = Atoms("Cu", cell=[20, 20, 20], pbc=True)
        first, second, third = chgnet.calculate_batch([isolated, bulk("Cu"), isolated])
        assert isinstance(first, IsolatedAtomsError)
        assert isinstance(third, IsolatedAtomsError)
        assert second["energy"] == chgnet.get_property("energy", bulk("Cu"))
        (alone,) = chgnet.calculate_batch([isolated])
        assert isinstance(alone, IsolatedAtomsError)

    @pytest.mark.slow
    def test_relaxes_to_the_same_minima_at_50_gpa(self):
        relaxer = Relaxer(calculator="chgnet", settings=RelaxationSettings(pressure_gpa=50))
        starts = [bulk("MgO", "rocksalt", a=4.3), bulk("MgO", "cesiumchloride", a=2.8), bulk("Si", "diamond", a=5.4)]
        for number, atoms in enumerate(starts):
            atoms.rattle(0.05, seed=number)
        jobs = [job(atoms, number) for number, atoms in enumerate(starts)]
        alone = relaxer()
        for one, outcome in zip(jobs, together(relaxer, jobs), strict=True):
            expected = alone(one)
            assert outcome.converged
            assert outcome.enthalpy_per_atom == pytest.approx(expected.enthalpy_per_atom, abs=1e-3)
            assert outcome.atoms.get_volume() == pytest.approx(expected.atoms.get_volume(), rel=0.01)
