"""VASP, ABINIT, GPAW and CP2K: their input, and what is made of their output."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io.abinit import read_abinit_in
from ase.io.vasp import read_vasp
from dft_programs import dft_file, program

from hybridcsp import Limits, RelaxationSettings
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import EVALUATE, RELAX, Candidate, Job, Proposal
from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.dft.codes import read_dft_file
from hybridcsp.relaxation.calculators.dft.cp2k import read_output
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator
from hybridcsp.relaxation.relax import Relaxer

FAKE_VASP = Path(__file__).parents[2] / "fake_vasp.py"


def compute(path, atoms, folder, level=EVALUATE, **settings):
    folder.mkdir(exist_ok=True)
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="seed"), id=1, source="seeds")
    run = Relaxer(calculator=str(path), settings=RelaxationSettings(**settings), folder=folder)()
    return run(Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(force_calls=20)))


@pytest.fixture
def vasp(tmp_path):
    """Write a DFT file for a stand-in for VASP, with potentials of two elements."""
    program(tmp_path / "vasp_std", FAKE_VASP.read_text())
    for name in ("Ti_pv", "O"):
        (tmp_path / "paw" / name).mkdir(parents=True)
        (tmp_path / "paw" / name / "POTCAR").write_text(f"PAW_PBE {name}\n")

    def write(**keys):
        own = {
            "code": "vasp",
            "version": "6.4.2",
            "command": ["./vasp_std"],
            "cutoff": 400,
            "pseudopotentials": {"folder": "paw", "pattern": "{element}", "Ti": "Ti_pv"},
            "keywords": {"gga": "PE", "nelm": 80},
        }
        return dft_file(tmp_path / "dft.toml", **own | keys)

    return write


def rutile():
    positions = [[0, 0, 0], [0.3, 0.3, 0], [0.5, 0.5, 0.5], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]
    return Atoms("TiOTiOOO", cell=[4.6, 4.6, 3.0], scaled_positions=positions, pbc=True)


def test_vasp_gets_its_files_and_results_keep_the_order_of_the_atoms(tmp_path, vasp):
    outcome = compute(vasp(keep="all"), rutile(), tmp_path / "run")
    assert isinstance(outcome, Relaxed), outcome.detail
    folder = tmp_path / "run" / "dft" / "000001-evaluate" / "stage-1"
    incar = dict(line.split(" = ") for line in (folder / "INCAR").read_text().splitlines() if " = " in line)
    incar = {key.strip(): value for key, value in incar.items()}
    assert incar["NSW"] == "0"
    assert (float(incar["ENCUT"]), incar["ISMEAR"], float(incar["SIGMA"])) == (400, "0", 0.1)
    assert (incar["GGA"], incar["ISPIN"], incar["NELM"], float(incar["EDIFF"])) == ("PE", "1", "80", 1e-6)
    assert (folder / "KPOINTS").read_text().split()[-6:-3] == ["3", "3", "5"]
    assert "gamma" in (folder / "KPOINTS").read_text().lower()
    assert (folder / "POTCAR").read_text() == "PAW_PBE Ti_pv\nPAW_PBE O\n"
    assert str(read_vasp(folder / "POSCAR").symbols) == "Ti2O4"
    # the stand-in gives the n-th atom of POSCAR, titanium first, a force of n/100 eV/Å
    assert outcome.atoms.get_forces()[:, 0] == pytest.approx([0.0, 0.02, 0.01, 0.03, 0.04, 0.05])
    assert outcome.evaluation.calculator.startswith("vasp 6.4.2 (cutoff=400, kspacing=0.5, pseudopotentials=")


@pytest.mark.parametrize("pressure", [0.0, 10.0])
def test_vasp_relaxes_by_itself_at_a_pressure(tmp_path, vasp, pressure):
    outcome = compute(vasp(relax="code"), rutile(), tmp_path / "run", RELAX, pressure_gpa=pressure)
    assert isinstance(outcome, Relaxed), outcome.detail
    assert outcome.converged
    assert outcome.cost.force_calls == 3
    assert outcome.atoms.get_stress()[:3] == pytest.approx([-pressure * units.GPa] * 3, abs=1e-6)
    assert outcome.atoms.cell.volume / 6 == pytest.approx(20 * (1 - pressure * units.GPa / 0.6), rel=1e-5)
    assert outcome.evaluation.energy < 0
    assert str(outcome.atoms.symbols) == "TiOTiO3"


def test_vasp_keeps_a_fixed_cell(tmp_path, vasp):
    outcome = compute(vasp(relax="code"), rutile(), tmp_path / "run", RELAX, fixed_cell=True)
    assert outcome.converged
    assert outcome.atoms.cell.array == pytest.approx(rutile().cell.array)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("vasp.6.4.2", "vasp.5.4.4", "the program is VASP 5.4.4, but the file says version = '6.4.2'"),
        ("because EDIFF is reached", "EDIFF was not reached (unconverged)", "the electrons did not converge"),
        ('<i name="e_fr_energy">', "<i>", "the output cannot be read"),
        ('print(" running', 'sys.exit("VERY BAD NEWS"); print("', "exit status 1; the end of vasp.out:\nVERY BAD NEWS"),
    ],
)
def test_failure_of_vasp_is_explained(tmp_path, vasp, old, new, words):
    path = vasp()
    program(tmp_path / "vasp_std", FAKE_VASP.read_text().replace(old, new))
    failure = compute(path, rutile(), tmp_path / "run")
    assert isinstance(failure, Failed)
    assert words in failure.detail


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"version": None}, "version is missing"),
        ({"keywords": {"encut": 300}}, "keywords.encut = 300 .*use the key cutoff for it"),
        ({"keywords": {"nsw": 20}}, "keywords.nsw = 20 .*it must stay as it is"),
        ({"keywords": {"foo": {"a": 1}}}, "keywords.foo = .* cannot be used: it cannot be written as a tag"),
        ({"smearing": {"kind": "cold"}}, "smearing.kind = 'cold' .*one of gaussian, fermi-dirac, methfessel-paxton"),
    ],
)
def test_mistakes_in_a_file_for_vasp(vasp, keys, words):
    with pytest.raises(InputError, match=words):
        check_calculator(str(vasp(**keys)))


def test_element_of_vasp_needs_a_potcar(tmp_path, vasp):
    (tmp_path / "paw" / "N").mkdir()
    file = read_dft_file(vasp())
    file.check_elements(["Ti", "O"])
    with pytest.raises(InputError, match=r"pseudopotentials.N = .*a folder that contains a file POTCAR"):
        file.check_elements(["N"])


def test_spin_of_vasp_uses_moments_by_element(tmp_path, vasp):
    compute(vasp(keep="all", spin=True, moments={"Ti": 2.0, "O": 0.0}), rutile(), tmp_path / "run")
    incar = (tmp_path / "run" / "dft" / "000001-evaluate" / "stage-1" / "INCAR").read_text()
    assert "ISPIN = 2" in incar
    assert "MAGMOM = 2*2.0000 4*0.0000" in incar
    assert "LORBIT = 11" in incar


@pytest.fixture
def abinit(tmp_path):
    (tmp_path / "psp").mkdir()
    (tmp_path / "psp" / "Si.psp8").write_text("Si")
    program(
        tmp_path / "abinit",
        "import sys\nif sys.argv[1] == '--version': print('9.6.2'); sys.exit()\n"
        "print('--- !ERROR'); print('message: chkinp failed'); sys.exit(14)",
    )
    own = {"code": "abinit", "command": ["./abinit"], "cutoff": "10 Ha", "keywords": {"nstep": 44}, "keep": "all"}
    return dft_file(tmp_path / "dft.toml", **own, pseudopotentials={"folder": "psp", "pattern": "{element}.psp8"})


def test_abinit_gets_its_input_and_its_failure_is_explained(tmp_path, abinit):
    silicon = bulk("Si")
    failure = compute(abinit, silicon, tmp_path / "run")
    assert isinstance(failure, Failed)
    assert failure.detail.endswith(
        "abinit ended with exit status 14; the end of abinit.log:\n--- !ERROR\nmessage: chkinp failed"
    )
    file = tmp_path / "run" / "dft" / "000001-evaluate" / "stage-1" / "abinit.in"
    with file.open() as stream:
        written = read_abinit_in(stream)
    assert written.cell.array == pytest.approx(silicon.cell.array)
    assert written.get_scaled_positions() == pytest.approx(silicon.get_scaled_positions())
    words = file.read_text().split()
    assert float(words[words.index("ecut") + 1]) == pytest.approx(10 * units.Hartree)
    assert words[words.index("ecut") + 2] == "eV"
    assert words[words.index("ngkpt") + 1 :][:3] == ["5", "5", "5"]
    assert words[words.index("occopt") + 1] == "7"
    assert words[words.index("nstep") + 1] == "44"
    assert float(words[words.index("tolvrs") + 1]) == 1e-10
    assert "ixc" not in words
    assert f'"{tmp_path}/psp/Si.psp8"' in words


def test_density_of_abinit_that_does_not_converge_is_a_failure(tmp_path, abinit):
    """ABINIT writes results all the same, and ends with exit status 0."""
    warning = " scprqt:  WARNING -\n  nstep=    2 was not enough SCF cycles to converge;\n"
    program(
        tmp_path / "abinit",
        "import sys\nif sys.argv[1] == '--version': print('9.6.2'); sys.exit()\n"
        f"open('abinit.abo', 'w').write({warning!r})",
    )
    failure = compute(abinit, bulk("Si"), tmp_path / "run")
    assert isinstance(failure, Failed)
    assert "the density did not converge (more steps: keywords.nstep)" in failure.detail


def test_tolerance_of_forces_is_refused_for_the_density_of_abinit(tmp_path, abinit):
    """Forces that vanish by symmetry meet it at once."""
    text = abinit.read_text()
    abinit.write_text(text.replace("nstep", "toldff"))
    with pytest.raises(InputError, match=r"keywords.toldff = 44 cannot be used: .*use tolvrs"):
        check_calculator(str(abinit))


def test_gpaw_runs_in_a_python_of_its_own(tmp_path):
    """A stand-in for the package GPAW gets the parameters; the results come back exactly."""
    package = tmp_path / "packages" / "gpaw"
    package.mkdir(parents=True)
    (package / "mpi.py").write_text("class world: rank = 0")
    (package / "__init__.py").write_text(
        "import json\nfrom ase.calculators.emt import EMT\n__version__ = '25.1'\nsetup_paths = []\n"
        "def PW(cutoff): return {'name': 'pw', 'ecut': cutoff}\n"
        "def GPAW(**given):\n    json.dump([given, setup_paths], open('given.json', 'w'))\n    return EMT()\n"
    )
    (tmp_path / "setups").mkdir()
    for name in ("Cu.PBE.gz", "Au.11.PBE.gz"):
        (tmp_path / "setups" / name).write_text(name)
    path = dft_file(
        tmp_path / "dft.toml",
        code="gpaw",
        command=["env", f"PYTHONPATH={package.parent}", sys.executable],
        cutoff=350,
        smearing={"kind": "fermi-dirac", "width": 0.05},
        keywords={"convergence": {"energy": 1e-5}},
        pseudopotentials={"folder": "setups", "pattern": "{element}.PBE.gz", "Au": "Au.11.PBE.gz"},
        keep="all",
    )
    crystal = bulk("CuAu", "rocksalt", a=5.0)
    outcome = compute(path, crystal, tmp_path / "run")
    assert isinstance(outcome, Relaxed), outcome.detail
    assert outcome.evaluation.calculator.startswith("gpaw 25.1 (cutoff=350,")
    from ase.calculators.emt import EMT

    crystal.calc = EMT()
    assert outcome.evaluation.energy == crystal.get_potential_energy()
    given, paths = json.loads((tmp_path / "run/dft/000001-evaluate/stage-1/given.json").read_text())
    assert paths == [str(tmp_path / "setups")]
    assert given["mode"] == {"name": "pw", "ecut": 350}
    assert given["kpts"] == {"size": [5, 5, 5], "gamma": True}
    assert given["occupations"] == {"name": "fermi-dirac", "width": 0.05}
    assert given["setups"] == {"Au": "11", "Cu": "paw"}
    assert (given["xc"], given["convergence"]) == ("PBE", {"energy": 1e-5})


#: From CP2K 2023.1: silicon with one atom displaced.
CP2K_OUTPUT = """
 ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]               -7.802415880349

 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X              Y              Z
      1      1      Si         -0.02244752    -0.02244752    -0.02244752
      2      1      Si          0.02244762     0.02244762     0.02244762
 SUM OF ATOMIC FORCES           0.00000010     0.00000010     0.00000010     0.00000017

 STRESS| Analytical stress tensor [GPa]
 STRESS|                        x                   y                   z
 STRESS|      x      4.89927600E+00      3.24487000E+00      3.24487000E+00
 STRESS|      y      3.24487000E+00      4.89927600E+00      3.24487000E+00
 STRESS|      z      3.24487000E+00      3.24487000E+00      4.89927600E+00
 STRESS| 1/3 Trace                                               4.89927600E+00
