import bz2
import gzip
import json
import lzma
import os
import pickle
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hybridcsp.errors import UnreadableError
from hybridcsp.utils import compression, reading

PACKERS = [gzip.compress, bz2.compress, lzma.compress]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


def lines(file):
    with reading.open_text(file) as stream:
        return list(reading.lines_of(stream, file))


@pytest.mark.parametrize("pack", PACKERS)
def test_compression_is_recognised_by_content(file, pack):
    file.write_bytes(pack(b"one\ntwo\n") + pack(b"three\n") + b"\0" * 512)
    assert lines(file) == ["one\n", "two\n", "three\n"]
    file.with_suffix(".gz").write_bytes(b"not compressed at all")
    assert lines(file.with_suffix(".gz")) == ["not compressed at all"]


@pytest.mark.parametrize("pack", PACKERS)
def test_data_before_the_damage_are_read(file, pack):
    text = "".join(f"{i}\n" for i in range(100_000))
    packed = pack(text.encode())
    file.write_bytes(packed[:-9])
    with reading.open_text(file) as stream, pytest.raises(UnreadableError, match="ends too early"):
        for n, line in enumerate(reading.lines_of(stream, file)):
            assert line == f"{n}\n"
    file.write_bytes(packed[:5000] + b"?" + packed[5001:])
    with pytest.raises(UnreadableError, match="damaged"):
        lines(file)


@pytest.mark.parametrize("pack", PACKERS)
def test_double_compression_and_archives_are_refused(file, pack):
    file.write_bytes(pack(pack(b"text")))
    with pytest.raises(UnreadableError, match="more than once"):
        reading.read_bytes(file)
    file.write_bytes(pack(b"PK\x03\x04"))
    with pytest.raises(UnreadableError, match="more than once"):
        reading.read_bytes(file)


def test_decompression_bomb_is_refused_early(file):
    with gzip.open(file, "wb") as packed:
        for _ in range(40):
            packed.write(b"0\n" * (1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableError, match="100 times its size"), reading.open_text(file) as stream:
        for _ in reading.lines_of(stream, file):
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_lines_and_documents_have_size_limits(file, monkeypatch):
    file.write_text("short\n" + "x" * (reading.LONGEST_LINE + 1))
    with pytest.raises(UnreadableError, match="a line of more than 1,048,576") as raised:
        lines(file)
    assert raised.value.line == 2
    with pytest.raises(UnreadableError, match=r"more than 0\.5 MiB"):
        reading.read_bytes(file, 1 << 19)
    monkeypatch.setattr(compression, "LARGEST_UNPACKED", 10_000)
    file.write_bytes(gzip.compress(os.urandom(200_000)))
    with pytest.raises(UnreadableError, match="unpacks to more"):
        reading.read_bytes(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_and_line_endings_are_normalised(file, encoding):
    file.write_bytes("é\r\nb\rc\n".encode(encoding))
    assert lines(file) == ["é\n", "b\n", "c\n"]
    assert reading.read_text(file) == "é\nb\nc\n"


def test_only_regular_files_are_opened_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
        for path, what in [
            (tmp_path / "pipe", "a named pipe"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
            (tmp_path, "a folder"),
            (tmp_path / "nothing", "No such file"),
            (tmp_path / "nul\0", "null byte"),
        ]:
            with pytest.raises(UnreadableError, match=what):
                reading.open_text(path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert reading.read_text(tmp_path / "link") == "text"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(file):
    file.write_text("text")
    file.chmod(0)
    with pytest.raises(UnreadableError, match="Permission"):
        reading.open_text(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper"),
        ("[" * 60 + "]" * 60, "nested deeper"),
        ('{"a": 1, "a": 2}', "twice"),
        ("9" * 5000, "not JSON"),
        ('{"a": ', "not JSON"),
        ("", "not JSON"),
        (b"\x80\x04\x95", "not JSON"),
    ],
)
def test_invalid_json_is_explained(file, text, said):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnreadableError, match=said):
        reading.read_json(file)


def test_json_is_read_as_python_objects(file):
    content = {"@module": "os", "@class": "system", "a": [1, 2.5, None, "x"]}
    file.write_text(json.dumps(content))
    assert reading.read_json(file) == content


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a." * 50_000 + "b = 1", "dotted key"),
        ('"a b" . ' * 60 + "c = 1", "dotted key"),
        ("a = " + "[" * 5000, "nested deeper"),
        ("[" + "a." * 40 + "b]\nc = " + "[" * 20 + "]" * 20, "nested deeper"),
        ("a = 1\n" * 100_000, "MiB"),
        ("a = 1\0", "not TOML"),
        ("a = " + "7" * 5000, "not TOML"),
        (b'a = "\xe9"', "UTF-8"),
    ],
)
def test_invalid_toml_is_explained(file, text, said):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnreadableError, match=said):
        reading.read_toml(file)


def test_toml_with_a_byte_order_mark_is_read(file):
    file.write_bytes("[search]\r\nsources = ['a.b.c']\r\n".encode("utf-8-sig"))
    assert reading.read_toml(file) == {"search": {"sources": ["a.b.c"]}}


def test_plain_copy_exists_only_for_compressed_files_and_within_the_block(tmp_path):
    plain, packed = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    plain.write_text("text")
    packed.write_bytes(gzip.compress(b"text"))
    with reading.plain_copy(plain) as found:
        assert found == plain
    with reading.plain_copy(packed) as found:
        assert found.name == "b.txt"
        assert found.read_text() == "text"
    assert not found.exists()


def test_errors_can_be_pickled(file):
    error = pickle.loads(pickle.dumps(UnreadableError(file, "why", line=3)))
    assert (error.file, error.reason, error.line, str(error)) == (file, "why", 3, f"{file}: why")


def test_no_heavy_package_is_imported():
    code = "import sys, hybridcsp.utils.reading; print({'numpy', 'ase', 'pymatgen', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
