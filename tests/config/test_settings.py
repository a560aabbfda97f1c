import re
import sys
import tomllib
from contextlib import nullcontext

import pytest

from hybridcsp import Search, config
from hybridcsp.config.errors import ConfigurationError, Origin, key_lines
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.search.follow_up import FollowUp


def parse(text, where="search.toml"):
    return config.parse(tomllib.loads(text), where)


def test_defaults_of_a_formula():
    configuration = parse('problem.formula = "TiO2"')
    assert configuration.problem.units == (1, 2, 3, 4)
    assert configuration.search.calculator == "chgnet"
    assert configuration.budget.relaxations == 100


def test_dimension_of_earlier_versions_is_read():
    assert parse('problem = {formula = "Cu", dimension = 3}').problem.formula == "Cu"
    with pytest.raises(InputError, match=r"problem\.dimension cannot be used: there is no such key"):
        parse('problem = {formula = "Cu", dimension = 2}')


def test_every_table_is_read():
    configuration = parse(
        """
        [problem]
        formula = "TiO2"
        formula_units = 2
        pressure_gpa = 5
        min_distances = { Ti-O = 1.6 }
        [search]
        calculator = "emt"
        sources = ["random"]
        seed = 7
        [budget]
        force_calls = 1000
        stop_at = -9.4
        [relaxation]
        max_force = 0.02
        [limits]
        force_calls = 99
        """
    )
    assert configuration.problem.units == (2,)
    assert configuration.problem.min_distance("O", "Ti") == 1.6
    assert (configuration.budget.force_calls, configuration.budget.relaxations) == (1000, None)
    assert (configuration.relaxation.max_force, configuration.limits.force_calls) == (0.02, 99)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('problem.formula = "Ti0"', "problem.formula = 'Ti0' cannot be used: it contains no atom of Ti"),
        ("search.seed = 1", "problem is missing."),
        (
            'problem = {formula = "Cu", max_atomz = 3}',
            "problem.max_atomz cannot be used: there is no such key; did you mean 'max_atoms'?",
        ),
        (
            'problem.formula = "Cu"\nserch.seed = 1',
            "serch cannot be used: there is no such key; did you mean 'search'?",
        ),
        (
            'problem.formula = "Cu"\nsearch.workrs = 1',
            "search.workrs cannot be used: there is no such key; did you mean 'workers'?",
        ),
        ('problem.formula = "Cu"\nbudget.relaxation = 1', "did you mean 'relaxations'?"),
        ('problem.formula = "Cu"\nsearch.workers = 0', "search.workers = 0"),
        ('problem.formula = "Cu"\nbudget.relaxations = "many"', "budget.relaxations = 'many'"),
        ('problem = {formula = "Cu", max_atoms = 2.5}', "problem.max_atoms = 2.5"),
        ('problem = {formula = "Cu", volume_per_atom = [20, 10]}', "the smaller first"),
        ('problem.formula = "Cu"\nrelaxation.max_force = -1', "relaxation.max_force = -1"),
        ('problem.formula = "Cu"\nbudget.stop_at = "nothing.cif"', "a structure file that exists"),
    ],
)
def test_error_shows_key_and_allowed_values(text, message):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_error_lists_all_mistakes():
    with pytest.raises(InputError) as caught:
        parse('problem = {formula = "Cu", max_atomz = 3}\nsearch.workers = 0')
    assert "2 mistakes" in str(caught.value)
    assert "max_atomz" in str(caught.value)
    assert "search.workers" in str(caught.value)


@pytest.mark.parametrize("content", [None, "formula = ", "\x00\xff"])
def test_invalid_toml_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "search.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"it (is not|cannot be)"):
        config.read(tmp_path / "search.toml")


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "seeds.cif").write_text("")
    (tmp_path / "search.toml").write_text(
        'problem.formula = "Cu"\nsearch = {directory = "run", sources = ["random", "seeds:seeds.cif"]}'
    )
    raw = config.read(tmp_path / "search.toml")
    assert raw["search"]["directory"] == str(tmp_path / "run")
    assert raw["search"]["sources"] == ["random", f"seeds:{tmp_path / 'seeds.cif'}"]


