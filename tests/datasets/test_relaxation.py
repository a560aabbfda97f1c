"""Tests of the relaxation of data sets."""

import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from batch_emt import BatchEMT

from hybridcsp.core.records import Limits
from hybridcsp.datasets import read_crystals, relax_crystals
from hybridcsp.datasets.relaxation import hash_of, write_relaxation_card
from hybridcsp.datasets.relaxed_files import RelaxedFiles
from hybridcsp.errors import BackendError, InputError, RelaxationsFailedError
from hybridcsp.io.relaxation_folders import ABOUT, FAILED, LOCK, RELAXED
from hybridcsp.relaxation.settings import RelaxationSettings


def coppers(n):
    rng = np.random.default_rng(0)
    crystals = []
    for number in range(n):
        atoms = bulk("Cu", a=3.5 + 0.02 * number, cubic=True)
        atoms.rattle(0.05, rng=rng)
        atoms.info["name"] = f"start-{number}"
        crystals.append(atoms)
    return crystals


def numbers_in(file):
    return [atoms.info["number"] for atoms in ase.io.iread(file, ":", format="extxyz")]


def test_relaxed_crystals_keep_their_properties_and_open_in_ase(tmp_path):
    seen = []
    done = relax_crystals(coppers(3), tmp_path / "cu", calculator="emt", workers=1, on_progress=seen.append)
    assert (done.relaxed, done.failed, done.total) == (3, 0, 3)
    assert seen[-1].force_calls > 3
    frames = ase.io.read(tmp_path / "cu" / RELAXED, ":")
    assert sorted(atoms.info["name"] for atoms in frames) == ["start-0", "start-1", "start-2"]
    for atoms in frames:
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(atoms.info["energy_per_atom"])
        assert np.abs(atoms.get_forces()).max() < 0.05
        assert atoms.info["calculator"].startswith("emt")
    assert len(read_crystals([tmp_path / "cu"])) == 3


def test_several_crystals_are_relaxed_at_the_same_time(tmp_path):
    relax_crystals(coppers(3), tmp_path / "alone", calculator=BatchEMT, workers=1)
    progress = relax_crystals(coppers(3), tmp_path / "together", calculator=BatchEMT, workers=1, batch="auto")
    assert progress.relaxed == 3
    alone, together = (
        {atoms.info["number"]: atoms for atoms in ase.io.iread(tmp_path / name / RELAXED, ":", format="extxyz")}
        for name in ("alone", "together")
    )
    for number, atoms in alone.items():
        assert together[number] == atoms
        assert together[number].info["force_calls"] == atoms.info["force_calls"]
    with pytest.raises(InputError, match="the calculator emt evaluates one structure after the other"):
        relax_crystals(coppers(3), tmp_path / "never", calculator="emt", batch=4)
    assert not (tmp_path / "never").exists()


def test_workers_get_an_absolute_folder(tmp_path, monkeypatch):
    """Those of a cluster have another working directory, and the file system in common."""
    folders = []

    def open_pool(executor, relaxer, *, log_directory, **options):
        folders.extend([relaxer.folder, log_directory.parent])
        raise BackendError("no workers")

    monkeypatch.setattr("hybridcsp.datasets.relaxation.open_pool", open_pool)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError):
        relax_crystals(coppers(1), "cu", calculator="emt")
    assert folders == [tmp_path / "cu"] * 2


def test_failures_are_kept_with_their_reasons(tmp_path):
    crystals = [bulk("Cu", a=3.7), bulk("Fe", a=2.9), bulk("Cu", a=4.2, cubic=True)]
    done = relax_crystals(crystals, tmp_path / "out", calculator="emt", workers=1, limits=Limits(force_calls=1))
    assert done.total == 3
    failed = ase.io.read(tmp_path / "out" / FAILED, ":")
    reasons = {atoms.info["number"]: atoms.info["reason"] for atoms in failed}
    assert reasons[1] == "calculator"  # EMT does not know iron
    assert reasons[2] == "unconverged"
    assert all(atoms.info["detail"] for atoms in failed)
    assert done.reasons == {"calculator": 1, "unconverged": 2}
    again = relax_crystals(crystals, tmp_path / "out", calculator="emt", workers=1, limits=Limits(force_calls=1))
    assert again.force_calls == 0
    assert again.failed == 3


