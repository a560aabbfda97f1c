"""Tests of the relaxation of data sets."""

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

from hybridcsp.core.records import Limits
from hybridcsp.datasets import read_crystals, relax_crystals
from hybridcsp.datasets.relaxed_files import FAILED, LOCK, RELAXED, RelaxedFiles
from hybridcsp.errors import InputError, RelaxationsFailedError


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
    with pytest.raises(InputError, match="another crystals, sha256"):
        relax_crystals(coppers(2), tmp_path, calculator="emt", workers=1)
    with pytest.raises(InputError, match="another limits"):
        relax_crystals(coppers(1), tmp_path, calculator="emt", workers=1, limits=Limits(force_calls=7))
    with pytest.raises(InputError, match="another calculator"):
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


def test_failed_crystals_are_relaxed_again_on_request(tmp_path):
    crystals = [bulk("Cu", a=3.7), Atoms("Fe", cell=[2.5] * 3, pbc=True)]
    relax_crystals(crystals, tmp_path, calculator="emt", workers=1)
    again = relax_crystals(crystals, tmp_path, calculator="emt", workers=1, retry_failed=True)
    assert again.reasons == {"calculator": 1}
    assert (again.relaxed, again.failed) == (1, 1)