def test_missing_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    """A file of the same name in the working directory is not used."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "seeds.cif").write_text("")
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "search.toml").write_text(
        'problem.formula = "Cu"\nsearch.sources = ["seeds:seeds.cif", "wyckoff:./mine", "evolution:strain"]\n'
        'budget.stop_at = "target.cif"'
    )
    raw = config.read(tmp_path / "search.toml")
    assert raw["search"]["sources"] == [f"seeds:{tmp_path}/seeds.cif", f"wyckoff:{tmp_path}/mine", "evolution:strain"]
    assert raw["budget"]["stop_at"] == str(tmp_path / "target.cif")


def test_quantities_with_units():
    configuration = parse(
        """
        problem = { formula = "TiO2", pressure_gpa = "500 kbar", min_distances = { Ti-O = "1.7 Å" } }
        budget.hours = "30min"
        limits = { seconds = "10 min", memory = "4 GiB" }
        """
    )
    assert configuration.problem.pressure_gpa == 50
    assert configuration.problem.min_distances == {"Ti-O": 1.7}
    assert configuration.budget.hours == 0.5
    assert (configuration.limits.seconds, configuration.limits.memory) == (600, 4 * 1024**3)


def test_error_lists_mistakes_of_all_kinds_with_their_lines():
    text = """[problem]