def test_half_a_frame_is_cut_off_and_relaxed_again(tmp_path):
    crystals = coppers(3)
    relax_crystals(crystals, tmp_path, calculator="emt", workers=1)
    file = tmp_path / RELAXED
    whole = file.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 150, whole.rindex(b"\n4\n") + 2):
        file.write_bytes(whole[:cut])
        done = relax_crystals(crystals, tmp_path, calculator="emt", workers=1)
        assert (done.relaxed, done.earlier) == (3, 2)
        assert sorted(numbers_in(file)) == [0, 1, 2]


def test_killed_relaxation_continues_where_it_was(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from hybridcsp.datasets import relax_crystals\n"
        "from ase.io import read\n"
        f"relax_crystals(read({str(tmp_path / 'start.xyz')!r}, ':'), {str(tmp_path / 'out')!r}, calculator='emt', "
        "workers=1)\n"
    )
    crystals = coppers(60)
    ase.io.write(tmp_path / "start.xyz", crystals, format="extxyz")
    crystals = ase.io.read(tmp_path / "start.xyz", ":")
    process = subprocess.Popen([sys.executable, "-c", script])
    file = tmp_path / "out" / RELAXED
    end = time.monotonic() + 60
    while time.monotonic() < end and not (file.exists() and file.stat().st_size > 2000):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = file.read_bytes()
    done = relax_crystals(crystals, tmp_path / "out", calculator="emt", workers=1)
    assert 0 < done.earlier <= 60
    assert done.relaxed == 60
    assert sorted(numbers_in(file)) == list(range(60))
    assert file.read_bytes()[: before.rindex(b"\n4\n") + 1] == before[: before.rindex(b"\n4\n") + 1]


def test_folder_of_another_relaxation_is_refused(tmp_path):
    relax_crystals(coppers(1), tmp_path, calculator="emt", workers=1)
    with pytest.raises(InputError, match=r"another relaxation .its crystals are others"):
        relax_crystals(coppers(2), tmp_path, calculator="emt", workers=1)
    with pytest.raises(InputError, match=r"another relaxation .force_calls is 500 there and 7 here"):
        relax_crystals(coppers(1), tmp_path, calculator="emt", workers=1, limits=Limits(force_calls=7))
    with pytest.raises(InputError, match=r"another relaxation .calculator is emt there and lj here"):
        relax_crystals(coppers(1), tmp_path, calculator="lj", workers=1)


def test_folder_in_use_or_with_foreign_files_is_refused(tmp_path):
    with RelaxedFiles(tmp_path / "used", {}), pytest.raises(InputError, match=r"in use by process \d+"):
        RelaxedFiles(tmp_path / "used", {})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / RELAXED).write_text("mine")
    with pytest.raises(InputError, match=r"this one holds relaxed\.extxyz"):
        RelaxedFiles(tmp_path / "foreign", {})
    assert (tmp_path / "foreign" / RELAXED).read_text() == "mine"
    (tmp_path / "link").mkdir()
    (tmp_path / "target").write_text("")
    (tmp_path / "link" / LOCK).symlink_to(tmp_path / "target")
    with pytest.raises(InputError, match="symbolic link"):
        RelaxedFiles(tmp_path / "link", {})


def test_calculator_that_always_fails_ends_the_relaxation(tmp_path):
    with pytest.raises(RelaxationsFailedError, match="none of 20 relaxations has succeeded"):
        relax_crystals([bulk("Fe")] * 40, tmp_path, calculator="emt", workers=1)
    assert numbers_in(tmp_path / FAILED) == list(range(20))


def test_no_crystals_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least one crystal"):
        relax_crystals([], tmp_path, calculator="emt")


def test_properties_of_the_start_are_not_those_of_the_relaxed_crystal(tmp_path):
    about = {"e_above_hull": 0.3, "formation_energy_per_atom": -1.0, "pressure_gpa": 0.0, "energy_per_atom": 7.0}
    about |= {"calculator": "dft", "height": 0.1, "objective_gap": 2.0, "search_rank": 3, "spacegroup": "Im-3m (229)"}
    converging, failing = bulk("Cu", a=3.6), bulk("Fe", a=2.9)
    for atoms in (converging, failing):
        atoms.info = {**about, "band_gap": 1.5, "reason": "old", "start_height": 9.0}
    settings = RelaxationSettings(pressure_gpa=20.0)
    relax_crystals([converging, failing], tmp_path, calculator="emt", workers=1, settings=settings)
    for file in (RELAXED, FAILED):
        info = ase.io.read(tmp_path / file).info
        assert info["pressure_gpa"] == 20.0
        assert info["band_gap"] == 1.5
        assert info.get("reason") != "old"
        assert {f"start_{key}": value for key, value in about.items()}.items() <= info.items()
        assert set(about) & set(info) <= {"pressure_gpa", "energy_per_atom", "calculator"}
    relaxed = ase.io.read(tmp_path / RELAXED).info
    assert relaxed["calculator"].startswith("emt")
    assert relaxed["enthalpy_per_atom"] > relaxed["energy_per_atom"] != 7.0
    assert not {"energy_per_atom", "calculator"} & set(ase.io.read(tmp_path / FAILED).info)


