"""Files are given to ASE's readers only where these do nothing but parse."""

import ase.io
import pytest
from ase.build import bulk
from crystals import rutile

from hybridcsp.io.ase_formats import ASE_FORMATS
from hybridcsp.io.construction import MAX_ATOMS
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.structure_files import read_structures


@pytest.mark.parametrize("name", ["a.xsf", "a.gen", "geometry.in", "a.res", "a.pwi"])
def test_listed_formats_are_read(tmp_path, name):
    more = {"pseudopotentials": {"Na": "a", "Cl": "b"}} if name == "a.pwi" else {}
    ase.io.write(tmp_path / name, bulk("NaCl", "rocksalt", a=5.6), **more)
    (frame,) = read_structures(tmp_path / name)
    assert frame.atoms.get_volume() == pytest.approx(5.6**3 / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.cell", "%BLOCK LATTICE_CART\n3 0 0\n0 3 0\n0 0 3\n%ENDBLOCK LATTICE_CART\n"),
        ("a.gpw", "- of UlmGPAW"),
        ("a.nc", "CDF\x01"),
        ("a.py", "open('RAN', 'w')"),
        ("postgresql:", "x"),
        ("a.pckl", "x"),
        ("a.magic", "nothing that anybody knows"),
    ],
)
def test_unlisted_formats_are_named_and_not_read(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    (broken,) = read_structures(tmp_path / name)
    assert isinstance(broken, ReadFailure)
    assert "not readable" in broken.reason
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_formats_that_execute_code_are_not_listed():
    assert not {"castep-cell", "bundletrajectory", "netcdftrajectory", "gpw", "db", "postgresql", "mysql"} & set(
        ASE_FORMATS
    )


@pytest.mark.parametrize(
    "content",
    [
        '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:99999999999:pos:R:3\nCu 0 0 0\n',
        f'{10**9}\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nCu 0 0 0\n',
        f'{MAX_ATOMS + 1}\nLattice="90 0 0 0 90 0 0 0 90"\n' + "Cu 0 0 0\n" * (MAX_ATOMS + 1),
        '2\nLattice="1e6 0 0 0 3 0 0 0 3"\nCu 0 0 0\nAl 1.5 1.5 1.5\n',
        '1\nLattice="1e-6 0 0 0 1e4 0 0 0 1e4"\nCu 0 0 0\n',
        '1\nLattice="1e4 0 0 9999.99999 0.001 0 0 0 3"\nCu 0 0 0\n',
        '1\nLattice="900 0 0 0 900 0 0 0 900"\nCu 0 0 0\n',
        '1\nLattice="3 0 0 0 3 0 0 0 3"\nCu 1e30 0 0\n',
    ],
    ids=["columns", "header", "too many", "long", "thin", "skewed", "empty", "far away"],
)
def test_absurd_structures_do_not_affect_others(tmp_path, content):
    good = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nCu 0 0 0\n'
    content = content.replace('3"\nCu', '3" Properties=species:S:1:pos:R:3\nCu')
    (tmp_path / "a.extxyz").write_text(content + good)
    found = list(read_structures(tmp_path / "a.extxyz"))
    assert isinstance(found[0], ReadFailure)
    assert all(isinstance(one, ReadFailure) or one.atoms.get_volume() == pytest.approx(27) for one in found)


def test_folders_and_broken_links_with_structure_file_names_are_skipped(tmp_path):
    ase.io.write(tmp_path / "a.cif", rutile())
    (tmp_path / "b.cif").mkdir()
    (tmp_path / "c.cif").symlink_to("nowhere")
    assert len(list(read_structures(tmp_path))) == 1