formula = "TiO2"
pressure = 5
workers = 3
max_atoms = true
min_atoms = "many"
volume_per_atom = [20, 10]
angle_bounds = [20, 190]
[search]
calculator = "CHGNet"
sources = ["random", "sedes"]
relaxations = 3
[budget]
hours = "8 eV"
refine = -3
[relaxation]
fixed_cell = 1
"""
    with pytest.raises(InputError) as caught:
        config.parse(tomllib.loads(text), Origin("my.toml", lines=key_lines(text)))
    listed = str(caught.value).splitlines()
    for expected in (
        "problem.pressure (line 3) cannot be used: there is no such key; did you mean 'pressure_gpa'?",
        "problem.workers (line 4) cannot be used: there is no such key; it belongs in the table [search]",
        "problem.max_atoms (line 5) = True cannot be used: this key takes no truth value (true, false)",
        "problem.min_atoms (line 6) = 'many' is not valid: it must be a whole number",
        "problem.volume_per_atom (line 7)",
        "problem.angle_bounds (line 8)",
        "search.calculator (line 10) = 'CHGNet' cannot be used: did you mean 'chgnet'?",
        "search.sources.1 (line 11) = 'sedes' cannot be used: did you mean 'seeds'?",
        "search.relaxations (line 12) cannot be used: there is no such key; it belongs in the table [budget]",
        "budget.hours (line 14) = '8 eV' is not valid: it must be a time in hours",
        "budget.refine (line 15) = -3",
        "relaxation.fixed_cell (line 17) cannot be used: there is no such key",
    ):
        assert sum(line.strip().startswith(expected) for line in listed) == 1, expected
    assert len(listed) == 13


def test_consequences_of_a_mistake_are_not_listed():
    """Eight formula units exceed the default of max_atoms, which replaces the wrong value."""
    with pytest.raises(InputError, match="1 mistake:"):
        parse('problem = { formula = "TiO2", formula_units = 8, max_atoms = -1 }')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'pressure_gpa = 5\nproblem.formula = "Cu"',
            "pressure_gpa cannot be used: there is no such key; it belongs in the table [problem]",
        ),
        ('problem.formula = "Cu"\nrelaxation.fmax = 0.1', "did you mean 'max_force'?"),
        ('problem.formula = "Cu"\nproblem.potential = "emt"', "did you mean 'calculator' in [search]?"),
        ('problem.formula = "Cu"\nsearch.sources = "random"', "a list, in brackets"),
        ('problem.formula = "Cu"\nsearch.sources = []', "at least one"),
        ('problem.formula = "Cu"\nsearch.allocation = "eqaul"', "did you mean 'equal'"),
        ('problem.formula = "Cu"\nsearch.sources = ["seeds:"]', "NAME:ARGUMENT"),
        ("problem = 3", "problem = 3 is not valid: it must be a table"),
    ],
)
def test_misplaced_keys_and_values_of_wrong_types(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse(text)


def test_symbolic_links_are_kept(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "python3.11").write_text("")
    (tmp_path / "venv" / "python").symlink_to("../python3.11")  # by its own path Python knows its environment
    (tmp_path / "search.toml").write_text(
        'problem.formula = "Cu"\nsearch.directory = "run"\n[external.gen]\ncommand = ["venv/python", "{output}"]\n'
    )
    command = config.read(tmp_path / "search.toml")["external"]["gen"]["command"]
    assert command[0] == str(tmp_path / "venv" / "python")


def test_resolved_configuration_gives_the_same_search(tmp_path):
    text = 'problem = {formula = "Cu", pressure_gpa = 3}\nsearch = {calculator = "emt", seed = 4}\nbudget.hours = 1.5'
    configuration = parse(text)
    configuration = configuration.model_copy(
        update={"search": configuration.search.model_copy(update={"directory": str(tmp_path / "run")})}
    )
    configuration.build(trust=False).close()
    again = config.parse(config.read(tmp_path / "run" / "config.toml"), "again")
    assert again == configuration
    assert config.of_directory(tmp_path / "run") == configuration
    again.build(trust=False).close()  # the archive agrees


def test_search_made_in_python_is_resumed_from_its_archive(tmp_path):
    with Search("Cu", calculator="emt", directory=tmp_path, seed=3, max_atoms=4) as search:
        problem = search.problem
    configuration = config.of_directory(tmp_path)
    assert configuration.problem == problem
    assert configuration.search.seed == 3


def test_search_made_of_python_objects_has_no_configuration(tmp_path):
    from ase.calculators.emt import EMT

    Search("Cu", calculator=EMT(), directory=tmp_path).close()
    with pytest.raises(ArchiveError, match="resume it in Python"):
        config.of_directory(tmp_path)


def test_code_named_in_a_file_needs_trust(tmp_path):
    search = f'{{calculator = "ase.calculators.emt:EMT", directory = "{tmp_path / "r"}"}}'
    text = f'problem.formula = "Cu"\nsearch = {search}'
    with pytest.raises(InputError, match="add --trust"):
        parse(text).build(trust=False)
    assert not (tmp_path / "r").exists()
    parse(text).build(trust=True).close()


def test_executor_named_in_a_file_needs_trust_and_is_kept(tmp_path, monkeypatch):
    text = 'problem.formula = "Cu"\nsearch = {calculator = "emt", sources = ["random"], executor = "dask:jobs.json"}'
    (tmp_path / "search.toml").write_text(text)
    configuration = config.parse(config.read(tmp_path / "search.toml"), "search.toml")
    assert configuration.search.executor == f"dask:{tmp_path / 'jobs.json'}"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--trust, or name it with --executor"):
        configuration.build(trust=False)
    with configuration.build(trust=False, named=["search.executor"]) as search:
        assert search.workers is None
    assert config.of_directory(tmp_path / "Cu").search.executor == configuration.search.executor
    (tmp_path / "Cu" / "config.toml").unlink()
    assert config.of_directory(tmp_path / "Cu").search.executor == configuration.search.executor
    with pytest.raises(ConfigurationError, match="did you mean 'dask'"):
        parse(text.replace("dask", "dusk"))


def test_interpreter_named_in_a_file_needs_trust_and_is_not_started_without(tmp_path):
    started = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {started}\n")
    python.chmod(0o755)
    named = tmp_path / "emt.toml"
    named.write_text('calculator = "emt"\npython = "./python"')
    for tables in (
        f'search.calculator = "emt"\nsearch.python = "{python}"',
        f'search.calculator = "{named}"',
        f'search.calculator = "emt"\nthen.calculators = ["{named}"]',
    ):
        text = f'problem.formula = "Cu"\n{tables}\nsearch.directory = "{tmp_path / "r"}"'
        words = r"(search\.(python|calculator)|then\.calculators) = .* it runs code .*, or name it with --"
        with pytest.raises(InputError, match=words):
            parse(text).build(trust=False)
        assert not started.exists()
        with pytest.raises(InputError, match="this is not a Python interpreter"):
            parse(text).build(trust=True)
        assert started.exists()
        started.unlink()
    assert not (tmp_path / "r").exists()


def test_functions_named_in_a_file_need_trust_and_are_not_imported_without(tmp_path):
    executed, functions = tmp_path / "executed", tmp_path / "own.py"
    functions.write_text(f"open({str(executed)!r}, 'w').close()\ndef size(atoms):\n    return len(atoms)\n")
    head = f'problem.formula = "Cu"\nsearch.calculator = "emt"\nsearch.directory = "{tmp_path / "r"}"\n'
    for objectives in (
        f'[[objectives]]\nobjective = "{functions}:size"\ngoal = "max"',
        f'search.objectives = ["{functions}:size:max"]',
    ):
        file = tmp_path / "search.toml"
        file.write_text(head + objectives)
        configuration = config.parse(config.read(file), str(file))
        with pytest.raises(InputError, match=r"search\.objectives = .* add --trust, or name it with --objective"):
            configuration.build(trust=False)
        assert not executed.exists()
    configuration.build(trust=True).close()
    assert executed.exists()


@pytest.mark.parametrize(
    ("named", "refused"),
    [
        ((), r"search\.python"),
        (("search.python",), r"search\.calculator"),
        (("search.calculator", "then.calculators"), r"search\.python"),
        (("search.python", "search.calculator"), r"then\.calculators"),
        (("search.python", "search.calculator", "then.calculators"), None),
    ],
)
def test_only_code_that_the_user_has_not_named_needs_trust(named, refused):
    text = 'problem.formula = "Cu"\nsearch.calculator = "ase.calculators.emt:EMT"\n'
    text += f'search.python = "{sys.executable}"\nthen.calculators = ["lj", "ase.calculators.lj:LennardJones"]'
    with nullcontext() if refused is None else pytest.raises(InputError, match=f"{refused} = .* add --trust"):
        parse(text).check_trust(trust=False, trust_commands=False, named=named)


def test_options_of_the_calculator_are_written_with_absolute_paths_and_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    raw = config.with_absolute_paths(
        {
            "problem": {"formula": "Cu"},
            "search": {"calculator": "emt", "python": "./python", "precision": "float64", "directory": "r"},
        },
        tmp_path,
    )
    config.parse(raw, "search.toml").build(trust=True).close()
    (tmp_path / "r/config.toml").rename(tmp_path / "r/old.toml")
    for again in (config.parse(config.read(tmp_path / "r/old.toml"), "old"), config.of_directory(tmp_path / "r")):
        assert again.search.choice == CalculatorChoice(
            calculator="emt", python=str(tmp_path / "python"), precision="float64"
        )


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (
            'calculator = "chgnet"\npython = "/bin/sh"',
            "search.python = '/bin/sh' cannot be used: the calculator chgnet",
        ),
        ('python = "/nothing"', "search.python = '/nothing' cannot be used: there is no such file"),
        ('precision = "double"', "search.precision = 'double' is not valid"),
        ('calculator = "chgnt"\nseed = -1', "search.calculator = 'chgnt' cannot be used: did you mean 'chgnet'"),
    ],
)
def test_mistake_in_options_of_the_calculator_names_its_key(search, words):
    with pytest.raises(InputError, match=words):
        parse(f'problem.formula = "Cu"\n[search]\n{search}')


def test_module_of_another_interpreter_is_not_searched_for_in_this_one():
    text = f'problem.formula = "Cu"\n[search]\ncalculator = "not_here:make"\npython = "{sys.executable}"'
    assert parse(text).search.choice.python == sys.executable


def test_empty_directory_cannot_be_resumed(tmp_path):
    with pytest.raises(ArchiveError, match="holds no search"):
        config.of_directory(tmp_path)


class TestExternalCommands:
    TEXT = """
        problem.formula = "Cu"
        search.sources = ["random", "external:mattergen"]
        [external.mattergen]
        command = ["tool/run.sh", "--formula", "{formula}", "--output", "{output}"]
        timeout = 30
        """

    def test_paths_in_commands_are_relative_to_the_file(self, tmp_path):
        (tmp_path / "tool").mkdir()
        (tmp_path / "tool" / "run.sh").touch()
        (tmp_path / "mattergen").mkdir()  # no source: the command has the name
        (tmp_path / "search.toml").write_text(self.TEXT)
        raw = config.read(tmp_path / "search.toml")
        configuration = config.parse(raw, "search.toml")
        assert configuration.search.sources == ("random", "external:mattergen")
        command = configuration.external["mattergen"]
        assert command.command == (str(tmp_path / "tool" / "run.sh"), "--formula", "{formula}", "--output", "{output}")
        assert command.timeout == 30

    def test_commands_need_trust(self, tmp_path):
        configuration = parse(self.TEXT)
        with pytest.raises(InputError, match="runs a program; if you trust it, add --trust"):
            configuration.build(trust=True)
        assert not list(tmp_path.iterdir())

    def test_commands_are_sources_and_are_kept_in_the_run_directory(self, tmp_path):
        text = self.TEXT.replace("search.sources", f"search.directory = '{tmp_path}'\n        search.sources")
        with parse(text).build(trust=True, trust_commands=True) as search:
            assert list(search.sources) == ["random", "mattergen"]
        again = config.of_directory(tmp_path)
        assert again.external == parse(text).external
        (tmp_path / "config.toml").unlink()
        assert config.of_directory(tmp_path).external == again.external

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("timeout = -1", "external.mattergen.timeout = -1"),
            ("comand = 1", "did you mean 'command'"),
        ],
    )
    def test_mistakes_in_a_command_are_listed(self, change, message):
        with pytest.raises(InputError, match=re.escape(message)):
            parse(self.TEXT.replace("timeout = 30", change))


def test_table_of_retraining(tmp_path):
    configuration = parse('problem.formula = "Cu"\nretraining = { new_minima = 7, weighting = "best" }')
    assert (configuration.retraining.new_minima, configuration.retraining.weighting) == (7, "best")
    with pytest.raises(InputError, match=r"retraining.weighting = 'bset' cannot be used: did you mean 'best'"):
        parse('problem.formula = "Cu"\nretraining.weighting = "bset"')


@pytest.mark.parametrize("part", ["x" * 5000, "~nobody-of-this-name/mine.py"])
def test_parts_of_a_command_that_cannot_be_paths_are_kept(tmp_path, part):
    (tmp_path / "a.toml").write_text(f'[external.mine]\ncommand = ["python", "{part}", "{{output}}"]\n')
    assert config.read(tmp_path / "a.toml")["external"]["mine"]["command"][1] == part


def test_table_of_follow_ups(tmp_path):
    text = """
    [problem]
    formula = "Cu"
    [search]
    calculator = "emt"
    [then]
    calculators = ["lj", "mace:near.model"]
    window = "50 meV/atom"
    every = 20
    counts = true
    """
    (tmp_path / "search.toml").write_text(text)
    (tmp_path / "near.model").write_text("")
    parsed = config.parse(config.read(tmp_path / "search.toml"), "search.toml")
    assert parsed.then.calculators == ("lj", f"mace:{tmp_path / 'near.model'}")
    assert (parsed.then.window, parsed.then.every, parsed.then.counts, parsed.then.best) == (0.05, 20, True, 20)
    with pytest.raises(InputError, match="--then"):
        parsed.check_trust(trust=False, trust_commands=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('calculators = ["etm"]', "calculators = 'etm' cannot be used: did you mean 'emt'?"),
        ('calculators = "emt"', "calculators = 'emt'"),
        ("best = 0", "best = 0 is not valid: it must be a whole number from 1"),
        ("window = -1", "window = -1.0 is not valid: it must be a number of eV/atom from 0"),
        ("windw = 1", "did you mean 'window'?"),
        ("best = true", "this key takes no truth value"),
        ("counts = true", "set every = N too"),
    ],
)
def test_mistakes_in_the_table_of_follow_ups_are_told(line, message):
    with pytest.raises(InputError) as caught:
        config.parse(tomllib.loads(f"[problem]\nformula = 'Cu'\n[then]\n{line}\n"), "search.toml")
    assert message in str(caught.value)


def test_follow_ups_are_kept_in_the_run_directory(tmp_path):
    raw = {"problem": {"formula": "Cu"}, "search": {"calculator": "emt", "directory": str(tmp_path)}}
    with config.parse(raw, "here").build(trust=False):
        assert "[then]" not in (tmp_path / "config.toml").read_text()
    with config.parse({**raw, "then": {"calculators": ["lj"], "best": 7}}, "here").build(trust=False):
        pass
    assert config.of_directory(tmp_path).then == FollowUp(calculators=("lj",), best=7)
    (tmp_path / "config.toml").unlink()
    assert config.of_directory(tmp_path).then == FollowUp(calculators=("lj",), best=7)  # from the archive


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'problem = {elements = "Cu-Au", spacegroups = [136]}',
            "problem.spacegroups cannot be used: it belongs to a search of one formula",
        ),
        (
            'problem = {formula = "Cu3Au", compositions = ["CuAu"]}',
            "problem.compositions cannot be used: it belongs to a search of a chemical system",
        ),
    ],
)
def test_key_of_the_other_kind_of_problem_is_not_called_unknown(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse(text)
