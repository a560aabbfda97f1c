import numpy as np
from archives import summary
from crystals import random_crystal, rutile

from hybridcsp.archive.archive import Archive
from hybridcsp.core.problem import Problem
from hybridcsp.io.formats import Record
from hybridcsp.similarity import parallel
from hybridcsp.structure.symmetry import SYMPREC, SYMPREC_LOOSE, spacegroup, spacegroups
from hybridcsp.workflows.import_results import import_records, open_for_import
from hybridcsp.workflows.survey import CachedResults


def records(n):
    rng = np.random.default_rng(0)
    structures = [random_crystal("Cu2", 20, rng) for _ in range(n)]
    return [
        Record(atoms=atoms, energy=-6.0 + 0.02 * (i % n % 7), id=str(i))
        for i, atoms in enumerate(structures + structures)
    ]


def test_import_is_independent_of_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_STRUCTURES", 0)
    monkeypatch.setattr("hybridcsp.workflows.import_results.BATCH_SIZE", 20)
    problem = Problem("Cu", formula_units=2)
    states = []
    for processes in (1, 2):
        with Archive(tmp_path / str(processes), write=True) as archive:
            open_for_import(archive, problem, "other", tmp_path, "x")
            report = import_records(
                archive, records(60), source="other", problem=problem, calculator="x", processes=processes
            )
            assert report.relaxed == 120
            states.append(summary(archive))
            assert [m.id for m in archive.stream_minima(5)] == [m.id for m in archive.minima(5)]
    assert states[0] == states[1]
    assert 0 < len(states[0]["minima"]) < 120


def test_spacegroups_agree_with_separate_determinations():
    rng = np.random.default_rng(1)
    structures = [random_crystal("Cu3", 15, rng) for _ in range(20)] + [rutile()]
    for noise in (0.005, 0.03, 0.2):
        rattled = rutile()
        rattled.rattle(noise, seed=1)
        structures.append(rattled)
    for atoms in structures:
        assert spacegroups(atoms) == (spacegroup(atoms, SYMPREC), spacegroup(atoms, SYMPREC_LOOSE))


def test_symmetry_of_imported_minima_is_computed_on_demand(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("hybridcsp.structure.symmetry.spacegroups", lambda atoms: asked.append(1) or spacegroups(atoms))
    problem = Problem("TiO2", formula_units=2)
    record = Record(atoms=rutile(), energy=-50.0, id="1")
    with Archive(tmp_path, write=True) as archive:
        open_for_import(archive, problem, "other", tmp_path, "x")
        import_records(archive, [record], source="other", problem=problem, calculator="x")
        assert not asked
    with Archive(tmp_path) as archive:
        (minimum,) = archive.minima()
        assert not asked
        assert (minimum.spacegroup, minimum.spacegroup_loose) == (136, 136)
        assert len(asked) == 1


def test_results_that_fit_into_memory_are_read_once(monkeypatch):
    times = []

    def read():
        times.append(1)
        return iter(records(3))

    kept = CachedResults(read)
    assert [record.id for record in kept] == [record.id for record in kept]
    assert len(times) == 1
    monkeypatch.setattr("hybridcsp.workflows.survey.MAX_CACHED", 2)
    many = CachedResults(read)
    assert [record.id for record in many] == [record.id for record in many]
    assert len(times) == 3
