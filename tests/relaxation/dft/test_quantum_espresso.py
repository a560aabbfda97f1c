"""Relaxations with Quantum ESPRESSO: with a stand-in for pw.x, and with pw.x itself where it is installed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.espresso import Espresso, EspressoProfile
from dft_programs import calculations, dft_file, fake_pw, program

from hybridcsp import Limits, RelaxationSettings, Search
from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import FOLLOW_UP, REFINE, RELAX, Candidate, Job, Proposal
from hybridcsp.relaxation.calculators.dft import quantum_espresso
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.relax import Relaxer

PSEUDO = Path("/usr/share/espresso/pseudo/Si.pz-vbc.UPF")

needs_pw = pytest.mark.skipif(
    shutil.which("pw.x") is None or not PSEUDO.exists(),
    reason="pw.x or its pseudopotentials are not installed (apt install quantum-espresso quantum-espresso-data)",
)


@pytest.fixture
def pw(tmp_path):
    return fake_pw(tmp_path / "espresso")


def silicon(scale=1.03, shift=0.15):
    atoms = bulk("Si", a=4.5)
    atoms.set_cell(scale * atoms.cell.array, scale_atoms=True)
    atoms.positions[0] += [shift, 0.02, 0.0]
    return atoms


def job(atoms, number=1, level=RELAX, **limits):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="seed"), id=number, source="seeds")
    return Job(candidate=candidate, atoms=atoms, level=level, limits=Limits(**limits))


def relaxer(path, folder, **settings):
    folder.mkdir(exist_ok=True)
    loose = {"max_force": 0.2, "refine_max_force": 0.2, "max_stress_gpa": 2.0}
    return Relaxer(calculator=str(path), settings=RelaxationSettings(**loose | settings), folder=folder)()


def kept(folder):
    return sorted(path.name for path in (folder / "dft").iterdir()) if (folder / "dft").exists() else []


def test_results_are_those_of_ase_with_the_same_settings(tmp_path, pw):
    ours, theirs = silicon(), silicon()
    ours.calc, _ = build_calculator(str(dft_file(tmp_path / "dft.toml", smearing=False, scratch="scratch")))
    theirs.calc = Espresso(
        profile=EspressoProfile(str(pw), pseudo_dir=pw.parent),
        directory=tmp_path / "theirs",
        pseudopotentials={"Si": "Si.UPF"},
        kpts=(5, 5, 5),
        input_data={"control": {"tprnfor": True, "tstress": True}, "system": {"ecutwfc": 12.0}},
    )
    assert ours.get_potential_energy() == theirs.get_potential_energy()
    assert (ours.get_forces() == theirs.get_forces()).all()
    assert (ours.get_stress() == theirs.get_stress()).all()


def test_relaxation_converges_and_leaves_nothing(tmp_path, pw):
    outcome = relaxer(dft_file(tmp_path / "dft.toml"), tmp_path / "run")(job(silicon()))
    assert isinstance(outcome, Relaxed), outcome.detail
    assert outcome.converged
    assert outcome.evaluation.calculator.startswith("quantum-espresso 6.7MaX")
    assert outcome.cost.force_calls == len(calculations(pw)) > 3
    assert kept(tmp_path / "run") == []


def test_folders_are_kept_as_the_file_says(tmp_path, pw):
    broken = silicon()
    for keep, expected in (
        ("all", ["000001-evaluate", "000002-evaluate"]),
        ("failed", ["000002-evaluate"]),
        ("none", []),
    ):
        run = relaxer(dft_file(tmp_path / "dft.toml", keep=keep), tmp_path / keep)
        assert isinstance(run(job(silicon(), 1, "evaluate")), Relaxed)
        fake_pw(tmp_path / "espresso", after="sys.exit('Error in routine cdiaghg (1)')")
        failure = run(job(broken, 2, "evaluate"))
        fake_pw(tmp_path / "espresso")
        assert isinstance(failure, Failed)
        assert kept(tmp_path / keep) == expected
    assert failure.reason is FailureReason.CALCULATOR
    assert "pw.x ended with exit status 1; the end of espresso.pwo:" in failure.detail
    assert failure.detail.endswith("Error in routine cdiaghg (1)")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("print('convergence NOT achieved after 100 iterations'); sys.exit()", "the density did not converge"),
        ("print('half of an output'); sys.exit()", "the output is incomplete; the end of espresso.pwo"),
        ("print('JOB DONE'); sys.exit()", "the output cannot be read"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_failure_is_explained_with_the_end_of_the_output(tmp_path, after, words):
    fake_pw(tmp_path / "espresso", after=after)
    failure = relaxer(dft_file(tmp_path / "dft.toml"), tmp_path / "run")(job(silicon()))
    assert isinstance(failure, Failed)
    assert words in failure.detail


def test_program_is_ended_at_the_time_limit(tmp_path):
    pw = fake_pw(tmp_path / "espresso")
    # A shell needs no time to start, so that the program waits well before the limit on a busy machine too.
    pw.write_text('#!/bin/sh\necho "Program PWSCF v.6.7 waiting"\n[ "$1" = -in ] && exec sleep 600\n')
    run = relaxer(dft_file(tmp_path / "dft.toml"), tmp_path / "run")
    begun = time.monotonic()
    failure = run(job(silicon(), seconds=2.0))
    assert failure.reason is FailureReason.TIME_LIMIT
    assert failure.detail.endswith("waiting")
    assert time.monotonic() - begun < 300  # the program would take 600 s


def test_journal_of_another_version_of_the_code_is_not_used(tmp_path, monkeypatch):
    pw = fake_pw(tmp_path / "espresso")
    path = dft_file(tmp_path / "dft.toml", keep="all")
    first = relaxer(path, tmp_path / "run")(job(silicon(), level="evaluate"))
    assert (
        relaxer(path, tmp_path / "run")(job(silicon(), level="evaluate")).evaluation.energy == first.evaluation.energy
    )
    assert len(calculations(pw)) == 1
    monkeypatch.setattr(quantum_espresso, "_version", lambda command: "7.4")
    second = relaxer(path, tmp_path / "run")(job(silicon(), level="evaluate"))
    assert second.evaluation.calculator.startswith("quantum-espresso 7.4 ")
    assert len(calculations(pw)) == 2


def test_stages_go_from_coarse_to_tight_and_only_the_last_is_recorded(tmp_path, pw):
    stages = [{"cutoff": "6 Ry", "max_force": 0.6}, {}]
    path = dft_file(tmp_path / "dft.toml", stages=stages)
    run = relaxer(path, tmp_path / "run")
    outcome = run(job(silicon()))
    cutoffs = [cutoff for cutoff, _, _ in calculations(pw)]
    coarse, tight = cutoffs.count("6.0"), cutoffs.count("12.0")
    assert cutoffs == ["6.0"] * coarse + ["12.0"] * tight
    assert min(coarse, tight) > 0
    assert outcome.converged
    assert outcome.cost.force_calls == coarse + tight
    assert outcome.evaluation.calculator == build_calculator(str(dft_file(path)))[1]  # the same without stages
    pw.with_name("pw.x.log").unlink()
    assert run(job(outcome.atoms, level=REFINE, force_calls=2)).converged
    assert {cutoff for cutoff, _, _ in calculations(pw)} == {"12.0"}
    pw.with_name("pw.x.log").unlink()
    run(job(silicon(), level=FOLLOW_UP, force_calls=3))
    assert [cutoff for cutoff, _, _ in calculations(pw)] == ["12.0", "6.0", "12.0"]  # its first energy is compared


def test_force_calls_that_end_in_a_coarse_stage_leave_one_to_the_last(tmp_path, pw):
    path = dft_file(tmp_path / "dft.toml", stages=[{"cutoff": "6 Ry", "max_force": 0.001}, {}])
    outcome = relaxer(path, tmp_path / "run")(job(silicon(), force_calls=3))
    assert isinstance(outcome, Relaxed)
    assert not outcome.converged
    assert [cutoff for cutoff, _, _ in calculations(pw)] == ["6.0", "6.0", "12.0"]


@pytest.mark.parametrize(
    "line",
    ["atom:    {}    charge:    8.7  magn:    {}    constr:    0.0", "atom   {} (R=0.4)  charge=  8.7  magn=  {}"],
)
def test_magnetic_moments_are_read_from_every_version(tmp_path, line):
    lines = "".join(f"\n     {line.format(number, moment)}" for number, moment in ((1, 0.5), (2, -0.25)))
    moments = f"print({f'     Magnetic moment per site:{lines}'!r})"
    fake_pw(tmp_path / "espresso", after=moments)
    path = dft_file(tmp_path / "dft.toml", spin=True, moments={"Si": 2.0}, keep="all")
    outcome = relaxer(path, tmp_path / "run")(job(silicon(), level="evaluate"))
    assert outcome.evaluation.magmoms == pytest.approx([0.5, -0.25])
    text = (tmp_path / "run/dft/000001-evaluate/stage-1/espresso.pwi").read_text()
    assert "nspin            = 2" in text
    assert "starting_magnetization(1) = 0.2\n" in text  # versions before 7.3 read a fraction


@pytest.mark.parametrize("pressure", [0.0, 30.0])
def test_code_relaxes_at_the_pressure_of_the_search(tmp_path, pw, pressure):
    path = dft_file(tmp_path / "dft.toml", relax="code")
    run = relaxer(path, tmp_path / "run", pressure_gpa=pressure, max_stress_gpa=0.3)
    outcome = run(job(bulk("Si", a=4.7)))
    assert isinstance(outcome, Relaxed), outcome.detail
    assert outcome.converged
    assert [kind for _, kind, _ in calculations(pw)] == ["vc-relax", "scf"]
    assert outcome.cost.force_calls == 3  # two steps of pw.x, and a single point
    stress = outcome.atoms.get_stress(voigt=True)[:3]
    assert stress == pytest.approx([-pressure * units.GPa] * 3, abs=0.1 * units.GPa)
    assert outcome.evaluation.enthalpy == pytest.approx(
        outcome.evaluation.energy + pressure * units.GPa * outcome.atoms.cell.volume
    )


def test_wave_functions_that_do_not_fit_are_left_out_in_a_second_try(tmp_path):
    saving = (
        "import os; os.makedirs('saved/pwscf.save', exist_ok=True)\nopen('saved/pwscf.save/data-file-schema.xml', 'w')"
    )
    failing = "if setting(text, 'startingpot') == 'file': sys.exit('Error in routine read_rhog')"
    pw = fake_pw(tmp_path / "espresso", after=f"{failing}\n{saving}")
    calculator, _ = build_calculator(str(dft_file(tmp_path / "dft.toml", scratch="scratch")))
    atoms = silicon()
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.rattle(0.01, seed=1)
    atoms.get_potential_energy()
    assert [start for _, _, start in calculations(pw)] == ["-", "file", "-"]


def test_relaxation_that_was_killed_goes_on_from_its_journal_bit_for_bit(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, pickle\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_quantum_espresso import job, relaxer, silicon\n"
        "outcome = relaxer(sys.argv[1], Path(sys.argv[2]))(job(silicon()))\n"
        "print(outcome.evaluation.energy.hex(), outcome.cost.force_calls, outcome.atoms.positions.tobytes().hex())\n"
    )
    whole, killed = (fake_pw(tmp_path / name) for name in ("espresso", "other"))
    first = dft_file(tmp_path / "first.toml")
    second = dft_file(tmp_path / "second.toml", command=[str(killed)])

    def start(path, name):
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(path), str(tmp_path / name)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
        )

    expected, errors = start(first, "uninterrupted").communicate()
    assert expected, errors
    interrupted = start(second, "interrupted")
    while len(calculations(killed)) < 4 and interrupted.poll() is None:
        time.sleep(0.01)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()
    assert kept(tmp_path / "interrupted") == ["000001-relax"]
    (tmp_path / "interrupted" / "dft" / "000001-relax" / "calculations.jsonl").open("ab").write(b'{"key": "cut o')
    made = len(calculations(killed))
    found, errors = start(second, "interrupted").communicate()
    assert found == expected, errors
    assert len(calculations(killed)) <= len(calculations(whole)) + 1  # at most the one that was killed is repeated
    assert made < len(calculations(killed))
    assert kept(tmp_path / "interrupted") == []


def test_a_folder_in_which_a_program_still_computes_is_not_used(tmp_path, pw, monkeypatch):
    monkeypatch.setattr("hybridcsp.relaxation.calculators.dft.workspace._PATIENCE", 0.3)
    folder = tmp_path / "run" / "dft" / "000001-relax"
    folder.mkdir(parents=True)
    holder = program(
        tmp_path / "holder",
        "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "file.write('process 1 on here\\n')\nfile.flush()\nprint(flush=True)\ntime.sleep(60)",
    )
    with subprocess.Popen([str(holder), str(folder / "lock")], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        run = relaxer(dft_file(tmp_path / "dft.toml"), tmp_path / "run")
        with pytest.raises(
            Exception, match=r"another program still computes in .*000001-relax \(in use by process 1 on here\)"
        ):
            run(job(silicon()))
        process.kill()


@needs_pw
@pytest.mark.slow
def test_results_of_pw_x_are_those_of_ase_with_the_same_input(tmp_path):
    atoms = bulk("Si", a=5.5)
    atoms.positions[0] += 0.05
    keys = {"pseudopotentials": {"folder": str(PSEUDO.parent), "Si": PSEUDO.name}, "command": ["pw.x"], "kspacing": 0.6}
    ours, theirs = atoms.copy(), atoms.copy()
    ours.calc, _ = build_calculator(str(dft_file(tmp_path / "dft.toml", scratch="scratch", smearing=False, **keys)))
    theirs.calc = Espresso(
        profile=EspressoProfile("pw.x", pseudo_dir=PSEUDO.parent),
        directory=tmp_path / "theirs",
        pseudopotentials={"Si": PSEUDO.name},
        kpts=(4, 4, 4),
        input_data={
            "control": {"tprnfor": True, "tstress": True},
            "system": {"ecutwfc": 12.0},
            "electrons": {"conv_thr": 1e-8},
        },
    )
    assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-7)
    assert ours.get_forces() == pytest.approx(theirs.get_forces(), abs=1e-6)
    assert ours.get_stress() == pytest.approx(theirs.get_stress(), abs=1e-7)
    before = ours.get_potential_energy()
    ours.positions[0] += 0.01
    ours.get_potential_energy()
    ours.positions[0] -= 0.01  # another structure to the last bit, whose wave functions begin with those before
    assert ours.get_potential_energy() == pytest.approx(before, abs=1e-6)


@needs_pw
@pytest.mark.slow
def test_pw_x_relaxes_by_itself_at_a_pressure(tmp_path):
    keys = {"pseudopotentials": {"folder": str(PSEUDO.parent), "Si": PSEUDO.name}, "command": ["pw.x"]}
    path = dft_file(tmp_path / "dft.toml", kspacing=0.7, relax="code", **keys)
    atoms = bulk("Si", a=5.5)
    atoms.positions[0] += 0.05
    outcome = relaxer(path, tmp_path / "run", pressure_gpa=10.0, max_force=0.1, max_stress_gpa=0.5)(job(atoms))
    assert isinstance(outcome, Relaxed), outcome.detail
    assert outcome.converged
    assert outcome.atoms.get_stress()[:3] == pytest.approx([-10 * units.GPa] * 3, abs=0.5 * units.GPa)


@needs_pw
@pytest.mark.slow
def test_search_with_pw_x_finds_diamond_silicon(tmp_path):
    keys = {"pseudopotentials": {"folder": str(PSEUDO.parent), "Si": PSEUDO.name}, "command": ["pw.x"]}
    keys |= {"kspacing": 0.7, "cutoff": "10 Ry", "smearing": {"kind": "cold", "width": 0.2}}
    path = dft_file(tmp_path / "dft.toml", keywords={"conv_thr": 1e-6}, **keys)
    search = Search(
        "Si2",
        formula_units=1,
        spacegroups=[227, 166, 12],
        calculator=str(path),
        sources=["random"],
        directory=tmp_path / "silicon",
        workers=1,
        limits=Limits(force_calls=30, seconds=300),
        relaxation=RelaxationSettings(max_force=0.1, max_stress_gpa=1.0),
    )
    with search:
        search.run(relaxations=4)
        best = search.minima(1)[0]
    assert best.spacegroup == 227
    volume = best.atoms.cell.volume / len(best.atoms)
    assert volume == pytest.approx(20.0, rel=0.08)  # 20.02 Å³ in experiments
    assert np.isfinite(best.enthalpy_per_atom)
