"""The choice of a calculator: its options, and calculator files."""

import re

import pytest
from ase.calculators.emt import EMT

from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice, absolute_calculator
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator, runs_code


def file(folder, text):
    path = folder / "calculator.toml"
    path.write_text(text)
    return path


def test_calculator_file_gives_the_choice_and_its_paths_are_relative_to_it(tmp_path):
    text = 'calculator = "mace:models/a.model"\npython = "envs/bin/python"\ndevice = "cuda:1"\nprecision = "float32"'
    choice = CalculatorChoice.read(file(tmp_path, text))
    assert choice == CalculatorChoice(
        calculator=f"mace:{tmp_path}/models/a.model",
        python=f"{tmp_path}/envs/bin/python",
        device="cuda:1",
        precision="float32",
    )
    assert CalculatorChoice.read(file(tmp_path, 'calculator = "emt"\npython = "python3"')).python == "python3"


def test_link_to_an_interpreter_is_kept(tmp_path):
    (tmp_path / "python").symlink_to("/bin/sh")
    choice = CalculatorChoice.read(file(tmp_path, 'calculator = "emt"\npython = "./python"'))
    assert choice.python == str(tmp_path / "python")


def test_name_of_a_calculator_file_stands_for_it_and_options_replace_its_own(tmp_path):
    path = str(file(tmp_path, 'calculator = "emt"\ndevice = "cuda"\nprecision = "float64"'))
    assert CalculatorChoice.of(path) == CalculatorChoice(calculator="emt", device="cuda", precision="float64")
    assert CalculatorChoice.of(CalculatorChoice(calculator=path, device="cpu")).options == {
        "device": "cpu",
        "precision": "float64",
    }
    _, label = build_calculator(CalculatorChoice(calculator=path, device="cpu"))
    assert label == build_calculator("emt")[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("calculator = ", "a calculator file that can be read|cannot be used"),
        ("", "calculator is missing: it must be the name of a calculator"),
        ("calculator = 3", "calculator = 3 is not valid: it must be the name of a calculator"),
        ('calculator = "other.toml"', "must be the name of a calculator"),
        ('calculator = "emt"\ndevise = "cuda"', "devise = 'cuda' cannot be used.*did you mean 'device'"),
        ('calculator = "emt"\nprecision = "double"', "precision = 'double' is not valid: it must be one of float32"),
        ('calculator = "emt"\npython = ["a"]', "python = .* is not valid"),
        ('calculator = "emt"\ndevice = ""', "device = '' is not valid"),
    ],
)
def test_mistake_in_a_calculator_file_names_file_and_key(tmp_path, text, words):
    path = file(tmp_path, text)
    with pytest.raises(InputError, match=words) as raised:
        CalculatorChoice.of(str(path))
    assert str(path) in str(raised.value)
    assert str(path) in str(raised.value.renamed("then"))


def test_missing_calculator_file_is_told(tmp_path):
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "vasp.toml"))):
        CalculatorChoice.of(str(tmp_path / "vasp.toml"))


def test_calculator_file_runs_code_if_it_names_code_or_an_interpreter(tmp_path):
    for text, code in (
        ('calculator = "emt"', False),
        ('calculator = "emt"\ndevice = "cuda"', False),
        ('calculator = "emt"\npython = "python3"', True),
        ('calculator = "module:make"', True),
    ):
        assert runs_code(str(file(tmp_path, text))) is code


def test_choice_is_shown_with_its_options():
    assert str(CalculatorChoice(calculator="emt")) == "emt"
    assert str(CalculatorChoice(calculator=EMT())) == "EMT"
    assert str(CalculatorChoice(calculator=EMT, python="p", device="cuda")) == "EMT (python p, device cuda)"


def test_paths_in_names_of_calculators_become_absolute(tmp_path):
    (tmp_path / "here.model").touch()
    (tmp_path / "medium-mpa-0").touch()  # the name of a model is not taken for that of a file or folder
    (tmp_path / "l3i5").mkdir()
    for text, absolute in (
        ("emt", "emt"),
        ("vasp.toml", f"{tmp_path}/vasp.toml"),
        ("mace:here.model", f"mace:{tmp_path}/here.model"),
        ("mace:./there.model", f"mace:{tmp_path}/there.model"),
        ("mace:medium-mpa-0", "mace:medium-mpa-0"),
        ("mace:./medium-mpa-0", f"mace:{tmp_path}/medium-mpa-0"),
        ("sevennet:l3i5", "sevennet:l3i5"),
        ("module:factory", "module:factory"),
    ):
        assert absolute_calculator(text, tmp_path) == absolute


@pytest.mark.parametrize("text", ['python = "~no_such_user/bin/python"', 'python = "~no_such_user"'])
def test_home_of_an_unknown_user_is_a_file_that_is_not_there(tmp_path, text):
    (tmp_path / "emt.toml").write_text(f'calculator = "emt"\n{text}')
    with pytest.raises(InputError, match="there is no such file"):
        check_calculator(str(tmp_path / "emt.toml"))
    with pytest.raises(InputError, match="cannot be opened"):
        check_calculator("~no_such_user/emt.toml")
    with pytest.raises(CalculatorError, match="neither a model file"):
        check_calculator("mace:~no_such_user/my.model")
