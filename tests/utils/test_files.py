import os
import stat
import threading
from pathlib import Path

import pytest

from hybridcsp.errors import InputError
from hybridcsp.utils.files import (
    atomic_folder,
    atomic_write,
    check_writable,
    end_of_log,
    folder_within,
    make_folder,
    open_log,
)


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def put(path, text="new", **options):
    with atomic_write(path, **options) as stream:
        stream.write(text)


def test_file_appears_when_complete_with_umask_permissions(tmp_path):
    file = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        with atomic_write(file) as stream:
            stream.write("one\ntwo Å\n")
            assert not file.exists()
    finally:
        os.umask(before)
    assert file.read_bytes() == "one\ntwo Å\n".encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert entries(tmp_path) == ["a.txt"]


def test_bytes_and_surrogates_are_written(tmp_path):
    with atomic_write(tmp_path / "b", "wb") as stream:
        stream.write(b"\xff")
    put(tmp_path / "c", "\udc80")
    assert (tmp_path / "b").read_bytes() == b"\xff"
    assert (tmp_path / "c").read_text() == r"\udc80"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_error_leaves_the_previous_file_only(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(error, match="of the person"), atomic_write(file) as stream:
        stream.write("half")
        raise error("of the person")
    assert file.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]


def test_replaced_file_keeps_its_permissions(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    file.chmod(0o604)
    put(file)
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o604


def test_full_disk_is_reported_as_input_error():
    with (
        pytest.raises(InputError, match=r"output = '/dev/full'.*No space left"),
        atomic_write(Path("/dev/full"), key="output") as stream,
    ):
        stream.write("x" * 100_000)
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_fifo_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    put(pipe, follow=True)
    reader.join(10)
    assert got == ["new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_unexpected_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "minima.extxyz")
    with pytest.raises(InputError, match="not a named pipe"):
        put(tmp_path / "minima.extxyz")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_is_written_to(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(Path(name))
    assert capsys.readouterr().out == "new"
    assert entries(tmp_path) == []


def test_redirected_descriptor_is_appended_to(tmp_path):
    file = tmp_path / "log"
    with file.open("w") as log:
        log.write("before\n")
        log.flush()
        put(Path(f"/dev/fd/{log.fileno()}"))
    assert file.read_text() == "before\nnew"


def test_link_is_refused_by_default(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a.txt").symlink_to(victim)
    with pytest.raises(InputError, match="symbolic link"):
        put(tmp_path / "a.txt")
    assert victim.read_text() == "precious"


def test_own_link_is_followed_if_requested(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "a.txt").symlink_to("b.txt")
    (tmp_path / "b.txt").symlink_to("far/target")
    put(tmp_path / "a.txt", follow=True)
    assert (tmp_path / "far" / "target").read_text() == "new"
    assert (tmp_path / "a.txt").is_symlink()
    assert entries(tmp_path / "far") == ["target"]


def test_link_in_a_world_writable_folder_is_refused(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "a.txt").symlink_to(victim)
    with pytest.raises(InputError, match="another user may have created"):
        put(shared / "a.txt", follow=True)
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
def test_link_of_another_user_is_refused(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.txt").symlink_to("victim")
    os.chown(tmp_path / "a.txt", 12345, 12345, follow_symlinks=False)
    os.seteuid(12346)
    try:
        with pytest.raises(InputError):
            put(tmp_path / "a.txt", follow=True)
    finally:
        os.seteuid(0)
    assert (tmp_path / "victim").read_text() == "precious"


def test_cyclic_links_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match="a cycle of symbolic links"):
        put(tmp_path / "a", follow=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: at.mkdir(), "not a folder"),
        (lambda at: os.mknod(at, 0o600 | stat.S_IFSOCK), "not a socket"),
    ],
)
@pytest.mark.parametrize("begin", [put, check_writable])
def test_anything_but_a_file_is_refused_and_stays(tmp_path, make, said, begin):
    make(tmp_path / "a")
    before = (tmp_path / "a").stat()
    with pytest.raises(InputError, match=said):
        begin(tmp_path / "a")
    assert (tmp_path / "a").stat() == before


@pytest.mark.parametrize("begin", [put, check_writable])
def test_missing_folder_and_long_name_are_reported(tmp_path, begin):
    with pytest.raises(InputError, match="a file in an existing folder"):
        begin(tmp_path / "none" / "a")
    with pytest.raises(InputError, match="too long"):
        begin(tmp_path / ("a" * 300))
    assert entries(tmp_path) == []


def test_check_leaves_no_file_behind(tmp_path):
    check_writable(tmp_path / "a")
    assert entries(tmp_path) == []


def test_several_files_appear_together(tmp_path):
    with atomic_folder(tmp_path / "new" / "folder") as folder:
        (folder / "1").write_text("one")
        (folder / "2").write_text("two")
        assert not (tmp_path / "new" / "folder").exists()
    assert entries(tmp_path / "new") == ["folder"]
    assert entries(tmp_path / "new" / "folder") == ["1", "2"]


def test_existing_folder_gains_files_and_loses_none(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("mine")
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "1").write_text("one")
    assert entries(tmp_path / "a") == ["1", "mine"]
    with pytest.raises(InputError, match="mine exists already"), atomic_folder(tmp_path / "a") as folder:
        (folder / "0").write_text("zero")
        (folder / "mine").write_text("other")
    assert (tmp_path / "a" / "mine").read_text() == "mine"
    assert entries(tmp_path / "a") == ["1", "mine"]
    assert entries(tmp_path) == ["a"]


def test_failed_folder_does_not_appear(tmp_path):
    with pytest.raises(ValueError, match="no"), atomic_folder(tmp_path / "a") as folder:
        (folder / "1").write_text("one")
        raise ValueError("no")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder, not a file"), atomic_folder(tmp_path / "file"):
        pass
    with pytest.raises(InputError, match="a file is in its place"):
        make_folder(tmp_path / "file" / "below")
    assert entries(tmp_path) == ["file"]


def test_output_is_appended_to_a_log(tmp_path):
    for text in (b"one", b"two"):
        with open_log(tmp_path / "worker.log") as log:
            log.write(text)
            log.flush()
    assert log.closed
    assert (tmp_path / "worker.log").read_bytes() == b"onetwo"


def test_log_must_be_a_regular_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "nowhere").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "nowhere"):
        with pytest.raises(InputError, match="not a symbolic link; remove the link"):
            open_log(tmp_path / name)
    for name in ("fifo", ".", "missing/log"):
        with pytest.raises(InputError, match="log = "):
            open_log(tmp_path / name)
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "new").exists()


def test_nested_folders_follow_no_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    named = tmp_path / "named"
    named.symlink_to(tmp_path / "run")
    assert folder_within(named, "models", "flow") == named / "models" / "flow"
    assert (tmp_path / "run/models/flow").is_dir()
    (tmp_path / "run/workers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a folder, not a symbolic link"):
        folder_within(named, "workers", "deep")
    assert entries(tmp_path / "elsewhere") == []


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    log = tmp_path / "worker.log"
    with log.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk, but would not fit into memory
        file.seek(0, os.SEEK_END)
        file.write("\nlast words: 3 Å\n".encode())
    assert end_of_log(log).splitlines()[-1] == "last words: 3 Å"
    log.write_text("of an earlier worker\nof this one\n")
    assert end_of_log(log, start=len("of an earlier worker\n")) == "of this one"
    assert end_of_log(log, 4) == "one"
