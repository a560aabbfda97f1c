"""Jobs and their outcomes: levels, limits, and errors of structures and calculators."""

from __future__ import annotations

from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.db import connect
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import TypeAdapter, ValidationError

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.minimum_images import minimum_image_distances
from hybridcsp.relaxation.relax import Relaxer, run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.utils.activity import steps


class Scripted(Calculator):
    """EMT that does something else at one call."""

    implemented_properties = ("energy", "forces", "stress", "magmoms")

    def __init__(self, at=1, do=lambda results: None, without=()):
        super().__init__()
        self.calls = 0
        self._at, self._do, self._without = at, do, without
        self._emt = EMT()

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        names = [name for name in ("energy", "forces", "stress") if name not in self._without]
        self.results = {name: self._emt.get_property(name, atoms) for name in names}
        self.results["magmoms"] = np.full(len(atoms), 0.5)
        if self.calls == self._at:
            self._do(self.results)


def copper(scale=1.0, rattle=0.15):
    atoms = bulk("Cu", cubic=True, a=3.6 * scale)
    atoms.rattle(rattle, seed=3)
    return atoms


def job(atoms, level="relax", **limits):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=7, source="test")
    return Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(**limits))


def relax(atoms, calculator=None, level="relax", limits=None, **settings):
    calculator = EMT() if calculator is None else calculator
    return run_job(job(atoms, level, **(limits or {})), calculator, "a label", RelaxationSettings(**settings))


