import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import namedtuple
from importlib.resources import files
from pathlib import Path

import psutil
import pytest
from wheels import PINNED, in_another_process, pin_tiny_packages, sevennet_wheels

from hybridcsp.errors import CalculatorError, InputError, InstallationError, UnknownNameError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.environments import (
    RECIPES,
    data_folder,
    environment,
    find_recipe,
    install,
    listed,
    remove,
)
from hybridcsp.relaxation.calculators.interpreters import find_interpreter
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.trial import run_trial
from hybridcsp.utils.activity import announcements

RECIPE = RECIPES["sevennet"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("HYBRIDCSP_DATA", str(folder))
    pin_tiny_packages(tmp_path / "requirements", monkeypatch)
    return folder


@pytest.fixture
def wheels(tmp_path):
    return sevennet_wheels(tmp_path / "wheels of mine")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A virtual environment with pip, of which copies are made in a fraction of the time."""
    folder = tmp_path_factory.mktemp("template") / "venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", folder], check=True)
    return folder


def replace_venv(folder, monkeypatch, instead):
    """Replace Python's venv by a shell command, which gets the folder of the new environment as ``$target``."""
    python = folder / "python-with-another-venv"
    python.write_text(
        "#!/bin/sh\n"
        "for target; do :; done\n"
        f'case "$*" in *"-m venv"*) {instead};; *) exec "{sys.executable}" "$@";; esac\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))


@pytest.fixture
def quick_venv(template, tmp_path, monkeypatch):
    replace_venv(tmp_path, monkeypatch, f'cp -R "{template}" "$target"')


@pytest.fixture
def fake_python(tmp_path, monkeypatch):
    """Return a function that makes a shell script the interpreter of all environments."""

    def replace(script):
        (tmp_path / "inner").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "inner").chmod(0o755)
        replace_venv(tmp_path, monkeypatch, f'mkdir -p "$target/bin" && cp "{tmp_path}/inner" "$target/bin/python"')

    return replace


def runs(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def made_by_hand(data, name="sevennet", **changes):
    """Write a folder like that of an installed environment, with this interpreter, in little time."""
    folder = data / "environments" / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/usr/bin/env")
    description = {"format": 1, "packages": PINNED, "size": 10, "python": "3.11.7", "requirements": RECIPE.digest}
    (folder / "environment.json").write_text(json.dumps(description | changes))
    return folder


def test_every_package_of_a_recipe_is_pinned():
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text().split()
    for name, recipe in RECIPES.items():
        text = files("hybridcsp").joinpath(f"data/environments/{name}.txt").read_text()
        pinned = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
        assert all(version and not set(version) & set("*<>=+ ") for version in pinned.values())
        assert {"ase", "numpy", "torch", *recipe.principal} <= set(pinned)
        for package in ("ase", "torch"):  # labels contain the version of ase
            assert f"{package}=={pinned[package]}" in constraints
    mace = find_recipe("mace").packages
    assert f"mace-torch=={mace['mace-torch']}" in constraints
    assert f"e3nn=={mace['e3nn']}" in constraints


def test_unknown_recipe():
    with pytest.raises(UnknownNameError, match=r"did you mean 'sevennet'.*--python"):
        find_recipe("sevennet-0")


@pytest.mark.slow
def test_installed_listed_used_and_removed(data, wheels):
    assert environment("sevennet") is None
    assert listed() == []
    steps = []
    with announcements(steps.append):
        made = install(RECIPE, wheels=wheels)
    assert made == environment("sevennet") == listed()[0]
    assert made.folder == data / "environments" / "sevennet"
    assert made.state == "ready"
    assert PINNED.items() <= made.packages.items()
    assert made.size > 1e6
    assert {"making a virtual environment", "unpacking 2 packages", "importing sevenn.calculator"} <= set(steps)
    command = [made.python, "-I", "-c", "import sevenn.calculator as c; print(c.__file__)"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(made.folder))
    assert not (made.folder / "tmp").exists()
    before = (made.folder / "environment.json").stat().st_mtime_ns
    assert install(RECIPE, wheels=wheels) == made  # nothing is done again
    assert (made.folder / "environment.json").stat().st_mtime_ns == before

    remove("sevennet")
    assert environment("sevennet") is None
    assert [file.name for file in (data / "environments").iterdir()] == ["environments.lock"]
    with pytest.raises(InputError, match="no environment is installed"):
        remove("sevennet")


@pytest.mark.slow
def test_environment_with_other_packages_is_replaced(data, wheels, quick_venv):
    folder = made_by_hand(data, requirements="of an earlier version")
    (folder / "old").write_text("")
    found = environment("sevennet")
    assert found.outdated
    assert "other packages" in found.state
    assert not install(RECIPE, wheels=wheels).outdated
    assert not (folder / "old").exists()


@pytest.mark.slow
def test_killed_installation_is_replaced_and_its_programs_end(data, wheels, tmp_path, quick_venv):
    (tmp_path / "slow").mkdir()
    slow = sevennet_wheels(tmp_path / "slow", "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    script = f"install(RECIPES['sevennet'], wheels=Path({str(slow)!r}))"
    process = in_another_process(tmp_path / "requirements", script)
    log = data / "environments" / "sevennet.log"
    while not (log.exists() and (last := (log.read_text().splitlines() or [""])[-1]).isdigit()):
        assert process.poll() is None
        time.sleep(0.05)
    with pytest.raises(InstallationError, match=f"process {process.pid} on .* installs or removes .*wait until"):
        install(RECIPE, wheels=wheels)  # two at once
    process.kill()
    process.wait()
    assert (data / "environments" / "sevennet" / "bin" / "python").exists()
    assert environment("sevennet") is None
    assert "did not end" in listed()[0].state
    made = install(RECIPE, wheels=wheels)  # waits until the programs of the first have ended
    assert made.state == "ready"
    assert not runs(int(last))


def test_interrupted_installation_leaves_nothing(data, fake_python, tmp_path):
    def interrupt(activity):
        if activity == "resolving sevenn==0.13.0":
            raise KeyboardInterrupt

    fake_python(f"echo $$ > {tmp_path}/pid; echo Collecting sevenn==0.13.0; sleep 60")
    with pytest.raises(KeyboardInterrupt), announcements(interrupt):
        install(RECIPE)
    assert not (data / "environments" / "sevennet").exists()
    assert listed() == []
    assert not runs(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
def test_missing_wheel_is_named(data, wheels, quick_venv):
    (wheels / "tiny_dependency-1.0-py3-none-any.whl").unlink()
    with pytest.raises(InstallationError, match=r"wheels of mine has no wheel of tiny-dependency==1.0 .*Log: (\S+)"):
        install(RECIPE, wheels=wheels)
    assert not (data / "environments" / "sevennet").exists()
    assert "No matching distribution" in (data / "environments" / "sevennet.log").read_text()


def test_folder_without_wheels_is_refused(data, tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=r"--wheels .*(an existing folder of wheels|contains no wheel)"):
            install(RECIPE, wheels=folder)
    assert not data.exists()


@pytest.mark.slow
def test_package_that_cannot_be_imported(data, tmp_path, quick_venv):
    wheels = sevennet_wheels(tmp_path / "broken", "raise OSError('libc is too old')")
    with pytest.raises(InstallationError, match=r"sevenn.calculator cannot be imported \(OSError: libc is too old\)"):
        install(RECIPE, wheels=wheels)
    assert not (data / "environments" / "sevennet").exists()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError(...)': /simple/sevenn/\n"
            "ERROR: Could not find a version that satisfies the requirement sevenn==0.13.0 (from versions: none)\n"
            "ERROR: No matching distribution found for sevenn==0.13.0",
            "there is no network; --wheels FOLDER",
        ),
        ("ERROR: No matching distribution found for sevenn==0.13.0", "the index of pip has no sevenn==0.13.0 for Pyth"),
        ("ERROR: HTTPSConnectionPool(...): Read timed out. (ReadTimeoutError)", "the network failed"),
        ("ERROR: [Errno 28] No space left on device", "is full"),
        ("Collecting sevenn\nERROR: boom\x1b[2J", r"pip failed \(ERROR: boom\\x1b\[2J\)"),
        ("", "pip failed"),
    ],
)
def test_failures_of_pip_are_one_sentence(data, fake_python, output, expected):
    fake_python(f"cat <<'END'\n{output}\nEND\nexit 1")
    with pytest.raises(InstallationError, match=expected) as raised:
        install(RECIPE)
    message = str(raised.value)
    assert message.startswith("the environment sevennet was not installed: ")
    assert "\n" not in message
    assert message.endswith(f"Log: {data}/environments/sevennet.log")
    assert not (data / "environments" / "sevennet").exists()


def test_python_without_ensurepip(data, tmp_path, monkeypatch):
    message = "The virtual environment was not created successfully because ensurepip is not available."
    replace_venv(tmp_path, monkeypatch, f"echo {message}; exit 1")
    with pytest.raises(InstallationError, match=r"lacks the module ensurepip.*python3-venv"):
        install(RECIPE)


def test_killed_pip_is_told(data, fake_python):
    fake_python("kill -9 $$")
    with pytest.raises(InstallationError, match="pip failed, because it was killed by SIGKILL"):
        install(RECIPE)


def test_pip_gets_the_configuration_of_the_user_but_no_other_place(data, fake_python, monkeypatch):
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    fake_python('env; echo "arguments: $*"; exit 1')
    with pytest.raises(InstallationError):
        install(RECIPE)
    log = (data / "environments" / "sevennet.log").read_text()
    assert "PIP_INDEX_URL=https://mirror.example" in log
    assert "PIP_TARGET" not in log
    assert "PYTHONHOME" not in log
    assert f"TMPDIR={data}/environments/sevennet/tmp" in log
    assert "arguments: -I -m pip install --disable-pip-version-check --no-input" in log


def test_full_disk_is_told_beforehand(data, wheels, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**8))
    with pytest.raises(InstallationError, match=r"needs \d.\d GB .* has 0.1 GB left: .*HYBRIDCSP_DATA"):
        install(RECIPE, wheels=wheels)
    assert not (data / "environments" / "sevennet").exists()


