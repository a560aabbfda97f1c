"""The folder in which a job computes: its place, its lock, its journal, and whether it is kept."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from hybridcsp.core.records import Job
from hybridcsp.relaxation.calculators.dft.journal import Journal
from hybridcsp.relaxation.calculators.dft.program import ProgramError
from hybridcsp.utils.files import folder_within, make_folder
from hybridcsp.utils.locks import FileLock, LockHeldError

#: Name of the folder of all jobs in a run directory.
JOBS = "dft"

# Time in s in which the program of an interrupted job must have ended.
_PATIENCE = 30.0


class Workspace:
    """The folder of the job that runs, which the stages of a calculator share.

    Parameters
    ----------
    keep
        Which folders remain after their jobs: ``"failed"``, ``"all"`` or ``"none"``.
    scratch
        Folder in which the folders of a run directory are made; ``None`` for the run directory itself.
    """

    def __init__(self, keep: str, scratch: Path | None) -> None:
        self._keep, self._scratch = keep, scratch
        self._run: Path | None = None
        self._lock: FileLock | None = None
        self._folder: Path | None = None
        self._journal: Journal | None = None
        self._end: float | None = None

    def work_in(self, run: Path | None) -> None:
        """Set the run directory."""
        self._run = run

    def begin(self, job: Job) -> None:
        """Make the folder of a job, or take the one that an interrupted run has left.

        Raises
        ------
        ProgramError
            If a program of an interrupted run still computes in it.
        """
        self._leave()
        self._end = time.monotonic() + job.limits.seconds
        number = f"-{job.calculator}" if job.calculator else ""
        folder = folder_within(self._root(), f"{job.candidate.id:06d}-{job.level}{number}")
        self._lock = _lock(folder / "lock")
        self._folder, self._journal = folder, Journal(folder)

    def end(self, *, failed: bool) -> None:
        """Remove the folder of the job unless it is to be kept."""
        folder = self._folder
        self._leave()
        if folder is not None and not (self._keep == "all" or (self._keep == "failed" and failed)):
            shutil.rmtree(folder, ignore_errors=True)
            if self._run is None:
                with suppress(OSError):  # of a temporary folder, the outer one holds nothing else
                    folder.parent.rmdir()

    def _leave(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = self._folder = self._journal = self._end = None

    def _root(self) -> Path:
        if self._run is not None:
            run = self._run.resolve()
            if self._scratch is None:
                return folder_within(run, JOBS)
            make_folder(self._scratch)
            return folder_within(self._scratch, f"{run.name}-{sha256(str(run).encode()).hexdigest()[:8]}")
        if self._scratch is not None:
            make_folder(self._scratch)
        return Path(mkdtemp(prefix="hybridcsp-dft-", dir=self._scratch))

    def stage(self, number: int) -> Path:
        """Return the folder of a stage, which exists."""
        folder = self.folder / f"stage-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def folder(self) -> Path:
        """Folder of the job; without a job, a temporary one."""
        if self._folder is None:
            self._folder = self._root()
        return self._folder

    @property
    def journal(self) -> Journal:
        """Journal of the job."""
        if self._journal is None:
            self._journal = Journal(self.folder)
        return self._journal

    @property
    def seconds(self) -> float | None:
        """Time in s that is left to the job; ``None`` for no limit."""
        return None if self._end is None else max(1.0, self._end - time.monotonic())

    @property
    def inherited(self) -> tuple[int, ...]:
        """File descriptors that programs keep, so that nothing else computes in the folder while they run."""
        return () if self._lock is None else (self._lock.fileno(),)


def _lock(file: Path) -> FileLock:
    """Lock a file, if need be when the program of an interrupted job has noticed that its search has ended.

    Raises
    ------
    ProgramError
        If it does not end.
    """
    last = time.monotonic() + _PATIENCE
    while True:
        try:
            return FileLock(file)
        except LockHeldError as error:
            if time.monotonic() > last:
                raise ProgramError(f"another program still computes in {file.parent} ({error})") from None
            time.sleep(0.2)
