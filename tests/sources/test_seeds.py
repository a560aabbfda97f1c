"""The seeds source: what it reads, what it refuses and why, and the order in which it proposes."""

import gzip
import pickle
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write
from crystals import rutile
from foreign import uspex_run

from hybridcsp.archive.archive import Archive
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate
from hybridcsp.errors import InputError
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.registry import SOURCES
from hybridcsp.sources.seeds import SeedsSource

PROBLEM = Problem("NaCl", formula_units=(1, 2))


def rock_salt(a=5.6, cubic=False):
    return bulk("NaCl", "rocksalt", a=a, cubic=cubic)


def context(problem=PROBLEM):
    return Context(problem=problem, archive=cast(Archive, None), rng=np.random.default_rng(0))


def take(source, n):
    """Ask for proposals as a search does."""
    proposals = source.propose(n, context())
    source.proposed([Candidate(proposal=proposal, id=i + 1, source="seeds") for i, proposal in enumerate(proposals)])
    return proposals


def test_frames_are_proposed_once_and_in_order(tmp_path):
    path = tmp_path / "seeds.extxyz"
    write(path, [rock_salt(a) for a in (5.4, 5.5, 5.6, 5.7, 5.8)])
    source = SOURCES["seeds"].load()(PROBLEM, str(path))
    assert len(source) == 5
    calls = [take(source, n) for n in (2, 2)]
    assert source.status() is SourceStatus.READY
    calls += [take(source, 2), take(source, 2)]
    assert [len(call) for call in calls] == [2, 2, 1, 0]
    assert source.status() is SourceStatus.EXHAUSTED
    proposals = [proposal for call in calls for proposal in call]
    assert [proposal.tag["frame"] for proposal in proposals] == [0, 1, 2, 3, 4]
    assert {proposal.tag["file"] for proposal in proposals} == {str(path)}
    assert {proposal.operator for proposal in proposals} == {"seed"}
    assert all(proposal.given for proposal in proposals)
    volumes = [proposal.atoms.get_volume() for proposal in proposals]
    assert volumes == pytest.approx([a**3 / 4 for a in (5.4, 5.5, 5.6, 5.7, 5.8)])


def test_resumed_search_continues_with_the_next_seed(tmp_path):
    path = tmp_path / "seeds.extxyz"
    write(path, [rock_salt(a) for a in (5.4, 5.5, 5.6)])
    first = SeedsSource(PROBLEM, str(path))
    before = take(first, 1) + take(first, 1)
    resumed = SeedsSource(PROBLEM, str(path))
    for i, proposal in enumerate(before):
        resumed.proposed([Candidate(proposal=proposal, id=i + 1, source="seeds")])
    assert take(resumed, 1)[0].atoms == take(first, 1)[0].atoms
    assert resumed.status() is SourceStatus.EXHAUSTED


@pytest.mark.parametrize(
    "name", ["a.extxyz", "a.cif", "POSCAR", "a.vasp", "a.res", "a.json", "a.db", "a.traj", "a.xsf"]
)
def test_formats_of_ase_are_read(tmp_path, name):
    if name.endswith(".db"):
        with connect(tmp_path / name) as database:
            database.write(rock_salt())
    else:
        write(tmp_path / name, rock_salt())
    (proposal,) = SeedsSource(PROBLEM, str(tmp_path / name)).propose(5, context())
    assert sorted(proposal.atoms.symbols) == ["Cl", "Na"]
    assert proposal.atoms.get_volume() == pytest.approx(5.6**3 / 4)
    assert proposal.atoms.get_all_distances(mic=True)[0, 1] == pytest.approx(2.8)


def test_folder_is_read_by_name_and_unusable_structures_are_reported(tmp_path):
    write(tmp_path / "b.extxyz", [rock_salt(5.5), bulk("KCl", "rocksalt", a=6.3)])
    write(tmp_path / "a.cif", rock_salt(5.4))
    (tmp_path / "c.cif").write_text("this is no crystal\n")
    (tmp_path / "d.extxyz").write_text("")
    (tmp_path / ".hidden").write_text("never looked at")
    (tmp_path / "folder").mkdir()
    source = SeedsSource(PROBLEM, str(tmp_path))
    proposals = source.propose(9, context())
    assert [Path(proposal.tag["file"]).name for proposal in proposals] == ["a.cif", "b.extxyz"]
    found = {Path(where).name: why for where, why in source.unusable}
    assert set(found) == {"b.extxyz, frame 1", "c.cif", "d.extxyz"}
    assert "ClK is not a whole number of NaCl" in found["b.extxyz, frame 1"]
    assert "not a CIF" in found["c.cif"]
    assert "no structure" in found["d.extxyz"]


def test_moments_and_charges_stay_and_everything_else_goes(tmp_path):
    atoms = rock_salt()
    atoms.set_initial_magnetic_moments([1.5, -0.5])
    atoms.set_initial_charges([1.0, -1.0])
    atoms.info["energy_of_last_year"] = -3.0
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-7.0, forces=np.zeros((2, 3)))
    write(tmp_path / "a.traj", atoms)
    (proposal,) = SeedsSource(PROBLEM, str(tmp_path / "a.traj")).propose(1, context())
    assert proposal.atoms.get_initial_magnetic_moments().tolist() == [1.5, -0.5]
    assert proposal.atoms.get_initial_charges().tolist() == [1.0, -1.0]
    assert proposal.atoms.calc is None
    assert proposal.atoms.info == {}
    assert proposal.atoms.constraints == []


