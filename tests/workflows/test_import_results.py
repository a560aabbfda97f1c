import shlex
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import InlineBackend, rutile
from foreign import FakeUspex, append_results, uspex_run, various

from hybridcsp.archive.archive import Archive
from hybridcsp.config.settings import of_directory
from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import USER
from hybridcsp.errors import ArchiveError, InputError, RelaxationsFailedError
from hybridcsp.io import formats
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.search.search import Search
from hybridcsp.workflows.import_results import import_records, open_for_import
from hybridcsp.workflows.survey import calculator_label, survey_results

CODE = formats.load("uspex")


def import_(path, directory, *, strict=False, calculator="uspex:VASP"):
    problem = survey_results(CODE.read(path)).problem(path)
    with Archive(directory, write=True) as archive:
        open_for_import(archive, problem, "uspex", path, calculator)
        return import_records(
            archive, CODE.read(path), source="uspex", problem=problem, calculator=calculator, strict=strict
        )


@pytest.fixture
def run(tmp_path):
    a, b = various(2)
    return uspex_run(tmp_path / "run", [a, b, b, rutile(), a], [-50.0, -49.0, -49.0, 100000.0, -50.001])


def test_results_are_relaxations_by_that_code_and_its_operators(tmp_path, run):
    report = import_(run, tmp_path / "archive")
    assert (report.relaxed, report.failed, report.unreadable) == (4, 1, 0)
    with Archive(tmp_path / "archive") as archive:
        best, second = archive.minima()
        assert (best.multiplicity, best.first_relaxation, second.multiplicity) == (2, 1, 2)
        assert best.best.evaluation.calculator == "uspex:VASP"
        assert best.enthalpy_per_atom == pytest.approx(-50.001 / 6)
        assert archive.state.relaxations == 5
        assert archive.state.tallies["uspex", "softmutate"].relaxed == 1
        assert archive.state.tallies["uspex", "permutate"].failed == {"reported": 1}
        tag = archive.candidate(2).proposal.tag
        assert (tag["id"], tag["origin"], tag["generation"]) == ("2", "Heredity", 1)
        outcomes = [event for event in archive.history() if isinstance(event, Relaxed | Failed)]
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "Relaxed",
            "Relaxed",
            "Relaxed",
            "Failed",
            "Relaxed",
        ]
        assert outcomes[3].detail == "enthalpy 100000.000"


def test_pressure_converts_between_energies_and_enthalpies(tmp_path):
    run = uspex_run(tmp_path / "run", various(1), [-50.0], pressure=10.0)
    import_(run, tmp_path / "archive")
    with Archive(tmp_path / "archive") as archive:
        (best,) = archive.minima()
        assert archive.state.settings[-1]["problem"]["pressure_gpa"] == 10.0
        evaluation = best.best.evaluation
        volume = best.atoms.get_volume()
        assert evaluation.enthalpy - evaluation.energy == pytest.approx(10 / 160.21766208 * volume)
    problem = survey_results(CODE.read(run)).problem(run)
    with Archive(tmp_path / "other", write=True) as archive:
        open_for_import(archive, problem, "x", run, "x")
        import_records(
            archive, [Record(atoms=rutile(), energy=-48.0, id="1")], source="xx", problem=problem, calculator="x"
        )
        (best,) = archive.minima()
        assert best.best.evaluation.energy == -48.0
        assert best.best.evaluation.enthalpy == pytest.approx(-48.0 + 10 / 160.21766208 * rutile().get_volume())


def test_importing_again_adds_only_new_structures(tmp_path, run):
    import_(run, tmp_path / "archive")
    append_results(run, various(1, seed=5), [-47.0], first=6, generation=2)
    report = import_(run, tmp_path / "archive")
    assert (report.relaxed, report.known) == (1, 5)
    with Archive(tmp_path / "archive") as archive:
        assert archive.state.relaxations == 6


