"""DFT files: what they may hold, and how energies of different settings are kept apart."""

import re
import tomllib

import numpy as np
import pytest
from ase.build import bulk, make_supercell
from dft_programs import calculations, dft_file, fake_pw, program

from hybridcsp import Search, config
from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice, absolute_calculator
from hybridcsp.relaxation.calculators.dft.codes import CODES, read_dft_file, template
from hybridcsp.relaxation.calculators.dft.kpoints import kpoint_grid
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator, parameters_ahead, runs_code


@pytest.fixture
def pw(tmp_path):
    return fake_pw(tmp_path / "espresso")


def test_grids_of_k_points_are_those_of_vasp_and_as_dense_in_supercells():
    silicon = bulk("Si", a=5.43)  # VASP's example: |b| = 2π √3 / a
    assert kpoint_grid(silicon.cell.array, 0.5) == (5, 5, 5)
    double = make_supercell(silicon, np.diag([2, 1, 4]))
    assert kpoint_grid(silicon.cell.array, 0.25) == (9, 9, 9)
    assert kpoint_grid(double.cell.array, 0.25) == (5, 9, 3)
    assert kpoint_grid(np.diag([50.0, 50.0, 50.0]), 0.5) == (1, 1, 1)


def test_rounding_of_a_cell_does_not_change_its_grid():
    edge = 2 * np.pi / 0.5  # exactly one k-point
    assert kpoint_grid(np.diag([edge * (1 - 1e-9), edge * (1 + 1e-9), edge]), 0.5) == (1, 1, 1)


def test_file_stands_for_a_calculator_wherever_a_name_can(tmp_path, pw, monkeypatch):
    path = dft_file(tmp_path / "dft.toml")
    choice = CalculatorChoice.of(str(path))
    assert choice.calculator == f"dft:{path}"
    assert CalculatorChoice.of(choice) == choice
    check_calculator(str(path))
    monkeypatch.chdir(tmp_path)
    assert build_calculator("dft.toml")[1] == build_calculator(f"dft:{path}")[1]
    assert absolute_calculator("dft:dft.toml", tmp_path) == f"dft:{path}"
    with pytest.raises(InputError, match="calculator"):
        check_calculator("dft")


