"""Trajectories of ASE, read by their layout."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.errors import UnreadableError
from hybridcsp.io.ase_trajectories import read_trajectory
from hybridcsp.io.frames import ReadFailure


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    frames = []
    for number in range(3):
        atoms = bulk("NaCl", "rocksalt", a=5.6 + 0.1 * number)
        atoms.set_initial_magnetic_moments([1.5, -0.5])
        atoms.set_constraint(FixAtoms([0]))
        atoms.info = {"origin": "somebody"}
        atoms.calc = SinglePointCalculator(atoms, energy=-7.0 - number, forces=np.zeros((2, 3)))
        frames.append(atoms)
    file = tmp_path_factory.mktemp("traj") / "a.traj"
    ase.io.write(file, frames)
    return file


def test_frames_agree_with_those_read_by_ase(file):
    found = list(read_trajectory(file))
    for frame, witness in zip(found, ase.io.read(file, ":"), strict=True):
        assert np.allclose(frame.atoms.positions, witness.positions)
        assert np.allclose(frame.atoms.cell, witness.cell)
        assert (frame.atoms.numbers == witness.numbers).all()
        assert frame.atoms.get_potential_energy() == witness.get_potential_energy()
        assert (frame.atoms.get_initial_magnetic_moments() == witness.get_initial_magnetic_moments()).all()
        assert frame.atoms.info == {"origin": "somebody"}
        assert not frame.atoms.constraints


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0, 0.999), what=st.sampled_from([b"\xff" * 8, b"9" * 12, b"", b'"', b"\0" * 40]), cut=st.booleans())
def test_damage_affects_only_the_damaged_frames(file, tmp_path_factory, at, what, cut):
    data = file.read_bytes()
    where = int(at * len(data))
    damaged = tmp_path_factory.mktemp("damaged") / "a.traj"
    damaged.write_bytes(data[:where] + what + (b"" if cut else data[where + len(what) :]))
    try:
        for found in read_trajectory(damaged):
            assert isinstance(found, ReadFailure) or len(found.atoms) == 2
    except UnreadableError as error:
        assert "trajectory" in error.reason


def test_old_pickle_trajectories_are_refused(tmp_path):
    (tmp_path / "a.traj").write_bytes(b"PickleTrajectory" + bytes(100))
    with pytest.raises(UnreadableError, match="pickles"):
        list(read_trajectory(tmp_path / "a.traj"))
