"""Executors are checked when they are named: the name, the argument, the file and the package."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from hybridcsp.errors import BackendError, InputError, UnknownNameError
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.backends.executors import EXECUTORS, JobExecutor, base, build_executor, check_executor
from hybridcsp.relaxation.backends.executors import dask as dask_module
from hybridcsp.relaxation.backends.executors.dask import DaskExecutor
from hybridcsp.relaxation.backends.executors.dask_jobqueue import JobQueueExecutor, JobQueueFile
from hybridcsp.relaxation.backends.executors.executorlib import ExecutorlibFile
from hybridcsp.relaxation.backends.executors.parsl import ParslExecutor, ParslFile
from hybridcsp.relaxation.backends.executors.registry import absolute_executor, open_backend
from hybridcsp.relaxation.backends.executors.tables import read_table
from hybridcsp.relaxation.relax import Relaxer

EXAMPLES = Path(__file__).parents[2] / "examples" / "executors"

needs_jobqueue = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed")
needs_parsl = pytest.mark.skipif(find_spec("parsl") is None, reason="parsl is not installed")

MINIMAL = 'scheduler = "slurm"\nprocesses = 4\n'


def written(folder, text):
    path = folder / "jobs.toml"
    path.write_text(text)
    return str(path)


def test_every_entry_is_an_executor():
    for name, entry in EXECUTORS.entries().items():
        kind = entry.load()
        assert issubclass(kind, JobExecutor)
        assert kind.name == name


def test_local_opens_a_pool():
    with open_backend("local", Relaxer(calculator="emt"), workers=2) as backend:
        assert isinstance(backend, WorkerPool)
        assert backend.capacity == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dusk:tcp://head:8786", "did you mean 'dask'"),
        ("dask", "it must be the name with the address of the scheduler"),
        ("dask:", "NAME:ARGUMENT"),
        ("dask:tcp://head 8786", "dask:tcp://head:8786"),
        ("local:4", "the number of worker processes is the setting workers"),
        ("mpi:8", "the number of processes is that of the MPI job"),
        ("parsl", "the path of a TOML file that describes the workers, parsl:FILE"),
        ("dask-jobqueue:nowhere.toml", "nowhere.toml"),
        ("executorlib:nowhere.toml", "nowhere.toml"),
    ],
)
def test_a_wrong_name_or_argument_is_explained(text, message):
    with pytest.raises(InputError, match=message):
        build_executor(text)


@pytest.mark.parametrize("thing", [3, None, Relaxer])
def test_an_executor_is_a_name(thing):
    with pytest.raises(InputError, match="the name of an executor"):
        check_executor(thing)
    with pytest.raises(UnknownNameError):
        check_executor("nothing")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "locate", lambda module: None)
    file = written(tmp_path, MINIMAL)
    for text, extra in [
        ("dask:tcp://head:8786", "dask"),
        (f"dask-jobqueue:{file}", "dask-jobqueue"),
        (f"parsl:{file}", "parsl"),
        ("mpi", "mpi"),
    ]:
        with pytest.raises(InputError, match=rf'not installed: pip install "hybridcsp\[{extra}\]"'):
            build_executor(text)


def test_paths_of_files_become_absolute(tmp_path):
    for text in ("parsl:jobs.toml", "dask-jobqueue:jobs.toml", "executorlib:jobs.toml", "dask:scheduler.json"):
        name, _, file = text.partition(":")
        assert absolute_executor(text, tmp_path) == f"{name}:{tmp_path / file}"
    for text in ("dask:tcp://head:8786", "local", "mpi"):
        assert absolute_executor(text, tmp_path) == text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('scheduler = "lsf"\nprocesses = 4', "scheduler = 'lsf' is not valid: it must be one of slurm, pbs, sge"),
        ('scheduler = "slurm"', "processes is missing: it has no default; add it to the file"),
        (MINIMAL + "procs = 3", "did you mean 'processes'"),
        ('scheduler = "slurm"\nprocesses = 0', "processes = 0 is not valid: it must be a whole number from 1"),
        ('scheduler = "slurm"\nprocesses = "four"', "processes = 'four' is not valid: it must be a whole number"),
        (MINIMAL + "jobs = 2\nmin_jobs = 3", "min_jobs = 3 is not valid: it must be a number up to that of jobs, 2"),
        (MINIMAL + "cores = 2", "cores = 2 is not valid: it must be a number from that of processes, 4"),
        (MINIMAL + 'walltime = "1 day"', "hours, minutes and seconds, such as 24:00:00"),
        (MINIMAL + 'memory = "64"', "an amount of memory with its unit, such as 64GB"),
        (MINIMAL + 'queue = "a\\nb"', "a text of one line"),
        (MINIMAL + 'prologue = "module load gcc"', "a list, each item of it a text of one line"),
        (MINIMAL + "directives = [3]", r"directives.0 = 3 is not valid: it must be a text of one line"),
        (MINIMAL + 'parallel_environment = "smp"', "it belongs to SGE, and the scheduler is slurm"),
        ('scheduler = "sge"\nprocesses = 4', "the parallel environment of SGE for jobs of several cores"),
        ("scheduler = ", "TOML"),
    ],
)
def test_a_mistake_in_a_file_is_explained(tmp_path, lines, message):
    file = written(tmp_path, lines + "\n")
    with pytest.raises(InputError, match=message) as caught:
        read_table(file, JobQueueFile, "dask-jobqueue")
    assert file in str(caught.value)


@pytest.mark.parametrize("name", ["slurm", "pbs", "sge"])
def test_examples_describe_jobs_of_dask_and_of_parsl(name):
    file = str(EXAMPLES / f"{name}.toml")
    for model in (JobQueueFile, ParslFile):
        assert read_table(file, model, "parsl").scheduler == name


def test_the_other_examples_are_valid():
    assert read_table(str(EXAMPLES / "this_machine.toml"), ParslFile, "parsl").processes == 2
    assert read_table(str(EXAMPLES / "allocation.toml"), ExecutorlibFile, "executorlib").workers == 64
    assert len(list(EXAMPLES.iterdir())) == 5


SCRIPTS = {
    "slurm": (
        "#SBATCH -p standard",
        "#SBATCH -A my_project",
        "#SBATCH --cpus-per-task=64",
        "#SBATCH -t 24:00:00",
        "#SBATCH --constraint=milan",
        "module load gcc",
        "--nthreads 1 ",
        "--nworkers 32 ",
    ),
    "pbs": (
        "#PBS -q normal",
        "#PBS -A my_project",
        "#PBS -l select=1:ncpus=48:mem=190GB",
        "#PBS -l walltime=12:00:00",
        "--nthreads 1 ",
        "--nworkers 48 ",
    ),
    "sge": (
        "#$ -q all.q",
        "#$ -l h_rt=24:00:00",
        "#$ -pe smp 16",
        "#$ -l h_vmem=4G",
        "--nthreads 1 ",
        "--nworkers 16 ",
    ),
}


@needs_jobqueue
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_of_dask_jobqueue_ask_for_what_the_examples_say(name):
    executor = JobQueueExecutor(str(EXAMPLES / f"{name}.toml"))
    with executor.cluster() as cluster:
        script = cluster.job_script()
    for line in SCRIPTS[name]:
        assert line in script


@needs_parsl
@pytest.mark.parametrize("name", ["slurm", "pbs", "sge", "this_machine"])
def test_parsl_gets_what_the_examples_say(name):
    executor = ParslExecutor(str(EXAMPLES / f"{name}.toml"))
    provider, file = executor.provider(), executor.file
    assert (provider.min_blocks, provider.max_blocks) == (file.fewest, file.jobs)
    for line in file.prologue:
        assert line in provider.worker_init
    if name != "this_machine":
        assert provider.walltime == file.walltime
        for line in file.directives:
            assert line in provider.scheduler_options
    if name == "sge":
        assert "#$ -pe smp 16\n#$ -l mem_free=4000M\n" in provider.scheduler_options


def test_waiting_for_a_scheduler_can_be_interrupted(monkeypatch):
    distributed = pytest.importorskip("distributed")

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(dask_module.time, "sleep", interrupt)
    monkeypatch.setattr(distributed, "Client", None)  # not made yet: it would wait for a minute to be deleted
    with pytest.raises(KeyboardInterrupt):
        DaskExecutor("tcp://127.0.0.1:9").connect(None)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(BackendError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        open_backend("dask:tcp://127.0.0.1:9", Relaxer(calculator="emt"))
