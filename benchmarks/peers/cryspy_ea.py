"""CrySPY's evolutionary algorithm, with the settings of its examples for cells of this size.

From the example soiap_Si4O8_EA (12 atoms) of CrySPY_utility: generations of 20, of which 10 by crossover, 3 by
permutation, 4 by strain and 3 random; 2 elites, the 10 fittest as parents, tournaments of 2. For a single element,
which cannot be permuted, 12, 0, 5 and 3. Everything else is CrySPY's default: random structures by PyXtal of all space
groups with the contents given, smallest distances by PyXtal, volume factor 1.1, duplicates by StructureMatcher. Sixty
relaxations are three generations.

CrySPY is stepped as its command does it, run after run, but in one process, so that its imports are not counted. Its
ASE interface hands structures out as work/ID/POSCAR, and takes back CONTCAR, log.tote (eV per cell) and a line of
stat_job that says "done"; whatever the command ``jobcmd`` starts may fill these in. Here the queue is this script.

A failed relaxation is skipped by writing "skip" into stat_job, which is what the manual tells users to do. If CrySPY
finds fewer than the two different structures that crossover needs, it stops and the user has to change its input: then
this script makes the next generation a random one, the change that needs no decision.

CrySPY draws everything from its seed and the number of the structure. What it writes to pickle files it reads back
itself, within this very run.
"""

from __future__ import annotations

import configparser
from pathlib import Path

import ase.io
from cryspy.interface import select_code
from cryspy.job.ctrl_job import Ctrl_job
from cryspy.start import cryspy_init, cryspy_restart
from cryspy.util.utility import set_logger

from hybridcsp.core.outcomes import Failed
from peers.record import Run, Stopped, main

POPULATION = 20
SHARES = {"crossover": 10, "permutation": 3, "strain": 4, "random": 3}
SHARES_OF_AN_ELEMENT = {"crossover": 12, "permutation": 0, "strain": 5, "random": 3}
ALL_RANDOM = {"crossover": 0, "permutation": 0, "strain": 0, "random": POPULATION}

_KEYS = {"crossover": "n_crsov", "permutation": "n_perm", "strain": "n_strain", "random": "n_rand"}
_NOT_CALLED = "CrySPY copies this file beside each POSCAR; benchmarks/peers/cryspy_ea.py relaxes in its place.\n"


def write_input(run: Run, shares: dict[str, int]) -> None:
    """Write cryspy.in: what the structures of the next generation are made by is all that may change."""
    elements = sorted(set(run.contents))
    config = configparser.ConfigParser()
    config["basic"] = {
        "algo": "EA",
        "calc_code": "ASE",
        "nstage": "1",
        "njob": str(POPULATION),
        "jobcmd": "true",
        "jobfile": "job_cryspy",
    }
    config["structure"] = {
        "atype": " ".join(elements),
        "nat": " ".join(str(run.contents.count(element)) for element in elements),
    }
    config["EA"] = {
        "n_pop": str(POPULATION),
        **{_KEYS[operation]: str(share) for operation, share in shares.items()},
        "n_elite": "2",
        "n_fittest": "10",
        "slct_func": "TNM",
        "t_size": "2",
    }
    config["ASE"] = {"ase_python": "ase_in.py"}
    config["option"] = {"seed": str(run.seed), "backup_interval": "0", "energy_output_interval": "0"}
    with Path("cryspy.in").open("w") as file:
        config.write(file)


def step() -> None:
    """Do what one call of the command ``cryspy`` does: collect what is done, then submit or make a generation.

    Raises
    ------
    SystemExit
        Without a code when there is nothing to do before the next call, with one when CrySPY gives up.
    """
    settings, structures, rng = cryspy_restart.restart()
    select_code.check_calc_files(settings)
    Path("work", "fin").mkdir(parents=True, exist_ok=True)
    jobs = Ctrl_job(settings, structures, rng)
    jobs.check_job()
    jobs.handle_job()
    while jobs.id_queueing and jobs.recheck:
        jobs.recheck = False
        jobs.check_job()
        jobs.handle_job()
    if not (jobs.id_queueing or jobs.id_running):
        jobs.next_sg(noprint=True)


def next_generation(run: Run, shares: dict[str, int]) -> dict[str, int]:
    """Collect a generation, make the next one and submit it; return what it was made by."""
    with run.proposing():
        _call()  # collects, and says that it is ready
        try:
            _call()  # makes the next generation
        except Stopped:
            run.reject("crossover", "too few parents")
            shares = ALL_RANDOM
            write_input(run, shares)
            _call()
        _call()  # submits it
    return shares


def search(run: Run) -> None:
    usual = SHARES if len(set(run.contents)) > 1 else SHARES_OF_AN_ELEMENT
    set_logger(noprint=True, logfile="log_cryspy", errfile="err_cryspy")
    with run.proposing():
        Path("calc_in").mkdir()
        for name in ("job_cryspy", "ase_in.py"):
            Path("calc_in", name).write_text(_NOT_CALLED)
        write_input(run, usual)
        cryspy_init.initialize()
        _call()  # submits the first generation
    shares, first = ALL_RANDOM, 0
    while True:
        operations = [operation for operation, share in shares.items() for _ in range(share)]
        for number, operation in enumerate(operations, start=first):
            relax(run, Path("work", str(number)), operation)
        first += POPULATION
        write_input(run, usual)
        shares = next_generation(run, usual)


def relax(run: Run, directory: Path, operation: str) -> None:
    """Be the queue: relax what was submitted in a directory."""
    if not (directory / "POSCAR").exists():
        raise Stopped(f"the peer failed: {directory} holds no POSCAR; {_last_error()}")
    outcome = run.relax(ase.io.read(directory / "POSCAR", format="vasp"), operation)
    state = (directory / "stat_job").read_text().splitlines()
    if isinstance(outcome, Failed):
        state[2] = "skip"
    else:
        ase.io.write(directory / "CONTCAR", outcome.atoms, format="vasp", direct=True, sort=False)
        (directory / "log.tote").write_text(f"{outcome.evaluation.energy!r}\n")
        (directory / "out_check_opt").write_text("done\n" if outcome.converged else "not_yet\n")
        state[2] = "done"
    (directory / "stat_job").write_text("\n".join(state) + "\n")


def _call() -> None:
    try:
        step()
    except SystemExit as end:
        if end.code:
            raise Stopped(f"the peer failed: CrySPY stopped; {_last_error()}") from end


def _last_error() -> str:
    errors = Path("err_cryspy")
    lines = errors.read_text().splitlines() if errors.exists() else []
    return f"the last it said is {lines[-1]!r}" if lines else "it said nothing"


if __name__ == "__main__":
    main(search, "csp-cryspy")