@pytest.mark.skipif(not os.path.lexists("/proc/self"), reason="needs a file system that even root cannot write to")
def test_read_only_data_folder(monkeypatch, wheels):
    monkeypatch.setenv("HYBRIDCSP_DATA", "/proc/self")
    assert environment("sevennet") is None
    assert listed() == []
    with pytest.raises(InputError, match=r"/proc/\d+/environments.*cannot be made"):
        install(RECIPE, wheels=wheels)


def test_relative_data_folder_is_refused(monkeypatch):
    monkeypatch.setenv("HYBRIDCSP_DATA", "data")
    with pytest.raises(InputError, match="HYBRIDCSP_DATA = 'data' is not valid: it must be the absolute path"):
        data_folder()


def test_data_folder_of_the_platform(monkeypatch):
    monkeypatch.delenv("HYBRIDCSP_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/of/mine")
    assert data_folder().name == "hybridcsp"


def test_own_link_to_the_data_folder_is_followed(data, tmp_path):
    (tmp_path / "large disk").mkdir()
    data.symlink_to(tmp_path / "large disk")
    folder = made_by_hand(tmp_path / "large disk")
    assert environment("sevennet").folder == folder


def test_link_that_another_user_may_have_made_is_refused(data, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    made_by_hand(tmp_path / "theirs")
    (shared / "data").symlink_to(tmp_path / "theirs")
    monkeypatch.setenv("HYBRIDCSP_DATA", str(shared / "data"))
    for action in (lambda: environment("sevennet"), listed, lambda: install(RECIPE), lambda: remove("sevennet")):
        with pytest.raises(InputError, match="another user may have created"):
            action()
    assert (tmp_path / "theirs" / "environments" / "sevennet" / "bin").is_dir()


@pytest.mark.parametrize("level", ["environments", "environments/sevennet"])
def test_links_within_the_data_folder_are_refused(data, tmp_path, level):
    folder = made_by_hand(data)
    folder.parent.rename(tmp_path / "elsewhere")
    if level == "environments":
        (data / "environments").symlink_to(tmp_path / "elsewhere")
    else:
        (data / "environments").mkdir()
        (data / "environments" / "sevennet").symlink_to(tmp_path / "elsewhere" / "sevennet")
    for action in (lambda: environment("sevennet"), lambda: install(RECIPE), lambda: remove("sevennet")):
        with pytest.raises(InputError, match="not a symbolic link"):
            action()
    assert (tmp_path / "elsewhere" / "sevennet" / "bin").is_dir()


def test_folder_that_everybody_can_write_is_refused(data):
    folder = made_by_hand(data)
    folder.chmod(0o777)
    with pytest.raises(InputError, match="everybody has the right to write"):
        environment("sevennet")
    folder.chmod(stat.S_IRWXU)
    assert environment("sevennet") is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_folder_of_another_user_is_refused(data):
    folder = made_by_hand(data)
    os.chown(folder, 12345, 12345)
    with pytest.raises(InputError, match="belongs to the user 12345"):
        environment("sevennet")
    assert listed() == []


def test_interpreter_that_has_gone(data):
    folder = made_by_hand(data)
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to("/opt/removed/python3.11")
    with pytest.raises(CalculatorError, match=r"/opt/removed/python3.11 does not exist.*install sevennet"):
        environment("sevennet")
    assert "unusable" in listed()[0].state


def test_interpreter_that_was_replaced_by_another_version(data, tmp_path):
    folder = made_by_hand(data)
    (tmp_path / "python3.13").write_text("")
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to(tmp_path / "python3.13")
    with pytest.raises(CalculatorError, match=r"was replaced; it was made with Python 3.11"):
        environment("sevennet")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"packages": 1}', "[" * 1000])