"""


@pytest.fixture
def cp2k(tmp_path):
    (tmp_path / "POTENTIALS").write_text("#\nSi GTH-PBE-q4 GTH-PBE\n    2    2\nO GTH-PBE-q6 GTH-PBE\n")
    (tmp_path / "BASIS").write_text("Si  DZVP-MOLOPT-SR-GTH DZVP-MOLOPT-SR-GTH-q4\n 1\nO SZV\n")
    program(
        tmp_path / "cp2k",
        f"import sys\nif '--version' in sys.argv: print(' CP2K version 2023.1')\nelse: print('''{CP2K_OUTPUT}''')",
    )

    def write(**keys):
        own = {"code": "cp2k", "command": ["./cp2k"], "cutoff": "300 Ry", "keep": "all", "empty_states": 5}
        own["pseudopotentials"] = {"file": "POTENTIALS", "name": "GTH-PBE"}
        own["basis"] = {"file": "BASIS", "name": "DZVP-MOLOPT-SR-GTH"}
        return dft_file(tmp_path / "dft.toml", **own | keys)

    return write


def test_cp2k_gets_its_input_and_its_output_is_read_in_the_signs_of_ase(tmp_path, cp2k):
    outcome = compute(
        cp2k(input="&FORCE_EVAL\n&DFT\n&SCF\nEPS_SCF 1e-6\n&END\n&END\n&END"), bulk("Si"), tmp_path / "run"
    )
    assert isinstance(outcome, Relaxed), outcome.detail
    assert outcome.evaluation.calculator.startswith("cp2k 2023.1 (")
    assert outcome.evaluation.energy == pytest.approx(-7.802415880349 * units.Hartree)
    assert outcome.atoms.get_forces()[0] == pytest.approx([-0.02244752 * units.Hartree / units.Bohr] * 3)
    assert outcome.atoms.get_stress()[[0, 5]] == pytest.approx([-4.899276 * units.GPa, -3.24487 * units.GPa])
    text = (tmp_path / "run/dft/000001-evaluate/stage-1/cp2k.inp").read_text()
    words = text.split()
    assert words[words.index("MONKHORST-PACK") + 1 :][:3] == ["5", "5", "5"]
    assert float(words[words.index("CUTOFF") + 2]) == pytest.approx(300 * units.Rydberg)
    for part in (
        "EPS_SCF 1e-6",
        "ADDED_MOS 5",
        "METHOD FERMI_DIRAC",
        "BASIS_SET DZVP-MOLOPT-SR-GTH",
        "POTENTIAL GTH-PBE",
    ):
        assert part in text
    assert f"POTENTIAL_FILE_NAME {tmp_path}/POTENTIALS" in text
    assert text.count("EPS_SCF") == 1
    compute(cp2k(), bulk("Si"), tmp_path / "other")
    assert "EPS_SCF 1.0E-7" in (tmp_path / "other/dft/000001-evaluate/stage-1/cp2k.inp").read_text()


def test_cp2k_needs_a_basis_set_of_every_element(cp2k):
    with pytest.raises(InputError, match=r"basis.O = 'DZVP-MOLOPT-SR-GTH' cannot be used: .*BASIS holds SZV for O"):
        read_dft_file(cp2k()).check_elements(["Si", "O"])
    assert read_dft_file(cp2k()).last.elements == ["Si"]
    with pytest.raises(InputError, match=r"keywords.foo = 1 cannot be used: it is no parameter of ASE's calculator"):
        check_calculator(str(cp2k(keywords={"foo": 1})))
    doubled = "&FORCE_EVAL\n&DFT\n&SCF\nADDED_MOS 9\n&END\n&END\n&END"
    with pytest.raises(InputError, match=r"input = .* cannot be used: .*Keyword ADDED_MOS already present"):
        check_calculator(str(cp2k(input=doubled)))


#: The same results in the format since 2025, in which stresses are in bar.
CP2K_OUTPUT_OF_2025 = """
 ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]               -7.802415880349

 FORCES| Atomic forces [hartree/bohr]
 FORCES|   Atom     x               y               z               |f|
 FORCES|      1 -2.24475200E-02 -2.24475200E-02 -2.24475200E-02   3.88802447E-02
 FORCES|      2  2.24476200E-02  2.24476200E-02  2.24476200E-02   3.88804180E-02
 FORCES|    Sum  1.00000000E-07  1.00000000E-07  1.00000000E-07   1.73205081E-07

 STRESS| Analytical stress tensor [bar]
 STRESS|                        x                   y                   z
 STRESS|      x      4.89927600E+04      3.24487000E+04      3.24487000E+04
 STRESS|      y      3.24487000E+04      4.89927600E+04      3.24487000E+04
 STRESS|      z      3.24487000E+04      3.24487000E+04      4.89927600E+04
 STRESS| 1/3 Trace                                               4.89927600E+04