def test_structure_without_energy_is_a_candidate_until_it_has_one(tmp_path):
    results = uspex_run(tmp_path / "run", various(1), [-50.0]) / "results1"
    individuals = (results / "Individuals").read_text()
    (results / "Individuals").write_text("")
    assert import_(tmp_path / "run", tmp_path / "archive", calculator="uspex").candidates == 1
    with Archive(tmp_path / "archive") as archive:
        assert [candidate.id for candidate in archive.pending(USER)] == [1]
    (results / "Individuals").write_text(individuals)
    assert import_(tmp_path / "run", tmp_path / "archive", calculator="uspex").relaxed == 1
    with Archive(tmp_path / "archive") as archive:
        assert archive.pending(USER) == []
        assert archive.candidates == 1


def test_search_continues_an_import_by_ask_and_tell(tmp_path, run):
    import_(run, tmp_path / "archive")
    with Archive(tmp_path / "archive") as archive:
        problem = archive.state.settings[-1]["problem"]
    from hybridcsp import Problem

    with Search(Problem(**problem), calculator=None, directory=tmp_path / "archive", sources=["evolution"]) as search:
        (child,) = search.ask(1)
        assert set(child.proposal.parents) <= {1, 2, 5}
        assert child.source == "evolution"
        end = child.atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        end.calc = SinglePointCalculator(end, energy=-60.0)
        told = search.tell(child, end)
        assert told.evaluation.calculator == "uspex:VASP"
        assert search.minima(1)[0].found_by.source == "evolution"


def test_imported_relaxations_do_not_validate_the_calculator_of_the_workers(tmp_path, run):
    import_(run, tmp_path / "archive")
    with Archive(tmp_path / "archive") as archive:
        problem = archive.problem

    def failing(job):
        return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

    options = {"directory": tmp_path / "archive", "sources": ["random"], "backend": InlineBackend(failing)}
    told = pytest.raises(RelaxationsFailedError, match="none of 3 relaxations has succeeded, and 3 failed")
    with Search(problem, calculator=None, **options) as search, told:
        search.run(relaxations=100, stop_after_failures=3)


def test_import_is_not_continued_with_another_calculator(tmp_path, run):
    import_(run, tmp_path / "archive")
    with pytest.raises(ArchiveError, match=r"results of uspex:VASP.*seeds:PATH"):
        Search("TiO2", formula_units=2, calculator="emt", directory=tmp_path / "archive", sources=["random"])
    with pytest.raises(ArchiveError, match="seeds:"):
        of_directory(tmp_path / "archive")
    with pytest.raises(InputError, match=r"holds energies of uspex:VASP.*calypso"):
        import_(run, tmp_path / "archive", calculator="calypso")


def test_broken_results_are_reported_or_stop_a_strict_import(tmp_path, run):
    file = run / "results1" / "gatheredPOSCARS"
    lines = file.read_text().splitlines()
    lines[9] = "oops"
    file.write_text("\n".join(lines) + "\n")
    report = import_(run, tmp_path / "lenient")
    assert (report.relaxed, report.failed, report.unreadable) == (3, 1, 1)
    assert str(report.read_failures[0]).startswith(f"{file}, line 10: atom 2 of 6")
    with pytest.raises(InputError, match=r"--strict .*, line 10: "):
        import_(run, tmp_path / "strict", strict=True)


def test_other_compositions_are_omitted_and_listed(tmp_path, run):
    problem = survey_results(CODE.read(run)).problem(run)
    with Archive(tmp_path / "archive", write=True) as archive:
        open_for_import(archive, problem, "uspex", run, "x")
        records = [Record(atoms=atoms, energy=-1.0, id=str(n)) for n, atoms in enumerate(various(2, "Ti3O5"))]
        report = import_records(archive, records, source="uspex", problem=problem, calculator="x")
    assert dict(report.others) == {"Ti3O5": 2}


