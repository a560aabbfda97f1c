"""Calculators in a process of another interpreter: the same results, outcomes and labels as in this one."""

import ast
import copy
import gc
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import odd_calculators
import psutil
import pytest
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT

from hybridcsp.core.outcomes import Failed
from hybridcsp.core.records import EVALUATE, Candidate, Job, Limits, Proposal
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.relaxation.calculators import remote, server, server_process
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.interpreters import Interpreter
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator, parameters_ahead, runs_code
from hybridcsp.relaxation.calculators.server import wire
from hybridcsp.relaxation.calculators.server_process import ServerLostError
from hybridcsp.relaxation.relax import run_job
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.relaxation.worker import run_contained

SERVER = Path(server.__file__).parent
ODD = "odd_calculators:OddCalculator"
HERE = CalculatorChoice(calculator=ODD, python=sys.executable)


@pytest.fixture(scope="module", autouse=True)
def modules():
    """Let servers find the calculators of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(odd_calculators.__file__).parent))
        yield


@pytest.fixture(scope="module")
def odd(modules):
    calculator, _ = build_calculator(HERE)
    yield calculator
    calculator.close()


def script(path, text):
    """An executable file that may stand for an interpreter."""
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def structure(behaviour=""):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_initial_magnetic_moments([0, 1, 2, 3])
    atoms.info["behaviour"] = behaviour
    return atoms


def outcome_of(calculator, behaviour):
    """The outcome of a job as a worker sees it, without times."""
    atoms = structure(behaviour)
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=1, source="test")
    job = Job(candidate=candidate, atoms=atoms, level=EVALUATE, limits=Limits())
    settings = RelaxationSettings()
    outcome, _ = run_contained(lambda one: run_job(one, calculator, "odd", settings), job)
    if isinstance(outcome, Failed):
        return outcome.reason, outcome.detail
    return {key: np.asarray(value).tolist() for key, value in outcome.atoms.calc.results.items()}


@pytest.mark.parametrize(
    "behaviour", [*odd_calculators.RESULTS, *sorted(set(odd_calculators.ACTIONS) - set(odd_calculators.FATAL))]
)
def test_outcome_is_that_of_the_calculator_in_this_process(odd, behaviour):
    assert outcome_of(odd, behaviour) == outcome_of(odd_calculators.OddCalculator(), behaviour)


def test_results_of_emt_are_exact_and_the_label_is_the_same():
    ours, label = build_calculator("emt")
    theirs, their_label = build_calculator(CalculatorChoice(calculator="emt", python=sys.executable))
    assert their_label == label
    atoms = structure()
    for name in ("energy", "forces", "stress"):
        assert np.array_equal(theirs.get_property(name, atoms), ours.get_property(name, atoms))
    atoms.calc = theirs
    atoms.positions += 0.01
    assert atoms.get_potential_energy() == pytest.approx(ours.get_property("energy", atoms), abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"precision": "float32"}])
def test_label_of_a_factory_is_that_of_this_process(options):
    name = "odd_calculators:choosing"
    label = build_calculator(CalculatorChoice(calculator=name, **options))[1]
    choice = CalculatorChoice(calculator=name, python=sys.executable, **options)
    assert build_calculator(choice)[1] == label
    assert ("precision=float32" in label) is ("precision" in options)


def test_each_structure_is_sent_once(odd, monkeypatch):
    asked = []
    ask = server_process.CalculatorServer.ask
    monkeypatch.setattr(
        server_process.CalculatorServer, "ask", lambda self, message: asked.append(message) or ask(self, message)
    )
    atoms = structure()
    for name in ("forces", "stress", "energy", "magmoms"):
        odd.get_property(name, atoms)
    assert not odd.calculation_required(atoms, ["energy"])
    assert len(asked) == 1
    atoms.positions[0] += 0.1
    odd.get_property("energy", atoms)
    assert len(asked) == 2


def test_magnetic_moments_charges_and_information_arrive(odd):
    atoms = structure()
    atoms.set_initial_charges([1, 2, 3, 4])
    atoms.set_tags([4, 3, 2, 1])
    arrived = wire.decode_structure(wire.decode(wire.encode(wire.encode_structure(atoms))))
    assert arrived == atoms
    assert arrived.info == atoms.info
    assert set(arrived.arrays) == set(atoms.arrays)
    assert all(np.array_equal(arrived.arrays[name], atoms.arrays[name]) for name in atoms.arrays)


def test_property_that_is_not_provided_is_named(odd):
    with pytest.raises(PropertyNotImplementedError, match="OddCalculator returned no dipole"):
        odd.get_property("dipole", structure())


def test_a_failed_structure_is_evaluated_again(odd):
    atoms = structure("division")
    for _ in range(2):
        with pytest.raises(Exception, match="no k-points"):
            odd.get_property("energy", atoms)
    assert odd.calculation_required(atoms, ["energy"])


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("odd_calculators:fail", "RuntimeError: no licence found"),
        ("odd_calculators:leave", "SystemExit: no licence found"),
        ("odd_calculators:crash", "was killed by SIGABRT"),
        ("odd_calculators:nothing", "must be an ASE calculator; it is a str"),
        ("odd_calculators:absent", "AttributeError: module 'odd_calculators' has no attribute 'absent'"),
        ("no_such_module_there:make", "ModuleNotFoundError: No module named 'no_such_module_there'"),
    ],
)
def test_calculator_that_cannot_be_built_there_is_explained(factory, words):
    with pytest.raises(CalculatorError, match=words) as raised:
        build_calculator(CalculatorChoice(calculator=factory, python=sys.executable))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("python", [None, sys.executable])
@pytest.mark.parametrize(
    ("calculator", "options", "words"),
    [
        ("odd_calculators:fail", {"device": "cpu"}, "has no parameter device"),
        ("odd_calculators:fail", {"precision": "float32"}, "has no parameter precision"),
        ("emt", {"precision": "float32"}, "emt computes in float64 only"),
    ],
)
def test_option_that_a_calculator_does_not_have_is_refused(python, calculator, options, words):
    with pytest.raises(InputError, match=words):
        build_calculator(CalculatorChoice(calculator=calculator, python=python, **options))


def test_device_that_the_other_interpreter_does_not_have_is_refused_before_a_calculator_is_built(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(
        """