def test_failed_crystals_are_relaxed_again_on_request_and_counted_once(tmp_path):
    crystals = [bulk("Cu", a=3.62), Atoms("Fe", cell=[2.5] * 3, pbc=True), Atoms("Fe", cell=[2.6] * 3, pbc=True)]
    relax_crystals(crystals, tmp_path, calculator="emt", workers=1)
    seen = []
    relax_crystals(crystals, tmp_path, calculator="emt", workers=1, retry_failed=True, on_progress=seen.append)
    assert (seen[0].earlier, seen[-1].done, seen[-1].total) == (1, 3, 3)
    assert (seen[-1].ended, seen[-1].relaxed, seen[-1].failed) == (2, 1, 2)
    assert seen[-1].reasons == {"calculator": 2}
    assert sorted(numbers_in(tmp_path / FAILED)) == [1, 1, 2, 2]
    about = json.loads((tmp_path / ABOUT).read_text())
    card = write_relaxation_card(tmp_path, inputs=[], settings={})
    assert card["left_out"] == {"failed: calculator": 2}
    with RelaxedFiles(tmp_path, about) as files:
        files.add_relaxed(2, crystals[2])  # it has converged at the third attempt
    assert write_relaxation_card(tmp_path, inputs=[], settings={})["left_out"] == {"failed: calculator": 1}


@pytest.mark.parametrize(
    "foreign",
    [
        b"mine\n",
        b"1\nof another program\nCu 0 0 0\n",
        b'1\nLattice="1 0 0 0 1 0 0 0 1"\nCu 0 0 0',
        b"2\nof",
        b"1000000\n",
    ],
)
@pytest.mark.parametrize("name", [RELAXED, FAILED])
def test_what_others_have_appended_is_not_deleted(tmp_path, name, foreign):
    with RelaxedFiles(tmp_path, {}) as files:
        files.add_relaxed(0, bulk("Cu"))
        files.add_failed(1, bulk("Cu"))
    file = tmp_path / name
    with file.open("ab") as stream:
        stream.write(foreign)
    before = file.read_bytes()
    with pytest.raises(InputError, match=rf"it has {len(foreign)} bytes .* move it away"):
        RelaxedFiles(tmp_path, {})
    assert file.read_bytes() == before


@pytest.mark.parametrize("zeros", [0, 300])
def test_any_part_of_a_last_frame_is_cut_off(tmp_path, zeros):
    with RelaxedFiles(tmp_path, {}) as files:
        files.add_relaxed(0, bulk("Cu"))
        end = (tmp_path / RELAXED).stat().st_size
        files.add_relaxed(1, bulk("NaCl", "rocksalt", a=5.6))
    whole = (tmp_path / RELAXED).read_bytes()
    for cut in range(end, len(whole), 1 + zeros // 30):
        (tmp_path / RELAXED).write_bytes(whole[:cut] + bytes(zeros))
        with RelaxedFiles(tmp_path, {}) as files:
            assert files.relaxed == {0}
        assert (tmp_path / RELAXED).read_bytes() == whole[:end]


def test_initial_moments_and_charges_are_part_of_the_input():
    plain = bulk("Cu")
    hashes = {hash_of([plain])}
    for moment, charge in ((2.2, None), (-2.2, None), (None, 1.0), (2.2, 1.0)):
        atoms = plain.copy()
        if moment is not None:
            atoms.set_initial_magnetic_moments([moment])
        if charge is not None:
            atoms.set_initial_charges([charge])
        hashes.add(hash_of([atoms]))
    assert len(hashes) == 5
    # Folders of crystals without moments stay valid.
    assert hash_of([plain]) == "bed9ec15e1560002abea6ddbd88db80afeb0be7f276de35828904b9c88403133"