def test_a_large_cell_is_reduced_and_keeps_its_moments(tmp_path):
    atoms = rock_salt(cubic=True)
    atoms.set_initial_magnetic_moments([2.0 if symbol == "Na" else 0.5 for symbol in atoms.symbols])
    write(tmp_path / "a.extxyz", atoms)
    (proposal,) = SeedsSource(PROBLEM, str(tmp_path / "a.extxyz")).propose(1, context())
    assert len(proposal.atoms) == 2
    assert proposal.atoms.get_volume() == pytest.approx(5.6**3 / 4)
    moments = dict(zip(proposal.atoms.symbols, proposal.atoms.get_initial_magnetic_moments(), strict=True))
    assert moments == {"Na": 2.0, "Cl": 0.5}


def test_a_cell_that_moments_make_too_large_is_not_reduced(tmp_path):
    atoms = rock_salt(cubic=True)
    atoms.set_initial_magnetic_moments([1.0, 0, -1.0, 0, 2.0, 0, -2.0, 0])
    write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(InputError, match="4 formula units"):
        SeedsSource(PROBLEM, str(tmp_path / "a.extxyz"))


def not_periodic():
    return Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]])


def noncollinear():
    atoms = rock_salt()
    atoms.set_initial_magnetic_moments(np.ones((2, 3)))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "why"),
    [
        (not_periodic(), "no cell that is periodic"),
        (molecule("H2O", cell=(9, 9, 9), pbc=True), "H2O is not a whole number of NaCl"),
        (bulk("NaCl", "rocksalt", a=5.6) * (3, 1, 1), None),
        (
            Atoms("Na3Cl3", rng := np.random.default_rng(0).random((6, 3)) * 6, cell=[6, 7, 8], pbc=True),
            "3 formula units",
        ),
        (noncollinear(), "non-collinear"),
    ],
    ids=["molecule", "other contents", "supercell that reduces", "too large", "non-collinear"],
)
def test_unusable_structures_are_refused_with_their_reason(tmp_path, atoms, why):
    path = tmp_path / "a.traj"
    write(path, atoms)
    if why is None:
        assert len(SeedsSource(PROBLEM, str(path))) == 1
        return
    with pytest.raises(InputError, match=why) as raised:
        SeedsSource(PROBLEM, str(path))
    assert "1 or 2 formula units of NaCl" in str(raised.value)


def test_partly_occupied_sites_are_refused(tmp_path):
    path = tmp_path / "a.cif"
    write(path, rock_salt())
    whole = path.read_text()
    path.write_text(whole.replace("0.0  0.0  0.0  1.0000", "0.0  0.0  0.0  0.5000"))
    assert path.read_text() != whole
    with pytest.raises(InputError, match="partly occupied"):
        SeedsSource(PROBLEM, str(path))


@pytest.mark.parametrize(
    ("prepare", "argument", "message"),
    [
        (lambda folder: None, "nothing_here.cif", "no such file or folder"),
        (lambda folder: (folder / "empty").mkdir(), "empty", "holds no files"),
        (lambda folder: (folder / "a.extxyz").write_text(""), "a.extxyz", "contains no structure"),
        (lambda folder: (folder / "a.xyz").write_text("3\n\nNa 0 0\n"), "a.xyz", "ends after 1 of 3 atoms"),
    ],
    ids=["missing", "empty folder", "empty file", "broken file"],
)
def test_path_without_structures_is_an_error_with_the_reason(tmp_path, prepare, argument, message):
    prepare(tmp_path)
    with pytest.raises(InputError, match=message):
        SeedsSource(PROBLEM, str(tmp_path / argument))


def test_a_path_is_needed():
    with pytest.raises(InputError, match="seeds:PATH"):
        SeedsSource(PROBLEM)


def test_only_the_first_few_of_many_unusable_ones_are_named(tmp_path):
    write(tmp_path / "a.extxyz", [bulk("KCl", "rocksalt", a=6.3)] * 30)
    with pytest.raises(InputError, match="and 25 more"):
        SeedsSource(PROBLEM, str(tmp_path / "a.extxyz"))


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


@pytest.mark.parametrize(
    "name", ["a.pckl", "a.pkl", "a.pickle", "a.traj", "a.trj", "a.db", "a.json", "a.npy", "a", "a.pkl.gz"]
)
def test_pickles_are_never_executed(tmp_path, name):
    mark = tmp_path / "executed"
    data = pickle.dumps(Bomb(str(mark)), protocol=2)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(InputError, match="no usable structure"):
        SeedsSource(PROBLEM, str(tmp_path / name))
    assert not mark.exists()
    pickle.loads(data)  # the bomb works
    assert mark.exists()


def test_compressed_files_are_read_in_linear_time(tmp_path):
    atoms = rock_salt()
    times = []
    for n in (500, 2000):
        write(tmp_path / "a.extxyz", [atoms] * n)
        (tmp_path / "a.extxyz.gz").write_bytes(gzip.compress((tmp_path / "a.extxyz").read_bytes()))
        start = time.process_time()
        source = SeedsSource(PROBLEM, str(tmp_path / "a.extxyz.gz"))
        times.append(time.process_time() - start)
        assert len(source) == n
    assert times[1] < 10 * times[0]
    (proposal,) = source.propose(1, context())
    assert proposal.tag["file"].endswith("a.extxyz.gz")


def test_structures_found_by_another_code_are_seeds(tmp_path):
    atoms = rutile()
    run = uspex_run(tmp_path / "run", [atoms, atoms * (1, 1, 3), atoms], [-50.0, -150.0, 100000.0])
    with (run / "results1" / "gatheredPOSCARS").open("a") as stream:
        stream.write("cut off\n1.0\n")
    seeds = SeedsSource(Problem("TiO2", formula_units=(1, 2)), str(run))
    assert len(seeds) == 2  # the second as its primitive cell; the third failed
    ((where, why),) = seeds.unusable
    assert "gatheredPOSCARS, line" in where
    assert "POSCAR" in why