@pytest.mark.parametrize("code", CODES)
def test_template_of_each_code_is_a_file_with_every_key_explained(code, tmp_path):
    text = template(code)
    raw = tomllib.loads(text)
    assert raw["code"] == code
    assert all("#" in line for line in text.splitlines() if line.startswith(("kspacing", "cutoff", "command")))
    if code == "cp2k":
        (tmp_path / "library").write_text("Si GTH-PBE-q4 GTH-PBE\nSi DZVP-MOLOPT-SR-GTH DZVP\n")
        text = re.sub(r'file = ".*"', 'file = "library"', text)
    else:
        (tmp_path / "files").mkdir()
        text = re.sub(r'folder = ".*"', 'folder = "files"', text)
    (tmp_path / "dft.toml").write_text(text)
    (settings,) = read_dft_file(tmp_path / "dft.toml").stages
    assert settings.kspacing == 0.25
    stages = re.sub(r"^# (?=\[\[stages|kspacing|cutoff|max_force)", "", text, flags=re.MULTILINE)
    (tmp_path / "dft.toml").write_text(stages)
    coarse, fine = read_dft_file(tmp_path / "dft.toml").stages
    assert (coarse.max_force, fine) == (0.3, settings)
    assert coarse.cutoff < fine.cutoff


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"code": "espresso"}, "code = 'espresso' .*one of abinit, cp2k, gpaw, quantum-espresso, vasp"),
        ({"command": "pw.x; rm -r ~"}, "command = 'pw.x; rm -r ~'"),
        ({"command": []}, "command = "),
        ({"kspacing": None}, "kspacing is missing.*template quantum-espresso"),
        ({"kspacing": -1}, "kspacing = -1"),
        ({"cutoff": "12 Rydberg"}, "cutoff = '12 Rydberg' is not valid: it must be a number of eV, or a text such as"),
        ({"version": "7.4"}, "version = '7.4' cannot be used: quantum-espresso is asked for its version"),
        ({"cutoff": True}, "cutoff = True is not valid: it must be a number of eV"),
        (
            {"moments": {"fe": 5.0}},
            "moments.fe = 5.0 is not valid: it must be a number of μ_B by the symbol",
        ),
        ({"cut_off": 3}, "cut_off = 3 cannot be used: .*did you mean 'cutoff'"),
        ({"smearing": {"kind": "fermi"}}, "smearing.kind = 'fermi'"),
        ({"keep": "some"}, "keep = 'some'"),
        ({"keywords": {"ecutwfc": 30}}, "keywords.ecutwfc = 30 cannot be used: .*use the key cutoff for it"),
        ({"keywords": {"control": {"outdir": "/"}}}, "keywords.control.outdir = '/' cannot be used"),
        ({"keywords": {"ecutfwc": 30}}, "keywords.ecutfwc = 30 cannot be used: pw.x has no such keyword"),
        ({"keywords": {"occupations": "tetrahedra"}}, "keywords.occupations = 'tetrahedra' .*set smearing = false"),
        ({"keywords": {"system": {"occupations": "fixed"}}}, "keywords.occupations = 'fixed' .*set smearing = false"),
        ({"pseudopotentials": {"folder": "nowhere", "Si": "Si.UPF"}}, "folder = .*nowhere' is not valid"),
        ({"pseudopotentials": {"folder": "espresso"}}, "pattern is missing"),
        ({"pseudopotentials": {"folder": "espresso", "pattern": "*.UPF"}}, "pattern = .*contains {element} once"),
        ({"pseudopotentials": {"folder": "espresso", "Si": "../Si.UPF"}}, "Si = '../Si.UPF' is not valid"),
        ({"stages": [{"keep": "all"}, {}]}, "stages.1.keep = 'all' cannot be used"),
        ({"stages": [{"cutoff": -2}, {}]}, "stages.1.cutoff = -2"),
        ({"stages": [{}, {"max_force": 0.1}]}, "max_force = 0.1 cannot be used: the last stage ends where"),
        ({"stages": []}, "stages = .*a list of tables"),
    ],
)
def test_mistake_names_the_file_and_the_key(tmp_path, pw, keys, words):
    path = dft_file(tmp_path / "dft.toml", **keys)
    with pytest.raises(InputError, match=words) as raised:
        CalculatorChoice.of(str(path))
        check_calculator(str(path))
    assert str(path) in str(raised.value)


def test_program_that_is_missing_is_told_before_anything_starts(tmp_path, pw):
    path = dft_file(tmp_path / "dft.toml", command=["./nothing"])
    with pytest.raises(InputError, match=r"command = './nothing' is not valid: it must be the path of a program"):
        check_calculator(str(path))