def unfiltered(atoms, pressure_gpa=0.0):
    """Largest force and stress residual (GPa) by a calculator that knows nothing of the relaxation."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    residual = atoms.get_stress(voigt=False) + np.eye(3) * pressure_gpa * units.GPa
    return np.linalg.norm(atoms.get_forces(), axis=1).max(), np.abs(residual).max() / units.GPa


@pytest.mark.parametrize("pressure", [0.0, 20.0])
def test_convergence_is_decided_by_unfiltered_forces_and_stress(pressure):
    outcome = relax(copper(), pressure_gpa=pressure)
    assert isinstance(outcome, Relaxed)
    assert outcome.converged
    force, stress = unfiltered(outcome.atoms, pressure)
    assert force <= 0.05
    assert stress <= 0.3
    assert outcome.evaluation.max_force == pytest.approx(force)
    assert outcome.evaluation.max_stress_residual == pytest.approx(stress * units.GPa)
    assert outcome.sequence == 0
    assert (outcome.level, outcome.evaluation.calculator) == ("relax", "a label")


def test_the_enthalpy_is_energy_plus_pressure_times_volume():
    outcome = relax(copper(), pressure_gpa=20.0)
    expected = outcome.evaluation.energy + 20.0 * units.GPa * outcome.atoms.get_volume()
    assert outcome.evaluation.enthalpy == pytest.approx(expected)
    assert outcome.evaluation.enthalpy - outcome.evaluation.energy > 1.0


def test_refinement_tightens_the_criteria():
    outcome = relax(copper(), level="refine", refine_max_force=0.005)
    force, stress = unfiltered(outcome.atoms)
    assert outcome.converged
    assert force <= 0.005
    assert stress <= 0.03
    assert outcome.level == "refine"


def test_a_refinement_is_never_looser_than_a_relaxation():
    outcome = relax(copper(), level="refine", max_force=0.02, refine_max_force=0.5)
    assert unfiltered(outcome.atoms)[0] <= 0.02


def test_an_evaluation_moves_nothing_and_counts_one_call():
    atoms = copper()
    outcome = relax(atoms, level="evaluate")
    assert outcome.cost.force_calls == 1
    assert outcome.converged
    np.testing.assert_array_equal(outcome.atoms.positions, atoms.positions)
    assert outcome.evaluation.max_force == pytest.approx(unfiltered(atoms)[0])


def test_unknown_level_is_refused():
    with pytest.raises(InputError, match="refine"):
        relax(copper(), level="relaxed")


def test_a_fixed_cell_keeps_the_cell_and_still_reports_the_stress():
    atoms = copper(scale=1.05)
    outcome = relax(atoms, fixed_cell=True)
    assert outcome.converged
    np.testing.assert_array_equal(outcome.atoms.cell.array, atoms.cell.array)
    force, stress = unfiltered(outcome.atoms)
    assert force <= 0.05
    assert stress > 1.0
    assert outcome.evaluation.max_stress_residual == pytest.approx(stress * units.GPa)


def test_relaxation_reports_its_progress():
    told = []
    with steps(lambda calls, enthalpy: told.append((calls, enthalpy))):
        outcome = relax(copper(), pressure_gpa=20.0)
    assert [calls for calls, _ in told] == list(range(1, outcome.cost.force_calls + 1))
    assert told[-1][1] == pytest.approx(outcome.enthalpy_per_atom)


def test_force_calls_are_counted_as_the_calculator_made_them():
    calculator = Scripted()
    outcome = relax(copper(), calculator)
    assert outcome.cost.force_calls == calculator.calls > 3
    assert outcome.cost.seconds > 0


def test_arrays_of_atoms_survive_and_the_job_is_not_changed(tmp_path):
    atoms = copper()
    atoms.set_initial_magnetic_moments([1.0, -1.0, 2.0, 0.0])
    atoms.set_initial_charges([0.5, -0.5, 0.0, 0.0])
    atoms.set_tags([1, 2, 3, 4])
    atoms.info["note"] = "kept"
    before = atoms.copy()
    outcome = relax(atoms, Scripted())
    for name in ("initial_magmoms", "initial_charges", "tags"):
        np.testing.assert_array_equal(outcome.atoms.get_array(name), before.get_array(name))
    assert outcome.atoms.info == {"note": "kept"}
    assert atoms == before
    assert atoms.calc is None
    with connect(tmp_path / "test.db") as database:
        database.write(outcome.atoms)
    row = connect(tmp_path / "test.db").get(1)
    assert row.energy == outcome.evaluation.energy
    np.testing.assert_allclose(row.stress, outcome.atoms.get_stress())
    np.testing.assert_allclose(row.magmoms, 0.5)
    np.testing.assert_allclose(outcome.evaluation.magmoms, 0.5)


def test_reaching_the_cap_on_force_calls_returns_the_last_structure_evaluated():
    calculator = Scripted()
    outcome = relax(copper(), calculator, limits={"force_calls": 3})
    assert isinstance(outcome, Relaxed)
    assert not outcome.converged
    assert outcome.detail == "force-call limit"
    assert outcome.cost.force_calls == calculator.calls == 3
    assert outcome.evaluation.max_force == pytest.approx(unfiltered(outcome.atoms)[0])


def test_the_time_limit_ends_a_job_between_two_force_calls():
    outcome = relax(copper(), limits={"seconds": 0.0})
    assert isinstance(outcome, Failed)
    assert outcome.reason is FailureReason.TIME_LIMIT


def _raise(error):
    def do(results):
        raise error

    return do


def _spoil(name, value):
    def do(results):
        results[name] = results[name] * value if isinstance(value, float) else value

    return do


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(
    ("do", "reason", "words"),
    [
        (_raise(RuntimeError("SCF did not converge")), FailureReason.CALCULATOR, "RuntimeError: SCF did not converge"),
        (_raise(KeyError("Xx")), FailureReason.CALCULATOR, "KeyError"),
        (_raise(IsolatedAtomsError("1 of 4 atoms")), FailureReason.ISOLATED_ATOMS, "1 of 4"),
        (_raise(MemoryError()), FailureReason.MEMORY_LIMIT, "MemoryError"),
        (_spoil("energy", float("nan")), FailureReason.NON_FINITE, "energy"),
        (_spoil("forces", float("inf")), FailureReason.NON_FINITE, "forces"),
        (_spoil("stress", float("nan")), FailureReason.NON_FINITE, "stress"),
    ],
)
def test_a_calculator_that_fails_makes_a_failed_outcome(at, do, reason, words):
    outcome = relax(copper(), Scripted(at, do))
    assert isinstance(outcome, Failed)
    assert outcome.reason is reason
    assert words in outcome.detail
    assert outcome.cost.force_calls == at
    assert outcome.atoms is not None
    assert outcome.atoms.calc is None
    assert (outcome.candidate.id, outcome.level) == (7, "relax")


def _put(**values):
    return lambda results: results.update(values)


FOUR = np.zeros((4, 3))


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(
    ("do", "words"),
    [
        (_put(energy=None), "energy is None, expected numbers"),
        (_put(energy=np.zeros(2)), "energy has shape (2,), expected one number"),
        (_put(energy="-1.0"), "energy is of type <U4, expected real numbers"),
        (_put(energy=True), "energy is of type bool"),
        (_put(energy=-1 + 0j), "energy is complex numbers"),
        (_put(free_energy=1j, energy=-1.0), None),
        (_put(forces=np.zeros(12)), "forces have shape (12,), expected (4, 3)"),
        (_put(forces=np.zeros((3, 3))), "forces have shape (3, 3), expected (4, 3)"),
        (_put(forces=[[0.0, 0.0, 0.0]] * 3 + [[0.0]]), "forces cannot be read as numbers"),
        (_put(forces=FOUR + 1e-30j), "forces are complex numbers"),
        (_put(forces=FOUR.astype(object)), "forces are of type object"),
        (_put(forces=FOUR.astype(str)), "forces are of type <U32"),
        (_put(forces=np.ma.masked_array(FOUR, FOUR == 0)), "forces have masked values"),
        (_put(stress=np.zeros(9)), "stress has shape (9,), expected (6,) or (3, 3)"),
        (_put(stress=np.zeros(6, dtype=complex)), "stress is complex numbers"),
        (_put(magmoms=np.zeros(3)), "magmoms have shape (3,), expected (4,)"),
        (_put(charges=np.zeros((4, 1))), "charges have shape (4, 1), expected (4,)"),
    ],
)
def test_results_of_wrong_form_are_refused_by_name(at, do, words):
    outcome = relax(copper(), Scripted(at, do))
    if words is None:  # a quantity that the calculator does not claim to have is not asked for
        assert isinstance(outcome, Relaxed)
        return
    assert isinstance(outcome, Failed)
    assert outcome.reason is FailureReason.WRONG_RESULTS
    assert words in outcome.detail
    assert outcome.cost.force_calls == at


@pytest.mark.parametrize(("value", "which"), [(np.nan, "4 of 4"), ([0, np.inf, 0, 0], "1 of 4")])
def test_moments_that_are_not_finite_are_refused(value, which):
    outcome = relax(copper(), Scripted(2, _put(magmoms=np.full(4, value))))
    assert outcome.reason is FailureReason.NON_FINITE
    assert outcome.detail == f"magmoms are not finite in {which} components"


def test_results_in_other_containers_are_the_same_results():
    def repack(results):
        results.update(
            energy=np.array([[results["energy"]]]),
            forces=results["forces"].tolist(),
            stress=results["stress"][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3),
        )

    class Repacking(Scripted):
        def calculate(self, *arguments, **keywords):
            self._at = self.calls + 1
            super().calculate(*arguments, **keywords)

    plain, repacked = relax(copper(), Scripted()), relax(copper(), Repacking(do=repack))
    assert repacked.evaluation.energy == plain.evaluation.energy
    assert repacked.atoms == plain.atoms


def _resize(atoms):
    del atoms[0]


def _replace(atoms):
    atoms.symbols[1] = "Au"


def _permute(atoms):
    atoms.numbers[:] = atoms.numbers[::-1]


def _move(atoms):
    atoms.positions[2] += 0.01


def _strain(atoms):
    atoms.set_cell(atoms.cell * 1.001)


def _break_periodicity(atoms):
    atoms.pbc = (True, True, False)


def _turn_not_finite(atoms):
    atoms.positions[0, 0] = np.nan


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_resize, "3 atoms now instead of 4"),
        (_replace, "its atoms are"),
        (_permute, "its atoms are"),
        (_move, "its atoms were moved by 0.01 Å"),
        (_strain, "its cell was changed by 0.003"),
        (_break_periodicity, "periodic directions are different"),
        (_turn_not_finite, "its atoms were moved by nan Å"),
    ],
)
def test_a_calculator_that_changes_the_structure_is_a_failure(at, change, words):
    class Meddling(Scripted):
        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            if self.calls == at:
                change(atoms)

    atoms = copper()
    atoms.symbols[0] = "Ag"
    outcome = relax(atoms, Meddling())
    assert isinstance(outcome, Failed)
    assert outcome.reason is FailureReason.WRONG_RESULTS
    assert words in outcome.detail
    assert outcome.atoms.symbols.get_chemical_formula() == "AgCu3"


def test_wrapping_and_rounding_of_positions_is_allowed():
    class Wrapping(EMT):
        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            atoms.positions = np.round(atoms.positions, 5) + atoms.cell[0]

    outcome = relax(copper(), Wrapping())
    assert outcome.converged
    assert outcome.atoms == relax(copper()).atoms


def test_an_element_that_a_calculator_does_not_know_is_a_failed_outcome():
    assert relax(bulk("W")).reason is FailureReason.CALCULATOR


def test_a_calculator_without_stress_can_relax_positions_only():
    outcome = relax(copper(), Scripted(without=("stress",)))
    assert outcome.reason is FailureReason.CALCULATOR
    assert outcome.detail.startswith("Scripted returned no stress, which the relaxation of a cell needs")
    outcome = relax(copper(), Scripted(without=("stress",)), fixed_cell=True)
    assert outcome.converged
    assert outcome.evaluation.max_stress_residual is None


def test_an_evaluation_needs_only_an_energy():
    outcome = relax(copper(), Scripted(without=("stress", "forces")), level="evaluate")
    assert isinstance(outcome, Relaxed)
    assert outcome.evaluation.max_force is None


def test_force_explosion_is_relative_to_the_start():
    outcome = relax(copper(), Scripted(3, _spoil("forces", 1e6)))
    assert outcome.reason is FailureReason.FORCE_EXPLOSION
    assert isinstance(relax(copper(), Scripted(1, _spoil("forces", 1e6)), limits={"force_calls": 2}), Relaxed)


def test_expanding_cell_is_given_up():
    repulsive = LennardJones(epsilon=0.5, sigma=6.0, rc=12.0, smooth=True)
    outcome = relax(bulk("Cu", cubic=True, a=5.0), repulsive, max_volume_factor=1.5)
    assert outcome.reason is FailureReason.VOLUME
    assert "times the volume" in outcome.detail


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms("Cu2", positions=[[0, 0, 0], [0.3, 0, 0]], cell=[5, 5, 5], pbc=True), FailureReason.OVERLAP),
        (Atoms("Cu", cell=[0.6, 6, 6], pbc=True), FailureReason.OVERLAP),
        (Atoms("Cu", cell=[8.5, 5, 6], pbc=True), None),
        (Atoms("Cu2", positions=[[0, 0, 0], [9, 0, 0]], cell=[18, 9, 9], pbc=True), FailureReason.VOLUME),
        (Atoms("CuAg", positions=[[0, 0, 0], [9, 0, 0]], cell=[18, 2.5, 9], pbc=True), None),
        (Atoms("Cu2", positions=[[0, 0, 0], [9, 0, 0]], cell=[18, 9, 9], pbc=True), FailureReason.ISOLATED_ATOMS),
        (Atoms("Cu", cell=[1, 1, 0.1], pbc=True), FailureReason.VOLUME),
        (Atoms("Cu", cell=[0, 0, 0], pbc=True), FailureReason.VOLUME),
        (Atoms("Cu", positions=[[np.nan, 0, 0]], cell=[3, 3, 3], pbc=True), FailureReason.NON_FINITE),
    ],
)
def test_invalid_structures_are_given_up_before_a_calculation(atoms, reason):
    calculator = Scripted()
    room = 2000.0 if reason is FailureReason.ISOLATED_ATOMS else 300.0
    outcome = relax(atoms, calculator, level="evaluate", max_volume_per_atom=room)
    assert getattr(outcome, "reason", None) is reason
    assert calculator.calls == (1 if reason is None else 0)


def test_sheared_cell_has_no_isolated_atoms():
    # the nearest neighbour, at 4.1 Å, is the third vector minus three times the first: no neighbouring image
    atoms = Atoms("Cu", cell=[[7, 0, 0], [0, 7, 0], [22, 0, 4]], pbc=True)
    assert minimum_image_distances(atoms.cell.array, atoms.positions).min() == pytest.approx(7)
    outcome = relax(atoms, level="evaluate", isolation_fraction=1.1)
    assert isinstance(outcome, Relaxed)


@given(
    cell=arrays(float, (3, 3), elements=st.floats(-0.4, 0.4)),
    positions=arrays(float, (4, 3), elements=st.floats(-9, 9)),
)
@settings(deadline=None, max_examples=60)
def test_minimum_image_distances_agree_with_ase(cell, positions):
    from ase.neighborlist import neighbor_list

    atoms = Atoms("H4", positions=positions, cell=(cell + np.eye(3)) * 5.0, pbc=True)
    reach = 1.5 * min(abs(np.linalg.det(atoms.cell)) / np.linalg.norm(np.cross(a, b)) for a, b in _pairs(atoms.cell))
    expected = np.full((4, 4), np.inf)
    first, second, distance = neighbor_list("ijd", atoms, reach)
    np.minimum.at(expected, (first, second), distance)
    found = minimum_image_distances(atoms.cell.array, atoms.positions)
    np.testing.assert_allclose(np.minimum(found, reach), np.minimum(expected, reach), atol=1e-6)


def _pairs(cell):
    return (cell[0], cell[1]), (cell[1], cell[2]), (cell[2], cell[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pressure_gpa", float("nan")),
        ("max_force", 0.0),
        ("max_stress_gpa", -1.0),
        ("max_volume_factor", 0.5),
        ("min_volume_per_atom", 1e6),
        ("min_distance_fraction", 1.5),
        ("isolation_fraction", 0.5),
        ("force_explosion", float("inf")),
    ],
)
def test_invalid_settings_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        RelaxationSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("force_calls", 0), ("seconds", -1.0), ("seconds", float("nan")), ("memory", 0)]
)
def test_invalid_limits_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} = "):
        Limits(**{name: value})


def test_settings_can_be_nested_in_pydantic_and_refuse_unknown_keys():
    adapter = TypeAdapter(RelaxationSettings)
    assert adapter.validate_python({"pressure_gpa": 5}).pressure == pytest.approx(5 * units.GPa)
    with pytest.raises(ValidationError, match="presure"):
        adapter.validate_python({"presure_gpa": 5})


def test_relaxer_is_pickled_and_builds_its_calculator_once():
    built = []

    def make():
        built.append(1)
        return EMT()

    relaxer = Relaxer(calculator=make, settings=RelaxationSettings(pressure_gpa=1.0))
    run = relaxer()
    first, second = run(job(copper())), run(job(copper()))
    assert len(built) == 1
    assert first.evaluation.energy == second.evaluation.energy
    assert first.evaluation.calculator.startswith("EMT (ase ")
    travelled = cloudpickle.loads(cloudpickle.dumps(relaxer))()
    assert travelled(job(copper())).evaluation.energy == first.evaluation.energy


def test_relaxer_reports_a_calculator_that_cannot_be_built():
    with pytest.raises(CalculatorError):
        Relaxer(calculator="mace:nothing_here.model")()


def test_a_follow_up_uses_the_calculator_of_its_number():
    runner = Relaxer(calculator="emt", follow_ups=("lj",))()
    assert [label.split()[0] for label in runner.labels] == ["emt", "lj"]
    ended = [runner(replace(job(copper(), "follow-up"), calculator=number)) for number in (0, 1)]
    assert [outcome.evaluation.calculator for outcome in ended] == list(runner.labels)
    assert ended[0].evaluation.energy != ended[1].evaluation.energy


def test_a_follow_up_converges_between_relaxation_and_refinement():
    settings = RelaxationSettings()
    forces, stresses = zip(*(settings.tolerances(level) for level in ("relax", "follow-up", "refine")), strict=True)
    assert forces == (0.05, pytest.approx(0.0224, abs=1e-4), pytest.approx(0.01))
    assert stresses[1] == pytest.approx((stresses[0] * stresses[2]) ** 0.5)
    outcome = run_job(job(copper(), "follow-up"), EMT(), "emt", settings)
    assert outcome.converged
    assert outcome.evaluation.max_force <= forces[1]


def test_a_follow_up_that_starts_too_high_is_given_up_after_one_force_call():
    atoms = copper()
    atoms.calc = EMT()
    energy = atoms.get_potential_energy() / len(atoms)
    low, high = (
        run_job(replace(job(atoms, "follow-up"), give_up_above=energy + above), EMT(), "emt", RelaxationSettings())
        for above in (-0.01, 0.01)
    )
    assert isinstance(low, Relaxed)
    assert (low.converged, low.cost.force_calls) == (False, 1)
    assert low.enthalpy_per_atom == pytest.approx(energy)
    assert "not relaxed" in low.detail
    assert high.converged