def test_damaged_description_means_incomplete(data, text):
    (made_by_hand(data) / "environment.json").write_text(text)
    assert environment("sevennet") is None
    assert not listed()[0].complete


@pytest.mark.parametrize("name", ["", "..", "../sevennet", "my.module", "SevenNet", "a" * 300, "nul\0"])
def test_texts_that_are_no_names_have_no_environment(data, name):
    made_by_hand(data)
    assert environment(name) is None


def test_environment_in_use_is_not_removed(data):
    folder = made_by_hand(data)
    (folder / "bin" / "python").unlink()
    shutil.copy("/bin/sleep", folder / "bin" / "python")
    process = subprocess.Popen([folder / "bin" / "python", "60"])
    try:
        with pytest.raises(InstallationError, match=f"in use by process {process.pid}"):
            remove("sevennet")
        assert environment("sevennet") is not None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    remove("sevennet")
    assert not folder.exists()


def test_environment_removed_while_its_calculator_is_used(data):
    """A running calculator server goes on; a new one is refused with a sentence, before any relaxation."""
    folder = made_by_hand(data)
    calculator = CalculatorChoice(calculator="sevennet")
    assert find_interpreter(calculator).path == f"{folder}/bin/python"
    shutil.rmtree(folder)
    assert find_interpreter(calculator) is None
    with pytest.raises(CalculatorError, match=r"sevenn .*hybridcsp calculators install sevennet"):
        build_calculator(calculator)
    with pytest.raises(CalculatorError, match="hybridcsp calculators install sevennet"):
        run_trial(calculator)
