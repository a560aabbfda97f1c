"""Tests of committees of MACE networks: training, files, calculator."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from evaluated_crystals import SHORT, TINY, crystals

from hybridcsp.errors import CalculatorError, InputError, UnknownNameError
from hybridcsp.potentials.architecture import MaceSizes, batch_of, build_network, graph_of, sizes_named
from hybridcsp.potentials.assessment import Assessment, Prediction
from hybridcsp.potentials.calculator import CommitteeCalculator, UncertainError
from hybridcsp.potentials.committee import Committee, split
from hybridcsp.potentials.training import LossWeights, PotentialLoss
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator, parameters_ahead

pytest.importorskip("mace")


@pytest.fixture(scope="module")
def data():
    return crystals()


@pytest.fixture(scope="module")
def committee(data):
    trained = Committee(TINY)
    trained.fit(data, members=2, training=SHORT)
    return trained


@pytest.fixture(scope="module")
def folder(committee, tmp_path_factory):
    path = tmp_path_factory.mktemp("potential") / "mine"
    committee.save(path)
    return path


def same(one, other, data):
    return all(
        np.array_equal(one.predict(atoms).forces, other.predict(atoms).forces)
        and np.array_equal(one.predict(atoms).energies, other.predict(atoms).energies)
        for atoms in data.frames[:3]
    )


def test_training_lowers_the_loss(data):
    found = Committee(TINY)
    (history,) = found.fit(data, members=1, training=SHORT)
    assert min(epoch["held_out"] for epoch in history) < 0.9 * history[0]["held_out"]
    assert found.assessment.calibration is None  # a single member has no spread


def test_interrupted_training_ends_like_one_without_interruption(data, committee, tmp_path):
    class Interrupt(Exception):
        pass

    def stop(epoch):
        if epoch.part == "member 2" and epoch.number == 2:
            raise Interrupt

    with pytest.raises(Interrupt):
        Committee(TINY).fit(data, members=2, training=SHORT, checkpoint=tmp_path / "state.safetensors", on_epoch=stop)
    resumed = Committee(TINY)
    resumed.fit(data, members=2, training=SHORT, checkpoint=tmp_path / "state.safetensors")
    assert same(resumed, committee, data)


def test_members_differ_and_another_seed_gives_another_committee(data, committee):
    found = committee.predict(data.frames[0])
    assert found.energies[0] != found.energies[1]
    other = Committee(TINY)
    other.fit(data, members=2, seed=1, training=SHORT)
    assert not same(other, committee, data)


def test_saved_committee_is_loaded_exactly(committee, folder, data):
    loaded = Committee.load(folder)
    assert same(loaded, committee, data)
    assert loaded.calibration == committee.calibration
    assert not list(folder.glob("*.pt"))


def test_held_out_trajectories_are_not_learned_from(data):
    learned, held_out = split(data)
    names = data.trajectories
    assert held_out
    assert {names[i] for i in learned}.isdisjoint({names[i] for i in held_out})


def test_too_few_trajectories_are_refused(data):
    with pytest.raises(InputError, match="4 are needed"):
        Committee(TINY).fit(data.take(range(8)), training=SHORT)


@pytest.mark.parametrize("values", [{"channels": 0}, {"cutoff": 50.0}, {"order": 1.5}])
def test_impossible_sizes_are_refused(values):
    with pytest.raises(InputError, match="must be a"):
        MaceSizes(**values)
    with pytest.raises(UnknownNameError, match="medium"):
        sizes_named("mediun")


def test_loss_of_one_crystal_is_that_of_mace(committee, data):
    from mace.modules.loss import WeightedEnergyForcesStressLoss
    from mace.tools import torch_geometric

    graph = graph_of(data.frames[0], TINY, committee.numbers)
    network = build_network(TINY, committee.normalisation, seed=3)
    loss = PotentialLoss(network, LossWeights(energy=3.0, forces=5.0, stress=7.0))
    ours = sum(float(term.detach().sum()) for term in loss(batch_of([graph], labels=True)).values())
    reference = torch_geometric.Batch.from_data_list([graph])
    predicted = network(reference.to_dict(), training=True, compute_stress=True)
    theirs = WeightedEnergyForcesStressLoss(3.0, 5.0, 7.0)(reference, predicted)
    assert ours == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_results_are_means_of_members_and_derivatives_of_the_energy(committee, data):
    atoms = data.frames[0].copy()
    atoms.calc = CommitteeCalculator(committee)
    members = committee.predict(atoms)
    assert atoms.get_potential_energy() == pytest.approx(members.energies.mean())
    assert np.allclose(atoms.get_forces(), members.forces.mean(axis=0))
    assert np.allclose(atoms.get_stress(), members.stresses.mean(axis=0))
    assert atoms.calc.results["energy_spread"] == pytest.approx(members.energies.std(ddof=1))
    assert atoms.calc.results["forces_spread"].shape == (4,)
    assert np.allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-5)
    assert np.allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-5)


def test_member_equals_the_calculator_of_mace(committee, data):
    from mace.calculators import MACECalculator

    single = MACECalculator(
        models=[committee._members[0].precise], device="cpu", default_dtype="float64", enable_cueq=False
    )
    atoms = data.frames[1].copy()
    atoms.calc = single
    ours = committee.predict(atoms)
    assert atoms.get_potential_energy() == pytest.approx(ours.energies[0], abs=1e-9)
    assert np.allclose(atoms.get_forces(), ours.forces[0], atol=1e-9)
    assert np.allclose(atoms.get_stress(), ours.stresses[0], atol=1e-9)


def test_uncertain_structures_end_a_relaxation_only_above_the_limit(committee, data):
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)  # forces vanish by symmetry, their calibrated uncertainty does not
    with pytest.raises(UncertainError, match=r"is above 1e-06 eV/Å"):
        CommitteeCalculator(committee, 1e-6).get_potential_energy(atoms)
    assert np.isfinite(CommitteeCalculator(committee, 1e6).get_potential_energy(atoms))


def test_label_has_the_hash_of_the_weights(folder, data):
    calculator, label = build_calculator(f"committee:{folder}")
    limited, same_label = build_calculator(f"committee:{folder}:0.5")
    assert label == same_label
    digest = parameters_ahead(f"committee:{folder}")["weights"]
    assert label.startswith("committee mine (mace-torch ") and f"weights={digest})" in label
    atoms = data.frames[0]
    assert calculator.get_potential_energy(atoms.copy()) == limited.get_potential_energy(atoms.copy())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("committee", "needs a folder"),
        ("committee:nowhere", r"card.json is missing"),
        ("committee:{folder}:-1", "positive number of eV/Å"),
        ("committee:{folder}:much", "positive number of eV/Å"),
    ],
)
def test_unusable_names_are_refused_before_a_search(spec, message, folder):
    with pytest.raises(CalculatorError, match=message):
        check_calculator(spec.format(folder=folder))


def test_unknown_elements_are_named(committee):
    with pytest.raises(ValueError, match="does not know Au; it knows Cu, Ag"):
        committee.predict(bulk("Au"))


def test_damaged_files_are_refused(folder, committee, tmp_path):
    committee.save(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="its hash differs"):
        Committee.load(tmp_path)
    committee.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    card["architecture"]["channels"] = 8
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="weights are of another version"):
        Committee.load(tmp_path)
    card["architecture"]["channels"] = 10**9
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="card must be one of a committee"):
        Committee.load(tmp_path)


def test_loading_leaves_torch_as_it_was(folder):
    before = torch.get_default_dtype()
    Committee.load(folder)
    assert torch.get_default_dtype() == before


def test_assessment_measures_errors_and_the_baseline():
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    forces = np.full((4, 3), 0.3)
    atoms.calc = SinglePointCalculator(atoms, energy=4.0, forces=forces, stress=np.full(6, 0.02))
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.1, size=(4, 4, 3))
    found = Prediction(energies=np.array([4.2, 4.6]), forces=forces + noise[:2], stresses=np.full((2, 6), 0.01))
    result = Assessment.of([atoms], [found], 1, {29: 0.5}, np.zeros(6))
    assert result.errors["energy"] == pytest.approx(0.1)
    assert result.baseline == pytest.approx({"energy": 0.5, "forces": 0.3, "stress": 0.02})
    assert result.errors["stress"] == pytest.approx(0.01)
    assert 0 < result.errors["forces"] < 0.2
    assert "meV/atom" in result.lines()[1]