__version__ = "2.13.0"
class device:
    def __init__(self, name):
        if not name.startswith("cuda"):
            raise RuntimeError("no such type")
        self.type, _, index = name.partition(":")
        self.index = int(index or 0)
class cuda:
    is_available = lambda: True
    device_count = lambda: 1
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for device, words in (("nonsense", "torch has no such device"), ("cuda:1", "torch finds 1 CUDA devices here")):
        with pytest.raises(InputError, match=f"device = '{device}' cannot be used: {words}"):
            check_calculator(CalculatorChoice(calculator="module:make", python=sys.executable, device=device))
    check_calculator(CalculatorChoice(calculator="module:make", python=sys.executable, device="cuda"))
    (tmp_path / "torch.py").write_text("raise ImportError('no libcudart')")
    with pytest.raises(InputError, match=r"torch, which computes on devices, cannot be imported here .no libcudart"):
        check_calculator(CalculatorChoice(calculator="module:make", python=sys.executable, device="mps"))


@pytest.mark.parametrize(
    ("calculator", "options", "words"),
    [
        ("chgnet", {"python": sys.executable}, "runs only in the interpreter of hybridcsp"),
        (odd_calculators.OddCalculator(), {"python": sys.executable}, "by their names"),
        (odd_calculators.OddCalculator(), {"device": "cpu"}, "an ASE calculator is given"),
        (odd_calculators.OddCalculator, {"precision": "float32"}, "has no parameter precision"),
    ],
)
def test_option_that_cannot_be_combined_is_refused(calculator, options, words):
    with pytest.raises(InputError, match=words):
        build_calculator(CalculatorChoice(calculator=calculator, **options))


def test_interpreters_that_cannot_be_used_are_explained(tmp_path):
    text = tmp_path / "text"
    text.write_text("hello")
    broken = tmp_path / "broken"
    broken.symlink_to(tmp_path / "gone")
    writing = f"#!{sys.executable}\nimport os, sys\nos.write(int(sys.argv[2]), %r)\n"
    cases = {
        str(tmp_path / "none"): "there is no such file; give the path",
        str(broken): "it is a link to .*gone, which does not exist",
        str(tmp_path): "this is a folder",
        str(text): "not executable",
        "x" * 5000 + "/python": "cannot be used: .*too long",
        "no-such-python-anywhere": "no such program on the PATH",
        script(tmp_path / "binary", "\x7fELF"): "cannot be started .Exec format error",
        script(tmp_path / "unknown", "#!/no/such/shell\n"): "cannot be started .No such file",
        script(tmp_path / "true", "#!/bin/sh\nexit 0\n"): "ended with exit status 0",
        script(tmp_path / "crash", "#!/bin/sh\nkill -SEGV $$\n"): "was killed by SIGSEGV",
        script(tmp_path / "noise", writing % b"garbage, not a length"): "sent bytes that are no answer",
        script(tmp_path / "number", writing % b"\2\0\0\0\0\0\0\0{}"): "first message is unknown",
    }
    for python, words in cases.items():
        with pytest.raises(InputError, match=words) as raised:
            check_calculator(CalculatorChoice(calculator="emt", python=python))
        assert "\n" not in str(raised.value)