def test_problem_is_derived_from_the_most_frequent_composition(tmp_path):
    records = [Record(atoms=atoms, energy=-1.0, enthalpy=-1.0, pressure_gpa=p) for atoms, p in (
        (rutile(), 24.98), (rutile() * (1, 1, 2), 25.01), (*various(1, "Ti3O5"), 25.02),
    )]  # fmt: skip
    found = survey_results([*records, ReadFailure(file=tmp_path, line=1, reason="x")])
    problem = found.problem(tmp_path)
    assert (problem.formula, problem.formula_units, problem.max_atoms, problem.pressure_gpa) == (
        "TiO2",
        (2, 4),
        12,
        25.0,
    )
    assert found.problem(tmp_path, "Ti2O4", 3.0).formula_units == (1, 2)
    with pytest.raises(InputError, match=r"occurs: TiO2 \(2\), Ti3O5 \(1\)"):
        found.problem(tmp_path, "SiO2")


def test_error_without_readable_structures_names_the_file_and_the_reason(tmp_path):
    with pytest.raises(
        InputError, match=r"path = '.*' cannot be used: there is no structure that can be read\.$"
    ) as raised:
        survey_results([]).problem(tmp_path)
    assert raised.value.value == tmp_path
    broken = [ReadFailure(file=tmp_path / "t.cif", line=n, reason=f"reason {n}") for n in (7, 9)]
    with pytest.raises(InputError, match=r"can be read \(.*t\.cif, line 7: reason 7\)"):
        survey_results(broken).problem(tmp_path)


def test_calculator_label_is_the_name_of_the_code(tmp_path):
    assert calculator_label("uspex", {"VASP": 3, "GULP": 1}) == "uspex:VASP"
    assert calculator_label("airss", {}) == "airss"


def test_own_seeds_get_the_results_of_the_other_code(tmp_path):
    code = FakeUspex(tmp_path / "uspex")
    code.run_generation()
    import_(tmp_path / "uspex", tmp_path / "archive")
    with Archive(tmp_path / "archive") as archive:
        from hybridcsp import Problem

        problem = Problem(**archive.state.settings[-1]["problem"])
    with Search(problem, calculator=None, directory=tmp_path / "archive", sources=["random"]) as search:
        ours = search.ask(2)
    formats.write([candidate.atoms for candidate in ours], tmp_path / "uspex", "uspex")
    assert code.run_generation() == 2
    report = import_(tmp_path / "uspex", tmp_path / "archive")
    assert (report.relaxed, report.linked) == (6, 2)
    with Archive(tmp_path / "archive") as archive:
        assert [archive.status(candidate.id) for candidate in ours] == ["relaxed", "relaxed"]
        assert archive.state.tallies["random", "random"].relaxed == 2


def test_label_of_existing_energies_is_quoted_for_the_shell(tmp_path, run):
    import_(run, tmp_path / "archive", calculator="emt (ase 3.29.0)")
    with pytest.raises(InputError, match="energies of emt") as raised:
        import_(run, tmp_path / "archive", calculator="uspex:VASP")
    option, label = shlex.split(str(raised.value).partition("another name, give ")[2])[:2]
    assert (option, label) == ("--calculator", "emt (ase 3.29.0)")
    assert import_(run, tmp_path / "archive", calculator=label).known == 5


def test_structures_without_descriptors_are_counted_and_listed(tmp_path):
    problem = Problem("Cu", formula_units=(1, 2000), max_atoms=2000)
    rng = np.random.default_rng(0)
    needle = Atoms("Cu1500", scaled_positions=rng.random((1500, 3)), cell=[1.0, 1.0, 9000.0], pbc=True)
    records = [Record(atoms=atoms, energy=-1.0, id=str(n)) for n, atoms in enumerate((needle, bulk("Cu")))]
    with Archive(tmp_path, write=True) as archive:
        open_for_import(archive, problem, "plain", Path("f"), "emt")
        report = import_records(archive, records, source="plain", problem=problem, calculator="emt")
    assert (report.relaxed, report.unreadable) == (1, 1)
    assert "too thin" in report.read_failures[0].reason or "too many" in report.read_failures[0].reason
