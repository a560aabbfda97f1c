"""Files of other programs, and other programs that are run: also those that hang, crash and write rubbish."""

import csv
import gzip
import io
import subprocess
import sys
import time
import zipfile

import ase.io
import numpy as np
import psutil
import pytest
from ase.build import bulk
from crystals import InlineBackend, P1Source, instant_relaxation, what_happened

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import SourceCall
from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.external import Command, CommandGenerator
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.preselection import Alternative
from hybridcsp.sources.registry import SOURCES

PROBLEM = Problem("NaCl", formula_units=(1, 2))
MIXED = [
    bulk("NaCl", "rocksalt", a=5.6),
    bulk("Cu"),
    bulk("NaCl", "cesiumchloride", a=3.4),
    bulk("MgO", "rocksalt", a=4.2),
]


def cif(atoms):
    text = io.BytesIO()
    ase.io.write(text, atoms, format="cif")
    return text.getvalue().decode()


def as_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i, atoms in enumerate(MIXED):
            archive.writestr(f"generated/../../gen_{i}.cif", cif(atoms))


def as_csv(path):
    rows = io.StringIO()
    table = csv.DictWriter(rows, ["material_id", "cif"])
    table.writeheader()
    for i, atoms in enumerate(MIXED):
        table.writerow({"material_id": i, "cif": cif(atoms)})
    table.writerow({"material_id": "broken", "cif": "data_nothing"})
    path.write_text(rows.getvalue())


def as_folder(path):
    path.mkdir()
    for i, atoms in enumerate(MIXED):
        atoms.write(path / f"{i}.vasp")