def test_interpreter_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(server_process, "_START_SECONDS", 0.3)
    python = script(tmp_path / "python", f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    with pytest.raises(InputError, match=r"did not answer within 0\.3 s"):
        check_calculator(CalculatorChoice(calculator="emt", python=python))
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def environment(folder, modules):
    """A virtual environment with modules instead of packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    return str(folder / "bin" / "python")


def test_environment_without_ase_is_refused(tmp_path):
    python = environment(tmp_path / "bare", {"numpy": ""})
    with pytest.raises(InputError, match=f"ase is not installed there; install it with: {python} -m pip install ase"):
        check_calculator(CalculatorChoice(calculator="emt", python=python))


def test_environment_with_a_broken_ase_is_refused(tmp_path):
    python = environment(tmp_path / "broken", {"numpy": "", "ase": "raise ImportError('numpy is too new')"})
    with pytest.raises(InputError, match=r"ase cannot be imported there .ImportError: numpy is too new"):
        check_calculator(CalculatorChoice(calculator="emt", python=python))


def test_other_version_of_the_protocol_is_told(monkeypatch):
    monkeypatch.setattr(server_process, "PROTOCOL", wire.PROTOCOL + 1)
    with pytest.raises(InputError, match="version 1 of the protocol, and this process version 2; hybridcsp was"):
        server_process.CalculatorServer(Interpreter(sys.executable))


def test_interpreter_in_an_odd_folder_is_run_through_its_link(tmp_path):
    folder = tmp_path / "a b\nc'd"
    folder.mkdir()
    script(folder / "real", f'#!/bin/sh\nODD_LINK="$0" exec {sys.executable} "$@"\n')
    (folder / "python").symlink_to("real")
    (tmp_path / "linked.py").write_text(
        "import os\nfrom ase.calculators.emt import EMT\ndef make():\n"
        "    calculator = EMT()\n    calculator.parameters.link = os.environ['ODD_LINK'].replace('/', '|')\n"
        "    return calculator\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        _, label = build_calculator(CalculatorChoice(calculator="linked:make", python=str(folder / "python")))
    assert f"link={folder}/python".replace("/", "|") in label


def test_environment_of_python_is_its_own(tmp_path, monkeypatch):
    """A PYTHONHOME for this interpreter would break the other one; an isolated one also ignores PYTHONPATH."""
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    interpreter = Interpreter(sys.executable)
    assert remote.RemoteCalculator("odd_calculators", "OddCalculator", interpreter=interpreter).label
    isolated = remote.RemoteCalculator(
        "odd_calculators", "OddCalculator", interpreter=Interpreter(sys.executable, isolated=True)
    )
    with pytest.raises(CalculatorError, match="No module named 'odd_calculators'"):
        _ = isolated.label


def test_parts_of_the_server_do_not_hide_modules_of_the_same_name(tmp_path, monkeypatch):
    (tmp_path / "wire.py").write_text("from ase.calculators.emt import EMT\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "wire:EMT" in build_calculator(CalculatorChoice(calculator="wire:EMT", python=sys.executable))[1]


def servers():
    return {child for child in psutil.Process().children() if str(SERVER / "__main__.py") in child.cmdline()}


def test_server_ends_with_its_calculator():
    before = servers()
    calculator, _ = build_calculator(HERE)
    (process,) = servers() - before
    del calculator
    gc.collect()
    assert not process.is_running()


def test_fork_that_a_calculator_leaves_running_does_not_answer_for_the_next_structure(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "forking.py").write_text(
        "import os\n"
        "from ase.calculators.emt import EMT\n"
        "class make(EMT):\n"
        "    def calculate(self, *args, **kwargs):\n"
        "        super().calculate(*args, **kwargs)\n"
        "        os.fork()\n"
    )
    calculator, _ = build_calculator(CalculatorChoice(calculator="forking:make", python=sys.executable))
    atoms = structure()
    for _ in range(4):
        atoms.rattle(0.05, rng=np.random.default_rng(2))
        expected = EMT().get_property("energy", atoms)
        assert calculator.get_property("energy", atoms) == pytest.approx(expected, abs=1e-9)
    calculator.close()


def test_copies_have_servers_of_their_own(odd):
    for copied in (copy.deepcopy(odd), pickle.loads(pickle.dumps(odd))):
        assert copied.label == odd.label
        assert copied.get_property("energy", structure()) == odd.get_property("energy", structure())
        copied.close()
    assert odd.get_property("energy", structure())


def test_a_fork_does_not_use_or_end_the_server_of_its_parent(odd):
    odd.get_property("energy", structure())
    child = os.fork()
    if child == 0:
        good = odd.get_property("energy", structure("array energy")) == -5.0
        odd.close()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert odd.get_property("energy", structure("array energy")) == -5.0


@pytest.mark.parametrize("behaviour", sorted(set(odd_calculators.FATAL) - {"hang", "program", "memory hog"}))
def test_lost_server_is_an_error_and_the_next_structure_has_a_fresh_one(odd, behaviour):
    before = servers()
    with pytest.raises(ServerLostError, match=r"^the calculator server of .*python[\d.]* (was|ended|closed|sent) "):
        odd.get_property("energy", structure(behaviour))
    assert odd.get_property("energy", structure("array energy")) == -5.0
    assert len(servers()) <= max(1, len(before))


def test_calculator_that_is_another_one_after_a_restart_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module = tmp_path / "changing.py"
    module.write_text("from ase.calculators.emt import EMT\n")
    calculator, _ = build_calculator(CalculatorChoice(calculator="changing:EMT", python=sys.executable))
    module.write_text("from ase.calculators.emt import EMT  # another one\n")
    calculator.close()
    with pytest.raises(CalculatorError, match="changing:EMT has changed"):
        calculator.get_property("energy", structure())


@pytest.mark.parametrize("end", ["pass", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(1)"])
def test_no_process_outlives_a_script(tmp_path, end):
    code = (
        "import sys, psutil\n"
        "from hybridcsp.relaxation.calculators.choice import CalculatorChoice\n"
        "from hybridcsp.relaxation.calculators.registry import build_calculator\n"
        f"calculator, _ = build_calculator(CalculatorChoice(calculator={ODD!r}, python=sys.executable))\n"
        "print(*(child.pid for child in psutil.Process().children()), flush=True)\n" + end
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    processes = [int(text) for text in done.stdout.split()]
    assert len(processes) == 2, done.stderr  # the server and the process that watches it
    limit = time.monotonic() + 5
    while any(alive(process) for process in processes) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not any(alive(process) for process in processes)


def alive(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_overhead_of_a_call_is_small(odd):
    """The bar is 2 ms of time; the processor time of this side is what a busy machine does not change."""
    atoms = structure()
    started = time.process_time()
    for _ in range(100):
        atoms.positions[0] += 0.001
        odd.get_property("energy", atoms)
    assert (time.process_time() - started) / 100 < 0.002


def test_server_package_needs_only_the_oldest_python_numpy_and_ase():
    allowed = {*sys.stdlib_module_names, "numpy", "ase"}
    # imported only by the function that builds a potential, and by each other
    of_potential = {SERVER / f"{name}.py" for name in ("sevennet_calculator", "pair_convolution", "mace_calculator")}
    for file in SERVER.glob("**/*.py"):
        tree = ast.parse(file.read_text(), feature_version=(3, 9))
        inside = {id(node) for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) for node in ast.walk(one)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]} if node.level == 0 else set()
                imported = file.with_name(f"{node.module}.py")
                assert id(node) in inside or imported not in of_potential or file in of_potential, file
            else:
                continue
            assert "hybridcsp" not in names, file
            assert id(node) in inside or names <= allowed or file in of_potential, (file, names)


def test_choice_runs_code_and_knows_no_hash_of_another_interpreter():
    assert runs_code(CalculatorChoice(calculator="emt", python=sys.executable))
    assert not runs_code(CalculatorChoice(calculator="emt", device="cpu"))
    assert "source" in parameters_ahead(ODD)
    assert parameters_ahead(HERE) == {}
