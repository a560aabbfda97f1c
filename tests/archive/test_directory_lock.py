import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hybridcsp.archive.directory_lock import check_directory
from hybridcsp.archive.event_log import EventLog
from hybridcsp.errors import ArchiveError, LockedError


def test_a_second_writer_gets_the_process_that_holds_the_directory(tmp_path):
    log = EventLog(tmp_path, write=True)
    with pytest.raises(LockedError, match=f"in use by process {os.getpid()}"):
        EventLog(tmp_path, write=True)
    EventLog(tmp_path, write=False)  # readers need no lock
    log.close()
    EventLog(tmp_path, write=True).close()


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(ArchiveError, match=r"search\.lock cannot be locked .*No locks available.*another disk"):
        EventLog(tmp_path, write=True)


def test_the_lock_ends_with_a_killed_process_and_its_events_are_kept(tmp_path):
    script = """
        import os, sys
        from pathlib import Path
        from hybridcsp.archive.event_log import EventLog
        from hybridcsp.archive.events import RunStopped
        log = EventLog(Path(sys.argv[1]), write=True)
        for reason in "ab":  # within FLUSH_SECONDS
            with log.transaction() as transaction:
                transaction.add(RunStopped(reason=reason))
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -9
    log = EventLog(tmp_path, write=True)
    assert [event.reason for event in log.read()] == ["a", "b"]
    log.close()


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="cannot write to the run directory"):
        EventLog(tmp_path / "file" / "run", write=True)
    with pytest.raises(ArchiveError, match="cannot write to the run directory"):
        check_directory(tmp_path / "file" / "run")
    check_directory(tmp_path / "new" / "run")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]  # it makes nothing


@pytest.mark.skipif(not os.path.lexists("/proc/self"), reason="needs a file system that even root cannot write to")
def test_a_read_only_directory_is_refused():
    with pytest.raises(ArchiveError, match="cannot write to the run directory"):
        EventLog(Path("/proc/self"), write=True)