def test_every_element_of_the_problem_needs_a_pseudopotential_before_the_search_starts(tmp_path, pw):
    path = dft_file(tmp_path / "dft.toml")
    with pytest.raises(InputError, match=r"pseudopotentials.O is missing"):
        Search("SiO2", calculator=str(path), directory=tmp_path / "run", workers=1)
    with pytest.raises(InputError, match=r"pseudopotentials.C is missing"):
        Search("SiC", calculator="chgnet", then=str(path), directory=tmp_path / "run", workers=1)
    with pytest.raises(InputError, match="spin = False cannot be used: the structures have initial magnetic moments"):
        Search("Si", calculator=str(path), initial_magmoms={"Si": 1.0}, directory=tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()
    assert not calculations(pw)


def test_rule_for_names_finds_one_file_of_each_element(tmp_path, pw):
    for name in ("S.pbe.UPF", "si_pbe.UPF", "Si.UPF", "Ti_1.UPF", "Ti_2.UPF"):
        (pw.parent / name).touch()
    keys = {"folder": "espresso", "pattern": "{element}?pbe*.UPF"}
    settings = read_dft_file(dft_file(tmp_path / "dft.toml", pseudopotentials=keys)).last
    assert settings.pseudopotentials.file("S").name == "S.pbe.UPF"
    assert settings.pseudopotentials.file("Si").name == "si_pbe.UPF"
    keys["pattern"] = "{element}*.UPF"
    settings = read_dft_file(dft_file(tmp_path / "dft.toml", pseudopotentials=keys)).last
    with pytest.raises(InputError, match=r"one of the 2 files that match '\{element\}\*.UPF' \(Ti_1.UPF, Ti_2.UPF\)"):
        settings.check_element("Ti")
    with pytest.raises(InputError, match=r"none matches '\{element\}\*.UPF'"):
        settings.check_element("O")
    assert settings.pseudopotentials.file("S").name == "S.pbe.UPF"
    assert set(settings.elements) == {"S"}  # there are two of Si, too


def test_label_changes_with_all_that_changes_energies_and_with_nothing_else(tmp_path, pw):
    def label(**keys):
        return build_calculator(str(dft_file(tmp_path / "dft.toml", **keys)))[1]

    first = label()
    assert first.startswith("quantum-espresso 6.7MaX (cutoff=163.268, kspacing=0.5, pseudopotentials=")
    same = ({"relax": "code"}, {"keep": "all"}, {"scratch": "s"}, {"stages": [{"cutoff": 100}, {}]}, {"restart": False})
    assert {label(**keys) for keys in same} == {first}
    others = [
        {"cutoff": "13 Ry"},
        {"kspacing": 0.4},
        {"smearing": False},
        {"smearing": {"kind": "cold"}},
        {"spin": True},
        {"keywords": {"mixing_beta": 0.3}},
        {"density_cutoff": "100 Ry"},
    ]
    assert len({first, *(label(**keys) for keys in others)}) == 1 + len(others)
    ahead = parameters_ahead(str(dft_file(tmp_path / "dft.toml")))
    assert all(f"{name}={text}" in first for name, text in ahead.items())
    (pw.parent / "Si.UPF").write_text("another pseudopotential")
    changed = label()
    assert changed != first
    assert changed.split("settings=")[1] == first.split("settings=")[1]


def test_moving_files_does_not_change_the_label(tmp_path, pw):
    before = build_calculator(str(dft_file(tmp_path / "dft.toml")))[1]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "espresso").rename(tmp_path / "elsewhere" / "espresso")
    assert build_calculator(str(dft_file(tmp_path / "elsewhere" / "other.toml")))[1] == before


def test_arguments_are_never_interpreted_by_a_shell(tmp_path, pw):
    arguments = ["; touch hacked", "$(touch hacked)", "`touch hacked`", "| touch hacked"]
    calculator, _ = build_calculator(str(dft_file(tmp_path / "dft.toml", command=[str(pw), *arguments], keep="all")))
    calculator.work_in(tmp_path / "run")
    (tmp_path / "run").mkdir()
    silicon = bulk("Si")
    silicon.calc = calculator
    assert silicon.get_potential_energy() < 0
    assert not list(tmp_path.rglob("hacked"))


def test_file_runs_a_program_and_therefore_needs_trust_in_a_configuration(tmp_path, pw):
    dft_file(tmp_path / "dft.toml")
    (tmp_path / "search.toml").write_text('[problem]\nformula = "Si"\n[search]\ncalculator = "dft.toml"\n')
    assert runs_code(str(tmp_path / "dft.toml"))
    configuration = config.parse(config.read(tmp_path / "search.toml"), "search.toml")
    assert configuration.needs_trust
    with pytest.raises(InputError, match=r"search.calculator = .*it runs code that this file names; if you trust it"):
        configuration.build(trust=False)
    assert not calculations(pw)


def test_code_that_does_not_tell_its_version_is_shown(tmp_path, pw):
    program(pw, "print('hello')")
    with pytest.raises(Exception, match=r"does not print the version of pw.x; the end of espresso.pwo:\nhello"):
        build_calculator(str(dft_file(tmp_path / "dft.toml", command=[str(pw), "x"])))


def test_relaxation_by_a_code_that_ase_does_not_read_is_refused(tmp_path, pw):
    path = dft_file(tmp_path / "dft.toml", code="abinit", command=["true"], relax="code")
    with pytest.raises(
        InputError, match="relaxations by abinit are not read by ASE; with relax = 'ase', ASE's optimiser is used"
    ):
        check_calculator(str(path))
