"""Zip archives and other files that may hold anything."""

import csv
import zipfile

import ase.io
import pytest
from crystals import rutile

from hybridcsp.errors import UnreadableError
from hybridcsp.io import zip_archives
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.structure_files import read_structures


@pytest.fixture
def cif(tmp_path):
    ase.io.write(tmp_path / "a.cif", rutile())
    return (tmp_path / "a.cif").read_text()


def zipped(file, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def told(file):
    found = list(read_structures(file))
    good = {str(one.file.relative_to(file)): one.atoms for one in found if not isinstance(one, ReadFailure)}
    return good, {str(one.file.relative_to(file)): one.reason for one in found if isinstance(one, ReadFailure)}


def test_members_are_read_by_name_without_extracting_them(tmp_path, cif):
    file = zipped(tmp_path / "a.zip", {"x/b.cif": cif, "../../c.cif": cif, ".hidden": cif, "__MACOSX/d.cif": cif})
    good, broken = told(file)
    assert set(good) == {"x/b.cif", "../../c.cif"}
    assert not broken
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.cif", "a.zip"}


def test_empty_members_are_reported_and_long_names_are_read(tmp_path, cif):
    name = f"{'晶' * 120}.cif"
    good, broken = told(zipped(tmp_path / "a.zip", {"b.cif": "", name: cif}))
    assert set(good) == {name}
    assert set(broken) == {"b.cif"}


def test_bad_member_does_not_affect_others(tmp_path, cif):
    inner = zipped(tmp_path / "inner.zip", {"b.cif": cif}).read_bytes()
    file = zipped(tmp_path / "a.zip", {"b.cif": cif, "c.cif": "data_", "d.zip": inner, "e.cif": cif})
    data = bytearray(file.read_bytes())
    at = data.index(b"e.cif") + 40
    data[at : at + 8] = b"\xff" * 8
    file.write_bytes(data)
    good, broken = told(file)
    assert set(good) == {"b.cif"}
    assert set(broken) == {"c.cif", "d.zip", "e.cif"}
    assert "inside an archive" in broken["d.zip"]
    assert "damaged" in broken["e.cif"]


def test_zip_bombs_and_endless_member_lists_are_refused(tmp_path, cif, monkeypatch):
    file = zipped(tmp_path / "a.zip", {"a.cif": "0" * (40 << 20)})
    with pytest.raises(UnreadableError, match="100 times"):
        list(zip_archives.members(file))
    file = zipped(tmp_path / "b.zip", {f"{i}.cif": "" for i in range(50)})
    monkeypatch.setattr(zip_archives, "_MAX_LIST_SIZE", 1000)
    with pytest.raises(UnreadableError, match="list of files"):
        list(zip_archives.members(file))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unsupported_compression_is_named(tmp_path, cif, compression):
    _, broken = told(zipped(tmp_path / "a.zip", {"a.cif": cif}, compression))
    assert "usual zip compression" in broken["a.cif"]


@pytest.mark.parametrize("end", [0, 10, 200, -5, -30])
def test_truncated_archives_are_reported(tmp_path, cif, end):
    file = zipped(tmp_path / "a.zip", {"a.cif": cif})
    file.write_bytes(file.read_bytes()[:end])
    (broken,) = read_structures(file)
    assert isinstance(broken, ReadFailure)
    assert "archive" in broken.reason


def test_bad_row_of_a_table_does_not_affect_others(tmp_path, cif):
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["id", "cif"], [1, cif], [2, "nothing"], [3, cif + "# long\n" * 200_000], [4, cif]]
        )
    kinds = [isinstance(found, ReadFailure) for found in read_structures(tmp_path / "a.csv")]
    assert kinds[0] is False
    assert kinds[1] is True
    assert kinds[2] is True
    (tmp_path / "b.csv").write_text("id,text\n1,2\n")
    (broken,) = read_structures(tmp_path / "b.csv")
    assert "column of CIFs, named cif" in broken.reason