"""


def test_output_of_all_versions_of_cp2k_gives_the_same_results():
    old, new = read_output(CP2K_OUTPUT, 2), read_output(CP2K_OUTPUT_OF_2025, 2)
    for name in ("energy", "forces", "stress"):
        assert new[name] == pytest.approx(old[name], rel=1e-9)
    in_bar = CP2K_OUTPUT.replace("[GPa]", "[bar]")  # as the input may say
    assert read_output(in_bar, 2)["stress"] == pytest.approx(1e-4 * old["stress"])


def test_unit_of_cp2k_that_is_not_known_is_an_error():
    with pytest.raises(Exception, match="the output has the unit furlongs, and only gpa, bar, kbar can be read"):
        read_output(CP2K_OUTPUT.replace("[GPa]", "[furlongs]"), 2)


def test_output_of_cp2k_that_is_incomplete_is_an_error():
    with pytest.raises(Exception, match="does not hold an energy, forces and a stress"):
        read_output(CP2K_OUTPUT.split("STRESS")[0], 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executable", "keys"),
    [
        (
            "gpaw",
            {"command": ["gpaw", "python"], "cutoff": 200, "files": ["/usr/share/gpaw-setups", "{element}.PBE.gz"]},
        ),
        (
            "abinit",
            {
                "command": ["abinit"],
                "cutoff": "8 Ha",
                "files": ["/usr/share/abinit/psp/Pseudodojo_nc_sr_04_pbe_standard_psp8", "{element}.psp8"],
            },
        ),
    ],
)
def test_program_that_is_installed_agrees_with_the_stand_in(tmp_path, executable, keys):
    folder, pattern = keys.pop("files")
    if shutil.which(executable) is None or not Path(folder).is_dir():
        pytest.skip(f"{executable} or {folder} is not installed")
    files = {"folder": folder, "pattern": pattern}
    path = dft_file(tmp_path / "dft.toml", code=executable, kspacing=1.0, pseudopotentials=files, **keys)
    silicon = bulk("Si")
    silicon.positions[0] += 0.05
    silicon.calc, _ = build_calculator(str(path))
    assert np.isfinite(silicon.get_potential_energy())
    assert silicon.get_forces()[0] == pytest.approx(-silicon.get_forces()[1], abs=1e-2)
    assert silicon.get_forces()[0, 0] < 0
    assert silicon.get_stress().shape == (6,)
