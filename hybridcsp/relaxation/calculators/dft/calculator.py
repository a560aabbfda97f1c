"""The ASE calculator of a DFT file, whose calculations run in the folder of the job."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from hybridcsp.core.records import Job
from hybridcsp.errors import InputError, message_of
from hybridcsp.relaxation.calculators.dft.codes import read_dft_file
from hybridcsp.relaxation.calculators.dft.journal import arrays, key_of, plain
from hybridcsp.relaxation.calculators.dft.program import ProgramError, run_program, tail
from hybridcsp.relaxation.calculators.dft.settings import DFTFile, DFTSettings
from hybridcsp.relaxation.calculators.dft.workspace import Workspace
from hybridcsp.relaxation.calculators.jobs import JobCalculator, OwnRelaxation, Stage, Target

#: Results that are kept; all others of a code are dropped.
_RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms")

#: File that says that the last calculation of a folder has succeeded, so that its wave functions can be used again.
_SUCCESS = "succeeded"


def build_dft(argument: str | None) -> tuple[Calculator, str]:
    """Build the calculator of a DFT file.

    Parameters
    ----------
    argument
        Path of the file.

    Returns
    -------
    tuple of Calculator and str
        The calculator, and a label with the version of the code and hashes of all settings that change energies.

    Raises
    ------
    InputError
        If the file has a mistake.
    CalculatorError
        If the code does not answer.
    """
    if argument is None:
        raise InputError("calculator", "dft", "the path of a DFT file, such as dft.toml")
    file = read_dft_file(Path(argument))
    file.check()
    return DFTCalculator(file), file.label()


class StageCalculator(Calculator):  # type: ignore[misc]
    """Single points with the settings of one stage.

    Parameters
    ----------
    settings
        Settings of the stage.
    workspace
        Folder of the present job.
    number
        Number of the stage, from 1.
    """

    implemented_properties = _RESULTS

    def __init__(self, settings: DFTSettings, workspace: Workspace, number: int) -> None:
        super().__init__()
        self.settings, self.workspace, self.number = settings, workspace, number

    @cached_property
    def identity(self) -> str:
        """Text that stands for the settings in the journal: results of another version of the code are not taken."""
        return f"{self.settings.found_version} {self.settings.digest} {self.settings.digest_of_files()}"

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate all properties at once, or take them from the journal of the job.

        Raises
        ------
        ProgramError
            If the code fails; the message ends with that of its output.
        TimeUsedUpError
            If the time of the job is used up.
        """
        super().calculate(atoms, properties, system_changes)
        structure = self.settings.prepared(self.atoms)
        journal = self.workspace.journal
        key = key_of(structure, self.identity)
        known = journal.get(key)
        if known is None:
            results = self.run(structure, None, self.settings.read)
            known = plain({name: value for name, value in results.items() if name in _RESULTS and value is not None})
            journal.add(key, known)
        self.results = arrays(known)

    def run(self, structure: Atoms, target: Target | None, read: Any) -> Any:
        """Run the code in the folder of the stage, and return what a function reads from there.

        A calculation that began with wave functions or a density of an earlier one is repeated without them if it
        fails, because these may not fit to the structure.

        Parameters
        ----------
        structure
            The structure, with initial magnetic moments.
        target
            End of a relaxation by the code itself; ``None`` for a single point.
        read
            Function of the folder and the structure.

        Raises
        ------
        ProgramError, TimeUsedUpError
            As in :meth:`calculate`.
        """
        folder = self.workspace.stage(self.number)
        success = folder / _SUCCESS
        reuse = self.settings.restart and success.exists()
        success.unlink(missing_ok=True)
        for fresh in (False, True) if reuse else (True,):
            try:
                found = self._run_once(folder, structure, target, read, fresh=fresh)
            except ProgramError:
                if fresh:
                    raise
            else:
                success.touch()
                break
        return found

    def _run_once(self, folder: Path, structure: Atoms, target: Target | None, read: Any, *, fresh: bool) -> Any:
        settings, workspace = self.settings, self.workspace
        command = settings.write(folder, structure, fresh=fresh, target=target)
        failure: ProgramError | None = None
        try:
            run_program(command, folder, settings.outputs[0], seconds=workspace.seconds, inherited=workspace.inherited)
        except ProgramError as error:
            # A relaxation that has made all its steps is a failure for some codes.
            if target is None:
                raise
            failure = error
        try:
            return read(folder, structure)
        except Exception as error:  # the readers of ASE raise anything for an output that they do not understand
            if failure is not None:
                raise failure from error
            if isinstance(error, ProgramError):
                raise
            ends = tail(*(folder / name for name in settings.outputs))
            raise ProgramError(f"the output cannot be read ({message_of(error)}){ends}") from error


