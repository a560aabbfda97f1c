"""Names of calculators, their construction and labels."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.lj import LennardJones

from hybridcsp.errors import CalculatorError, InputError, UnknownNameError
from hybridcsp.relaxation.calculators.registry import (
    CALCULATORS,
    build_calculator,
    check_calculator,
    runs_code,
)
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError


def make_copper_calculator():
    return EMT()


def make_nothing():
    return "no calculator"


def fail_to_make():
    raise RuntimeError("no licence found")


@pytest.fixture(scope="module")
def chgnet():
    return build_calculator("chgnet")


def test_every_calculator_has_a_label():
    entries = CALCULATORS.entries()
    assert {"chgnet", "emt", "lj", "mace"} <= set(entries)
    assert all(entry.summary for entry in entries.values())


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("chgnt", UnknownNameError, "did you mean 'chgnet'"),
        ("mace", InputError, "mace:PATH"),
        ("emt:3", InputError, "emt takes no argument"),
        ("chgnet:", InputError, "NAME:ARGUMENT"),
        ("mcae:model", InputError, "did you mean 'mace'"),
        ("no_such_package.module:make", InputError, "no Python module"),
        (
            "ase.calculators.emt:EM",
            InputError,
            "there is no 'EM' in the module ase.calculators.emt; did you mean 'EMT'",
        ),
        ("mace:nothing_here.model", CalculatorError, "neither a model file nor a foundation model"),
        (42, InputError, "ASE calculator"),
    ],
)
def test_wrong_names_are_refused_early(spec, error, words):
    with pytest.raises(error, match=words):
        check_calculator(spec)


@pytest.mark.parametrize("spec", ["chgnet", "emt", "lj", "ase.calculators.emt:EMT", EMT(), EMT, make_copper_calculator])
def test_valid_names_pass(spec):
    check_calculator(spec)


def test_check_imports_neither_torch_nor_a_calculator():
    code = (
        "import sys; from hybridcsp.relaxation.calculators.registry import check_calculator as check;"
        "check('chgnet'); check('ase.calculators.emt:EMT');"
        "print(*(m for m in ('torch', 'chgnet', 'mace', 'scipy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("source", "may_have"),
    [
        ("from ase.calculators.emt import EMT as make", True),
        ("from ase.calculators.emt import EMT", False),
        ("try:\n    import fast as make\nexcept ImportError:\n    make = None", True),
        ("if True:\n    def make(): ...", True),
        ("(make, other) = 1, 2", True),
        ("other = 'make'  # make", False),
        ("from ase.calculators.emt import *", True),
        ("def __getattr__(name): ...", True),
        ("globals()['ma' + 'ke'] = 1", True),
        ("this is not Python", True),
        ("raise SystemExit('it is read, not run')\nother = 1", False),
    ],
)
def test_name_is_refused_only_if_the_module_cannot_define_it(tmp_path, monkeypatch, source, may_have):
    (tmp_path / "licensed.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    if may_have:
        check_calculator("licensed:make")
    else:
        with pytest.raises(InputError, match="there is no 'make' in the module licensed"):
            check_calculator("licensed:make")
    assert "licensed" not in sys.modules


@pytest.mark.parametrize(
    ("spec", "code"),
    [("chgnet", False), ("emt", False), (EMT, False), ("mace:some.model", True), ("my_module:make", True)],
)
def test_only_named_files_and_modules_run_code(spec, code):
    assert runs_code(spec) is code


def test_labels_distinguish_calculators(chgnet):
    assert chgnet[1].startswith("chgnet 0.3.0 (chgnet ")
    labels = [build_calculator(spec)[1] for spec in ("emt", "lj", "ase.calculators.emt:EMT")]
    labels += [build_calculator(LennardJones(epsilon=epsilon))[1] for epsilon in (0.1, 0.2)]
    assert len(set(labels)) == 5
    assert all("ase" in label for label in labels)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (make_nothing, "must be an ASE calculator; it is a str"),
        (fail_to_make, "RuntimeError: no licence found"),
        (f"{__name__}:fail_to_make", "no licence found"),
    ],
)
def test_failed_construction_is_explained(spec, words):
    with pytest.raises(CalculatorError, match=words):
        build_calculator(spec)


def test_building_chgnet_prints_nothing_and_changes_no_global_state(capfd, chgnet):
    handlers = list(logging.getLogger().handlers)
    calculator, _ = build_calculator("chgnet")
    calculator.get_property("energy", bulk("Cu"))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


def test_chgnet_reports_isolated_atoms(chgnet, capfd):
    with pytest.raises(IsolatedAtomsError, match="1 of 1 atoms"):
        chgnet[0].get_property("energy", Atoms("Cu", cell=[20, 20, 20], pbc=True))
    assert capfd.readouterr() == ("", "")


def test_chgnet_falls_back_to_its_own_calculator_when_its_internals_differ(monkeypatch, caplog):
    from hybridcsp.relaxation.calculators import chgnet

    monkeypatch.setattr(chgnet._FrozenCHGNet, "__call__", lambda self, numbers, vectors, graph: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug of ours is not taken for a change of theirs
        chgnet.build_chgnet()

    def changed(self, numbers, vectors, graph):
        raise AttributeError("'CHGNet' object has no attribute 'atom_conv_layers'")

    monkeypatch.setattr(chgnet._FrozenCHGNet, "__call__", changed)
    calculator, label = chgnet.build_chgnet()
    assert label.endswith("its own calculator)")
    assert "internals have changed" in caplog.text
    atoms = bulk("Cu")
    atoms.calc = calculator
    assert atoms.get_stress().shape == (6,)
    assert isinstance(atoms.get_potential_energy(), float)
    with pytest.raises(IsolatedAtomsError):
        calculator.get_property("energy", Atoms("Cu", cell=[20, 20, 20], pbc=True))


def test_chgnet_falls_back_when_the_numbers_differ(monkeypatch, caplog):
    from hybridcsp.relaxation.calculators import chgnet

    true_call = chgnet._FrozenCHGNet.__call__

    def shifted(self, numbers, vectors, graph):
        energy, magmoms = true_call(self, numbers, vectors, graph)
        return energy + 1e-3, magmoms

    monkeypatch.setattr(chgnet._FrozenCHGNet, "__call__", shifted)
    _, label = chgnet.build_chgnet()
    assert label.endswith("its own calculator)")
    assert "differs from CHGNet (energy" in caplog.text


def test_chgnet_makes_no_tensor_outside_its_device():
    from chgnet.model.model import CHGNet

    from hybridcsp.relaxation.calculators.chgnet import _FrozenCHGNet, bond_graph

    network = _FrozenCHGNet(CHGNet.load(use_device="cpu", verbose=False).to("meta"))
    crystal = bulk("NiO", "rocksalt", a=4.2)
    graph = bond_graph(crystal.cell.array, crystal.positions, 6.0, 3.0)
    # Tensors of the device "meta" have shapes but no numbers. An operation with a tensor of another device fails, and
    # the last step, the conversion of the results to numbers, fails in any case.
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        network.evaluate(crystal.numbers, graph)


def test_device_of_chgnet_is_that_of_its_own_calculator(monkeypatch):
    from hybridcsp.relaxation.calculators import chgnet

    devices = []
    true_load, true_init = chgnet.CHGNet.load, chgnet.CHGNetCalculator.__init__

    def load(*, use_device, **more):
        devices.append(use_device)
        return true_load(use_device="cpu", **more)

    def init(self, model, *, use_device, **more):
        devices.append(use_device)
        true_init(self, model, use_device="cpu", **more)

    monkeypatch.setattr(chgnet.CHGNet, "load", load)
    monkeypatch.setattr(chgnet.CHGNetCalculator, "__init__", init)
    _, label = chgnet.build_chgnet(device="cuda:1")
    assert devices == ["cuda:1", "cuda:1"]
    assert "cuda" not in label


def test_chgnet_in_double_precision_has_the_same_energy_and_exact_forces(chgnet):
    from hybridcsp.relaxation.calculators.chgnet import build_chgnet

    calculator, label = build_chgnet(precision="float64")
    assert label == chgnet[1].replace(")", ", float64)")
    atoms = bulk("NiO", "rocksalt", a=4.2)
    atoms.rattle(0.1, seed=3)
    assert calculator.get_property("energy", atoms) == pytest.approx(chgnet[0].get_property("energy", atoms), abs=2e-5)
    moved = atoms.copy()
    moved.positions[0, 0] += 1e-4
    slope = (calculator.get_property("energy", atoms) - calculator.get_property("energy", moved)) / 1e-4
    middle = (calculator.get_property("forces", atoms)[0, 0] + calculator.get_property("forces", moved)[0, 0]) / 2
    assert slope == pytest.approx(middle, abs=1e-5)


def test_double_precision_is_refused_where_chgnet_s_own_calculator_must_be_used(monkeypatch):
    from hybridcsp.relaxation.calculators import chgnet

    monkeypatch.setattr(chgnet, "_first_difference", lambda *_: "the fast CHGNet differs from CHGNet (energy)")
    with pytest.raises(
        CalculatorError, match=r"float64 is not available, because the fast CHGNet differs.*use float32"
    ):
        chgnet.build_chgnet(precision="float64")


def test_failure_of_chgnet_s_own_calculator_is_not_taken_for_a_change_of_internals(monkeypatch):
    from hybridcsp.relaxation.calculators import chgnet

    def run_out(self, *_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(chgnet.QuietCHGNetCalculator, "calculate", run_out)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        chgnet.build_chgnet(device="cpu")


def test_lennard_jones_stress_is_the_derivative_of_its_energy():
    calculator, _ = build_calculator("lj")
    atoms = bulk("Cu", cubic=True, a=3.7) * 2
    atoms.rattle(0.1, seed=1)
    atoms.calc = calculator
    expected = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), expected, atol=1e-6)
