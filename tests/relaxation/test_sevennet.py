"""SevenNet through a small package that has its interfaces; the real one cannot be installed beside MACE."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress

from hybridcsp.core.records import Limits
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator, runs_code
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.guards import GuardedCalculator
from hybridcsp.relaxation.settings import RelaxationSettings

PACKAGES = Path(__file__).parents[1] / "fake_packages"


@pytest.fixture(autouse=True)
def sevenn(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGES)
    yield
    for name in [
        name
        for name in sys.modules
        if name.partition(".")[0] == "sevenn" or "sevennet_calc" in name or "pair_conv" in name
    ]:
        del sys.modules[name]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_text(json.dumps({"seed": 7, "modals": []}))
    return path


def crystal():
    atoms = bulk("NiO", "rocksalt", a=4.2)
    atoms.rattle(0.1, seed=4)
    return atoms


def own_calculator(path, modal=None):
    from sevenn.calculator import SevenNetCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SevenNetCalculator(path, modal=modal)


@pytest.mark.parametrize(
    ("spec", "model", "folder", "modal"),
    [
        ("sevennet", "7net-0", "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth", None),
        ("sevennet:l3i5", "7net-l3i5", "SevenNet_l3i5/checkpoint_l3i5.pth", None),
        ("sevennet:mf:pbe", "7net-mf-0 PBE", "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth", "PBE"),
        ("sevennet:mf:r2scan", "7net-mf-0 R2SCAN", "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth", "R2SCAN"),
    ],
)
def test_each_name_gives_the_results_of_its_model(spec, model, folder, modal):
    check_calculator(spec)
    calculator, label = build_calculator(spec)
    assert label.startswith(f"sevennet {model} (sevenn 0.0.1, weights=")
    theirs = own_calculator(PACKAGES / "sevenn/pretrained_potentials" / folder, modal)
    for name in ("energy", "forces", "stress"):
        np.testing.assert_allclose(
            calculator.get_property(name, crystal()), theirs.get_property(name, crystal()), atol=1e-6, err_msg=name
        )
    assert not runs_code(spec)


def test_small_and_large_cells_have_the_results_of_sevennet_s_own_convolution(caplog):
    calculator, _ = build_calculator("sevennet")
    from hybridcsp.relaxation.calculators.server import pair_convolution

    assert any(isinstance(module, pair_convolution.PairConvolution) for module in calculator.model.children())
    theirs = own_calculator(PACKAGES / "sevenn/pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth")
    for repeats, has_pairs in ((1, True), (3, False)):
        atoms = bulk("NiO", "rocksalt", a=4.2) * ((repeats,) * 3)
        atoms.rattle(0.1, seed=5)
        graphs = []
        calculator.model.register_forward_hook(lambda _, inputs, data, graphs=graphs: graphs.append(data))
        calculator.calculate(atoms)
        assert (pair_convolution.PAIR in graphs[0]) is has_pairs
        for name in ("energy", "forces", "stress"):
            expected = theirs.get_property(name, atoms)
            np.testing.assert_allclose(calculator.results[name] / len(atoms), expected / len(atoms), atol=1e-6)
    assert not caplog.records


def test_a_convolution_with_other_results_is_not_used(monkeypatch, caplog, checkpoint):
    import hybridcsp.relaxation.calculators.server.pair_convolution as pairs

    right = pairs.PairConvolution.forward

    def wrong(self, data):
        data = right(self, data)
        data["x"] = 1.1 * data["x"]
        return data

    monkeypatch.setattr(pairs.PairConvolution, "forward", wrong)
    calculator, _ = build_calculator(f"sevennet:{checkpoint}")
    assert "differs from sevenn's" in caplog.text
    assert not any(isinstance(module, pairs.PairConvolution) for module in calculator.model.children())
    assert calculator.get_potential_energy(crystal()) == own_calculator(checkpoint).get_potential_energy(crystal())


def test_other_internals_of_sevenn_give_its_own_convolution(monkeypatch, caplog):
    import sevenn.nn.convolution as convolution

    true_init = convolution.IrrepsConvolution.__init__

    def without_layout(self, *arguments):
        true_init(self, *arguments)
        del self.convolution_kwargs

    monkeypatch.setattr(convolution.IrrepsConvolution, "__init__", without_layout)
    calculator, _ = build_calculator("sevennet")
    assert "sevenn's internals have changed" in caplog.text
    theirs = own_calculator(PACKAGES / "sevenn/pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth")
    assert calculator.get_property("energy", crystal()) == pytest.approx(theirs.get_property("energy", crystal()))


def test_functionals_of_one_checkpoint_differ():
    energies = {
        name: build_calculator(f"sevennet:mf:{name}")[0].get_property("energy", crystal()) for name in ("pbe", "r2scan")
    }
    assert abs(energies["pbe"] - energies["r2scan"]) > 1e-3


def test_file_is_a_model_that_runs_code(checkpoint):
    spec = f"sevennet:{checkpoint}"
    assert runs_code(spec)
    calculator, label = build_calculator(spec)
    assert label.startswith("sevennet mine.pth (sevenn 0.0.1, weights=")
    expected = own_calculator(checkpoint).get_property("energy", crystal())
    assert calculator.get_property("energy", crystal()) == pytest.approx(expected, abs=1e-6)


def test_file_with_several_functionals_needs_one_of_them(checkpoint):
    checkpoint.write_text(json.dumps({"seed": 7, "modals": ["hse", "PBE"]}))
    with pytest.raises(CalculatorError, match=r"avail: \['hse', 'PBE'\].*; write sevennet:.*mine.pth:FUNCTIONAL"):
        build_calculator(f"sevennet:{checkpoint}")
    with pytest.raises(CalculatorError, match="unknown modal scan"):
        build_calculator(f"sevennet:{checkpoint}:scan")
    _, label = build_calculator(f"sevennet:{checkpoint}:hse")
    assert label.startswith("sevennet mine.pth hse (")


@pytest.mark.parametrize("argument", ["7net-0", "l3i6", "mf", "nothing_here.pth"])
def test_unknown_model_is_refused_with_the_known_ones(argument):
    with pytest.raises(CalculatorError, match="neither a model of sevenn nor a file; give one of l3i5, mf:pbe"):
        check_calculator(f"sevennet:{argument}")


def test_file_in_the_working_directory_is_not_taken_for_a_model_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("7net-0", "l3i5", "sevennet", "checkpoint_l3i5.pth"):
        Path(name).write_text("not a checkpoint")
    build_calculator("sevennet")
    build_calculator("sevennet:l3i5")


def test_changed_file_of_the_package_is_not_loaded(tmp_path, monkeypatch):
    import shutil

    shutil.copytree(PACKAGES / "sevenn", tmp_path / "sevenn")
    record = tmp_path / "sevenn-0.0.1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Name: sevenn\nVersion: 0.0.1\n")
    name = "sevenn/pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth"
    (record / "RECORD").write_text(f"{name},sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CalculatorError, match=r"checkpoint_l3i5.pth is not the file that was installed with sevenn"):
        build_calculator("sevennet:l3i5")
    build_calculator("sevennet")


def test_double_precision_gives_exact_derivatives():
    calculator, label = build_calculator(_choice("sevennet", precision="float64"))
    assert "float64" in label
    single = build_calculator("sevennet")[0]
    assert single.get_property("energy", crystal()) == pytest.approx(
        calculator.get_property("energy", crystal()), abs=1e-5
    )
    atoms = crystal()
    atoms.calc = calculator
    expected = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), expected, atol=1e-8)
    moved = atoms.copy()
    moved.calc = calculator
    moved.positions[0, 0] += 1e-5
    slope = (atoms.get_potential_energy() - moved.get_potential_energy()) / 1e-5
    assert slope == pytest.approx((atoms.get_forces()[0, 0] + moved.get_forces()[0, 0]) / 2, abs=1e-7)


def _choice(calculator, **options):
    from hybridcsp.relaxation.calculators.choice import CalculatorChoice

    return CalculatorChoice(calculator=calculator, **options)


def test_one_neighbour_list_is_made_for_each_geometry():
    import sevenn.train.dataload as dataload

    calculator, _ = build_calculator("sevennet")
    atoms = crystal()
    guarded = GuardedCalculator(calculator, atoms, Limits(), RelaxationSettings())
    atoms.calc = guarded
    before = dataload.calls
    for _ in range(3):
        atoms.positions[0, 0] += 0.01
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert guarded.force_calls == 3
    assert dataload.calls - before == 3


def test_isolated_atoms_and_unknown_elements_are_explained():
    calculator, _ = build_calculator("sevennet")
    calculator.get_property("energy", crystal())
    with pytest.raises(IsolatedAtomsError, match="1 of 3 atoms have no neighbour within 4 Å"):
        calculator.get_property(
            "energy", Atoms("NiO2", [[0, 0, 0], [1.8, 0, 0], [10, 10, 10]], cell=[20] * 3, pbc=True)
        )
    for _ in range(2):  # not the results of the crystal before
        with pytest.raises(ValueError, match="SevenNet does not know Au; it knows O, Al, Ti, Ni, Cu"):
            calculator.get_property("energy", bulk("Au"))


def test_missing_package_is_explained_before_the_search(monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(PACKAGES)])
    with pytest.raises(CalculatorError, match=r"cannot import the package sevenn.*calculators install sevennet"):
        check_calculator("sevennet")


def test_nothing_is_printed(capfd, recwarn):
    calculator, _ = build_calculator("sevennet")
    calculator.get_property("energy", crystal())
    assert capfd.readouterr() == ("", "")
    assert not recwarn


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match=r"device = 'gpu'"):
        build_calculator(_choice("sevennet", device="gpu"))