class CodeRelaxation(OwnRelaxation):
    """Relaxation by the code itself with the settings of a stage.

    Parameters
    ----------
    calculator
        The calculator of the stage.
    """

    def __init__(self, calculator: StageCalculator) -> None:
        self._calculator = calculator

    def relax(self, atoms: Atoms, target: Target) -> int:
        """Move atoms to a minimum and return the number of steps.

        A relaxation that was interrupted goes on from the last structure in its output.
        """
        calculator, settings = self._calculator, self._calculator.settings
        journal = calculator.workspace.journal
        start = settings.prepared(atoms)
        key = key_of(start, f"{calculator.identity} {target}")
        known = journal.get(key)
        if known is None:
            earlier = 0
            if journal.get(f"begun {key}") is not None:
                start, earlier = self._interrupted(start)
            for name in settings.outputs:  # of earlier calculations, which an interrupted one must not be taken for
                (calculator.workspace.stage(calculator.number) / name).unlink(missing_ok=True)
            journal.add(f"begun {key}", True)
            end, steps = calculator.run(start, target, settings.read_relaxed)
            known = {"cell": end.cell.array.tolist(), "positions": end.positions.tolist(), "steps": earlier + steps}
            journal.add(key, known)
        atoms.set_cell(known["cell"])
        atoms.set_positions(known["positions"])
        return int(known["steps"])

    def _interrupted(self, start: Atoms) -> tuple[Atoms, int]:
        """Return the last structure of the relaxation that was interrupted, and the number of its steps."""
        settings, folder = self._calculator.settings, self._calculator.workspace.stage(self._calculator.number)
        try:
            end, steps = settings.read_relaxed(folder, start)
        except Exception:  # noqa: BLE001 - the readers of ASE raise anything for an output that ends anywhere
            return start, 0
        moved = start.copy()
        moved.set_cell(end.cell.array)
        moved.set_positions(end.positions)
        return moved, steps


class DFTCalculator(StageCalculator, JobCalculator):
    """The calculator of a DFT file: single points of its last stage, and the stages before that.

    Parameters
    ----------
    file
        The file.
    """

    def __init__(self, file: DFTFile) -> None:
        last = file.last
        super().__init__(last, Workspace(last.keep, last.scratch), len(file.stages))
        self.file = file
        self.earlier = tuple(self._stage(settings, number) for number, settings in enumerate(file.stages[:-1], 1))
        self.own = CodeRelaxation(self) if last.relax == "code" else None

    def _stage(self, settings: DFTSettings, number: int) -> Stage:
        calculator = StageCalculator(settings, self.workspace, number)
        own = CodeRelaxation(calculator) if settings.relax == "code" else None
        return Stage(calculator=calculator, max_force=settings.max_force, own=own)

    def work_in(self, folder: Path | None) -> None:
        """Set the run directory, as in the base class."""
        self.workspace.work_in(folder)

    def begin(self, job: Job) -> None:
        """Make or take the folder of a job, as in the base class."""
        self.reset()  # its results are those of the journal of another job
        for stage in self.earlier:
            stage.calculator.reset()
        self.workspace.begin(job)

    def end(self, *, failed: bool) -> None:
        """Remove the folder of a job unless it is to be kept, as in the base class."""
        self.workspace.end(failed=failed)