def as_zipped_table(path):
    as_csv(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("generated_crystals.extxyz", lambda path: ase.io.write(path, MIXED)),
        ("generated_crystals_cif.zip", as_zip),
        ("samples.csv", as_csv),
        ("samples.csv.gz", as_zipped_table),
        ("folder", as_folder),
    ],
)
def test_structures_of_the_problem_are_proposed_and_others_counted(tmp_path, name, write):
    write(tmp_path / name)
    source = SOURCES["external"].load()(PROBLEM, str(tmp_path / name))
    assert [p.atoms.get_chemical_formula() for p in source.propose(9, None)] == ["ClNa", "ClNa"]
    assert {p.operator for p in source.propose(9, None)} == {"external"}
    assert ("2 structures of other contents") in dict(source.unusable)[str(tmp_path / name)]
    assert sorted(tmp_path.parent.glob("gen_*")) == []  # no path in an archive leads out of it


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "other.extxyz",
            None,
            r"no usable structure \(\S*other.extxyz: 1 structures of other contents\); at least one",
        ),
        ("no_column.csv", b"a,b\n1,2\n", "no column of CIFs"),
        ("broken.zip", b"PK nonsense", "zip archive is damaged"),
    ],
)
def test_unusable_files_are_an_error_with_the_reason(tmp_path, name, content, said):
    path = tmp_path / name
    if content is None:
        bulk("Cu").write(path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        SOURCES["external"].load()(PROBLEM, str(path))


#: A program of its own: sys.argv is formula, n, seed, output, and what it should do wrong.
PROGRAM = """
import os, subprocess, sys, time
formula, n, seed, output, mode = sys.argv[1:]
if mode == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.environ["PIDS"], "w").write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
if mode == "slow":
    open(os.environ["PIDS"], "a").write(f"{os.getpid()} ")
    time.sleep(0.5)
    mode = "good"
if mode == "crash":
    print("CUDA out of memory")
    os.abort()
if mode == "exit":
    sys.exit("no such checkpoint")
if mode == "silent":
    sys.exit(0)
if mode == "rubbish":
    open(output, "w").write("this is no crystal")
    sys.exit(0)
import random, re
random.seed(int(seed))
made = []
for _ in range(int(n)):
    counts = re.findall(r"([A-Z][a-z]?)([0-9]+)", formula if mode == "good" else "Ag1")
    atoms = [symbol for symbol, count in counts for _ in range(int(count))]
    sides = [(25 * len(atoms)) ** (1 / 3) * random.uniform(0.9, 1.1) for _ in range(3)]
    lattice = f"{sides[0]} 0 0 0 {sides[1]} 0 0 0 {sides[2]}"
    made.append(f'{len(atoms)}\\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\\n')
    made += [" ".join([s, *(str(a * random.random()) for a in sides)]) + "\\n" for s in atoms]
open(output, "w").write("".join(made))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    (tmp_path / "program.py").write_text(PROGRAM)

    def command(mode, **options):
        placeholders = ["{formula}", "{n}", "{seed}", "{output}"]
        argv = [sys.executable, str(tmp_path / "program.py"), *placeholders, mode]
        return Command(argv, **({"samples": 8} | options))

    return command


def requests(n=4):
    return [Request(contents=PROBLEM.contents(1 + i % 2)) for i in range(n)]


def still_running(pids):
    """Those of the processes named in a file, if it was written, that are there and no zombies."""
    named = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
    there = [psutil.Process(pid) for pid in named if psutil.pid_exists(pid)]
    return [process for process in there if process.status() != psutil.STATUS_ZOMBIE]


def test_program_gets_contents_number_seed_and_output_path(program):
    answers = CommandGenerator("other", program("good")).sample(requests(), np.random.default_rng(0))
    assert [answer.request for answer in answers] == [0, 1, 2, 3]
    assert [len(answer.atoms) for answer in answers] == [2, 4, 2, 4]
    again = CommandGenerator("other", program("good")).sample(requests(), np.random.default_rng(0))
    assert [answer.atoms for answer in again] == [answer.atoms for answer in answers]


def test_arguments_are_no_shell(tmp_path):
    spy = "import sys; open(sys.argv[1], 'w').write('|'.join(sys.argv))"
    command = Command(
        [sys.executable, "-c", spy, str(tmp_path / "seen"), "{output}; rm -rf {formula}", "$HOME {n} {{}}"]
    )
    with pytest.raises(GeneratorError, match="wrote no output"):
        CommandGenerator("other", command).sample(requests(1), np.random.default_rng(0))
    _, _, output, rest = (tmp_path / "seen").read_text().split("|")
    assert output.endswith("output.extxyz; rm -rf Na1Cl1")
    assert rest == "$HOME 1 {{}}"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("crash", "CUDA out of memory"),
        ("exit", "exit status 1(.|\n)*no such checkpoint"),
        ("silent", "wrote no output"),
        ("rubbish", "wrote no crystal: expected a number of atoms"),
    ],
)
def test_error_of_a_failed_program_contains_its_output(program, mode, said):
    with pytest.raises(GeneratorError, match=said):
        CommandGenerator("other", program(mode)).sample(requests(), np.random.default_rng(0))


def test_a_program_that_hangs_is_stopped_with_all_it_started(program, tmp_path):
    start = time.monotonic()
    with pytest.raises(GeneratorError, match="stopped after"):
        CommandGenerator("other", program("hang", timeout=1.5)).sample(requests(), np.random.default_rng(0))
    assert time.monotonic() - start < 60  # the program sleeps for ten minutes
    assert not still_running(tmp_path / "pids")


def test_missing_program_is_an_error():
    with pytest.raises(GeneratorError, match="cannot be started"):
        CommandGenerator("other", Command(["/no/such/program", "{output}"])).sample(
            requests(), np.random.default_rng(0)
        )


def test_a_program_ends_with_a_search_that_is_killed(program, tmp_path):
    command = program("hang")
    script = (
        "import sys, numpy as np; from hybridcsp.generators.base import Request;"
        "from hybridcsp.generators.external import Command, CommandGenerator;"
        "generator = CommandGenerator('other', Command(sys.argv[1:]));"
        "generator.sample([Request(contents={'Na': 1})], np.random.default_rng(0))"
    )
    run = subprocess.Popen([sys.executable, "-c", script, *command.command])
    pids = tmp_path / "pids"
    deadline = time.monotonic() + 60
    while not (pids.exists() and len(pids.read_text().split()) == 2) and time.monotonic() < deadline:
        time.sleep(0.1)
    run.kill()
    run.wait()
    while still_running(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not still_running(pids)


CIF = """data_x
_cell_length_a 3
_cell_length_b 3
_cell_length_c 3
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 0.5
"""
NOT_FINITE = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"\nNa nan 0 0\n'


@pytest.mark.parametrize(
    ("text", "suffix", "said"),
    [(CIF, ".cif", "partly occupied"), (NOT_FINITE, ".extxyz", "not finite")],
)
def test_structures_that_are_not_ordered_crystals_are_reported(text, suffix, said):
    spy = "import sys; open(sys.argv[2], 'w').write(sys.argv[1])"
    command = Command([sys.executable, "-c", spy, text, "{output}"], suffix=suffix)
    with pytest.raises(GeneratorError, match=said):
        CommandGenerator("other", command).sample(requests(1), np.random.default_rng(0))


def test_other_contents_are_no_answer(program):
    answers = CommandGenerator("other", program("silver")).sample(requests(), np.random.default_rng(0))
    assert all(isinstance(answer, Reject) for answer in answers)
    assert not any(isinstance(answer, Sample) for answer in answers)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": []}, "a program"),
        ({"command": ["run"]}, "output"),
        ({"command": ["run", "{output}", "{fromula}"]}, "there is no such placeholder"),
        ({"command": ["run", "{output}"], "timeout": 0}, "timeout"),
        ({"command": ["run", "{output}"], "samples": 0}, "samples"),
    ],
)
def test_a_command_that_cannot_work_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        Command(**options)


NACL = Problem("NaCl", formula_units=(1, 2), distance_fraction=0.05)


def search(directory, command, capacity=1, others=(P1Source,), runner=instant_relaxation, one_shot=1, **options):
    generator = command if isinstance(command, CommandGenerator) else CommandGenerator("other", command)
    program = GenerativeSource(NACL, generator=generator, samples_per_job=one_shot, in_background=capacity > 1)
    sources = [program, *(other() for other in others)]
    backend = InlineBackend(runner, capacity)
    return Search(NACL, calculator=None, directory=directory, sources=sources, backend=backend, **options)


@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("mode", ["hang", "crash", "rubbish", "silver"])
def test_a_bad_program_costs_a_search_nothing_but_counted_errors(program, tmp_path, mode, capacity):
    def unhurried(job):  # so that the search is not over before the program
        time.sleep(0.3 if capacity > 1 else 0.0)
        return instant_relaxation(job)

    run = search(tmp_path / "run", program(mode, timeout=1.0), capacity, runner=unhurried, allocation="equal")
    few = 8 if capacity == 1 else 40
    for relaxations in range(few, 10 * few, few):  # once, unless the machine is busy and the program starts slowly
        assert run.run(relaxations=relaxations, refine=0).stopped == "relaxations used up"
        if capacity == 1 or run.archive.state.errors["other"] == GenerativeSource.max_errors:
            break
    assert run.archive.state.errors["other"] == GenerativeSource.max_errors


def sources_of(directory):
    return [event[1]["source"] for event in what_happened(directory) if event[0] == "relaxed"]


def test_search_with_several_workers_continues_while_a_program_runs(program, tmp_path, caplog):
    def once_the_program_runs(job):
        while not (tmp_path / "pids").exists() and time.monotonic() - begun < 60:
            time.sleep(0.01)
        return instant_relaxation(job)

    begun = time.monotonic()
    run = search(tmp_path / "run", program("hang"), capacity=2, runner=once_the_program_runs)
    assert run.run(relaxations=20, refine=0).stopped == "relaxations used up"
    run.close()
    assert time.monotonic() - begun < 60  # the program sleeps for ten minutes
    assert "source other was still preparing structures when the search ended" in caplog.text
    assert set(sources_of(tmp_path / "run")) == {"p1"}
    assert (tmp_path / "pids").exists()
    assert not still_running(tmp_path / "pids")


def test_the_time_of_a_program_is_charged_once_also_where_it_fails(program, tmp_path):
    def unhurried(job):
        time.sleep(0.1)
        return instant_relaxation(job)

    for mode, least in (("slow", 1.0), ("exit", 0.02)):
        run = search(tmp_path / mode, program(mode), 2, runner=unhurried, one_shot=4, allocation="equal")
        run.run(relaxations=30, refine=0)
        calls = [past for past in run.archive.history() if isinstance(past, SourceCall) and past.source == "other"]
        charged = [call.cost.seconds for call in calls if call.cost.seconds > least]
        ended = len(list((tmp_path / mode / "samples").glob("*"))) + run.archive.state.errors["other"]
        assert len(charged) == ended > 0
        run.close()


def test_rest_of_a_batch_is_proposed_while_the_next_is_sampled(program, tmp_path):
    generator = CommandGenerator("other", program("hang"))
    source = GenerativeSource(NACL, generator=generator, samples_per_job=4, in_background=True)
    with Archive(tmp_path / "archive", write=True) as archive:
        assert source.propose(1, Context(problem=NACL, archive=archive, rng=np.random.default_rng(0))) == []
        assert source.status() is SourceStatus.BUSY
        lattice = Alternative(bulk("NaCl", "rocksalt", a=5.6), {"version": 0, "batch": 1, "position": 3}, -3.0)
        source._queue(0)._leftovers._waiting[0, 1, 3] = lattice  # as an earlier job would have left it
        assert source.status() is SourceStatus.READY
        (left,) = source.propose(1, Context(problem=NACL, archive=archive, rng=np.random.default_rng(0)))
        assert left.tag["position"] == 3
        assert source.status() is SourceStatus.READY
    source.close()


def test_a_generator_can_be_used_again_after_a_search_was_closed(program, tmp_path):
    generator = CommandGenerator("other", program("slow"))
    for name in ("first", "second"):
        with search(tmp_path / name, generator, capacity=2, others=()) as run:
            assert run.run(relaxations=2, refine=0).progress.relaxations == 2


def test_samples_of_a_background_program_are_proposed(program, tmp_path):
    def unhurried(job):
        time.sleep(0.1)
        return instant_relaxation(job)

    run = search(tmp_path / "run", program("slow"), capacity=2, runner=unhurried, allocation="equal")
    run.run(relaxations=60, refine=0)
    by = sources_of(tmp_path / "run")
    assert by[:5] == ["p1"] * 5
    assert by.count("other") >= 3
    calls = [event[1] for event in what_happened(tmp_path / "run") if event[0] == "called"]
    empty = [call for call in calls if call["source"] == "other" and not call["candidates"]]
    made = len(list((tmp_path / "run" / "samples").iterdir()))
    assert made <= len(empty) <= made + 1  # those that begin a batch, none that only looks whether it is there


def test_a_search_with_nothing_else_to_do_waits_for_a_program(program, tmp_path):
    run = search(tmp_path / "run", program("slow"), capacity=2, others=())
    assert run.run(relaxations=8, refine=0).stopped == "relaxations used up"
    assert set(sources_of(tmp_path / "run")) == {"other"}
    assert run.archive.state.cost.seconds > 1.0  # the time of the program is charged


def test_ask_waits_for_a_program(program, tmp_path):
    run = search(tmp_path / "run", program("slow"), capacity=2, others=())
    assert [candidate.source for candidate in run.ask(2)] == ["other"] * 2


def test_ask_does_not_wait_if_other_sources_have_proposals(program, tmp_path):
    run = search(tmp_path / "run", program("hang"), capacity=2)
    begun = time.monotonic()
    assert [candidate.source for candidate in run.ask(2)] == ["p1"] * 2
    run.close()
    assert time.monotonic() - begun < 60  # the program sleeps for ten minutes


def test_hours_hold_while_a_program_hangs(program, tmp_path):
    run = search(tmp_path / "run", program("hang"), capacity=2, others=())
    begun = time.monotonic()
    assert run.run(hours=2 / 3600, refine=0).stopped == "time used up"
    run.close()
    assert time.monotonic() - begun < 60  # the program sleeps for ten minutes


def test_search_that_ended_while_a_program_ran_is_resumed(program, tmp_path):
    first = search(tmp_path / "run", program("slow"), capacity=2)
    first.run(relaxations=4, refine=0)
    first.close()
    again = search(tmp_path / "run", program("slow"), capacity=2, others=(P1Source,))
    again.run(relaxations=5, refine=0)
    again.run(hours=4 / 3600, refine=0)
    assert "other" in sources_of(tmp_path / "run")


def test_resumed_search_reads_stored_samples_instead_of_running_the_program(program, tmp_path):
    search(tmp_path / "whole", program("good"), seed=2).run(relaxations=8, refine=0)
    part = search(tmp_path / "parts", program("good"), seed=2)
    part.run(relaxations=3, refine=0)
    part.close()
    samples = sorted((tmp_path / "parts" / "samples").iterdir())
    written = [file.stat().st_mtime_ns for file in samples]
    rest = search(tmp_path / "parts", program("good"), seed=2)
    rest.run(relaxations=8, refine=0)
    assert [file.stat().st_mtime_ns for file in samples] == written
    assert {e[1]["source"] for e in what_happened(tmp_path / "parts") if e[0] == "called"} == {"other", "p1"}
