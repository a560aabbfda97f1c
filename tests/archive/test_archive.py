import contextlib
import signal
import sqlite3
from dataclasses import replace

import ase.db
import numpy as np
import pytest
from archives import record_proposals, summary
from ase.build import bulk
from crystals import random_crystal, relaxed, rutile

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import SourceCall
from hybridcsp.core.outcomes import Failed, FailureReason, RejectionReason
from hybridcsp.core.records import ADDED, REFINE, USER, WORKERS, Cost
from hybridcsp.errors import ArchiveError


def crystals(n, seed=0):
    rng = np.random.default_rng(seed)
    return [random_crystal("Cu4", 12, rng) for _ in range(n)]


def test_relaxations_that_end_in_the_same_structure_are_one_minimum(tmp_path):
    archive = Archive(tmp_path, write=True)
    one, other = crystals(2)
    first, second, third = record_proposals(archive, [one, one, other])
    supercell = one.repeat((2, 1, 1))
    supercell.rotate(40, "z", rotate_cell=True)
    told = [
        *archive.record_outcomes([relaxed(first, -3.0, one, cost=Cost(force_calls=10))]),
        *archive.record_outcomes([relaxed(second, -3.001, supercell, cost=Cost(force_calls=20))]),
        *archive.record_outcomes([relaxed(third, -2.5, other, cost=Cost(force_calls=30))]),
    ]
    assert [(outcome.minimum, outcome.is_new_minimum) for outcome in told] == [(1, True), (1, False), (2, True)]
    assert [(o.minimum, o.is_new_minimum) for o in archive.history() if not isinstance(o, SourceCall)] == [
        (1, True),
        (1, False),
        (2, True),
    ]

    best, worse = archive.minima()
    assert (best.multiplicity, worse.multiplicity) == (2, 1)
    assert best.enthalpy_per_atom == pytest.approx(-3.001)  # the best of both
    assert best.best.candidate.id == second.id
    assert best.found_by.id == first.id
    assert (best.first_relaxation, worse.first_relaxation) == (1, 3)
    assert (best.first_force_calls, worse.first_force_calls) == (12, 62)  # proposing took 2


def test_equal_relaxations_that_arrive_together_are_one_minimum(tmp_path):
    archive = Archive(tmp_path, write=True)
    one = crystals(1)[0]
    first, second = record_proposals(archive, [one, one])
    archive.record_outcomes([relaxed(first, -3.0), relaxed(second, -3.0)])
    assert [minimum.multiplicity for minimum in archive.minima()] == [2]


def test_the_same_shape_at_another_energy_is_another_minimum(tmp_path):
    archive = Archive(tmp_path, write=True)
    one = crystals(1)[0]
    first, second = record_proposals(archive, [one, one])
    archive.record_outcomes([relaxed(first, -3.0), relaxed(second, -2.9)])
    assert archive.number_of_minima == 2


def test_energies_by_another_calculator_are_not_compared(tmp_path):
    archive = Archive(tmp_path, write=True)
    one, other = crystals(2)
    first, second = record_proposals(archive, [one, other])
    archive.record_outcomes([relaxed(first, -9.0, calculator="this"), relaxed(second, -3.0, calculator="that")])
    assert [minimum.enthalpy_per_atom for minimum in archive.minima()] == [pytest.approx(-3.0)]
    assert archive.best_enthalpy_per_atom == pytest.approx(-3.0)


def test_unconverged_relaxations_are_kept_but_are_no_minima(tmp_path):
    archive = Archive(tmp_path, write=True)
    low, high = crystals(2)
    first, second = record_proposals(archive, [low, high])
    archive.record_outcomes([relaxed(first, -3.0, converged=False), relaxed(second, -2.9)])
    assert [minimum.found_by.id for minimum in archive.minima()] == [second.id]
    assert archive.state.tallies["random", "made"].unconverged == 1
    # They are given a chance at the end …
    assert [end.candidate.id for end in archive.to_refine(5, 0.05)] == [first.id, second.id]
    archive.record_outcomes([relaxed(first, -3.01, level=REFINE)])
    # … and count from the relaxation they came from.
    assert archive.minima()[0].found_by.id == first.id
    assert archive.minima()[0].first_relaxation == 1


def test_refinement_takes_the_best_once_each(tmp_path):
    archive = Archive(tmp_path, write=True)
    candidates = record_proposals(archive, crystals(4))
    energies = [-3.0, -2.98, -2.97, -2.5]
    archive.record_outcomes([relaxed(c, e) for c, e in zip(candidates, energies, strict=True)])
    assert [end.candidate.id for end in archive.to_refine(10, 0.05)] == [1, 2, 3]
    assert [end.candidate.id for end in archive.to_refine(2, 0.05)] == [1, 2]
    archive.record_outcomes([relaxed(candidates[0], -3.001, level=REFINE)])
    archive.record_outcomes([Failed(candidate=candidates[1], reason=FailureReason.TIME_LIMIT, level=REFINE)])
    assert [end.candidate.id for end in archive.to_refine(10, 0.05)] == [3]
    best = archive.minima()[0]
    assert (best.best.evaluation.level, best.multiplicity) == (REFINE, 1)
    assert archive.state.relaxations == 4  # refinements do not count
    assert archive.status(2) == "relaxed"  # nor does their failure undo a relaxation


def test_a_minimum_that_refines_into_another_is_absorbed(tmp_path):
    archive = Archive(tmp_path, write=True)
    saddle, valley = crystals(2)
    first, second = record_proposals(archive, [saddle, valley])
    archive.record_outcomes([relaxed(first, -2.995), relaxed(second, -3.0)])
    archive.record_outcomes([relaxed(first, -3.0, valley, level=REFINE)])
    (minimum,) = archive.minima()
    assert minimum.multiplicity == 2
    assert minimum.found_by.id == first.id
    assert minimum.first_relaxation == 1
    archive.close()
    assert len(Archive(tmp_path).minima()) == 1


def test_a_captured_relaxation_is_a_rediscovery_that_never_improves_its_minimum(tmp_path):
    with Archive(tmp_path, write=True) as archive:
        first, second, third = record_proposals(archive, crystals(3))
        archive.record_outcomes([relaxed(first, -3.5)])
        captured = replace(relaxed(second, -3.6), captured_by=1)
        (seen,) = archive.record_outcomes([captured])
        assert (seen.minimum, seen.is_new_minimum, seen.captured_by, seen.niche) == (1, False, 1, 1)
        gone = replace(relaxed(third, -3.7), captured_by=8)
        (seen,) = archive.record_outcomes([gone])
        assert (seen.minimum, seen.captured_by) == (None, None)
        for opened in (archive, Archive(tmp_path)):
            (minimum,) = opened.minima()
            assert minimum.enthalpy_per_atom == pytest.approx(-3.5)
            assert minimum.multiplicity == 2
            assert opened.state.tallies["random", "made"].best == -3.5


def test_a_relaxation_captured_by_a_minimum_that_was_absorbed_is_one_of_the_other(tmp_path):
    with Archive(tmp_path, write=True) as archive:
        structures = crystals(3)
        first, second, third = record_proposals(archive, structures)
        archive.record_outcomes([relaxed(first, -3.0), relaxed(second, -3.5)])
        archive.record_outcomes([relaxed(first, -3.5005, structures[1], level=REFINE)])
        assert [minimum.id for minimum in archive.minima()] == [2]
        (seen,) = archive.record_outcomes([replace(relaxed(third, -3.0), captured_by=1)])
        assert (seen.minimum, seen.captured_by) == (2, 2)


def test_a_reopened_archive_has_the_same_state(tmp_path):
    archive = Archive(tmp_path, write=True)
    archive.open_session({"seed": 3})
    structures = crystals(6)
    candidates = record_proposals(archive, structures, rejected=[(4, RejectionReason.DISTANCE)], parents=(1, 2))
    archive.record_outcomes([relaxed(candidates[0], -3.0), relaxed(candidates[1], -3.01, converged=False)])
    archive.record_outcomes([Failed(candidate=candidates[2], reason=FailureReason.OVERLAP, cost=Cost(force_calls=3))])
    archive.record_outcomes([relaxed(candidates[3], -3.0005, structures[0])])
    archive.record_outcomes([relaxed(candidates[0], -3.002, level=REFINE)])
    archive.record_stop("enough")
    before = summary(archive)
    archive.close()

    again = Archive(tmp_path, write=True)
    assert summary(again) == before
    assert before["pending"] == [candidates[5].id]
    assert again.state.stops == ["enough"]
    assert again.state.settings == [{"seed": 3}]
    # … also for what comes later
    (third,) = record_proposals(again, [structures[0]])
    again.record_outcomes([relaxed(third, -3.0, structures[0])])
    assert again.minima()[0].multiplicity == 3


def test_candidates_come_back_as_they_were(tmp_path):
    archive = Archive(tmp_path, write=True)
    atoms = rutile()
    atoms.set_initial_magnetic_moments([1, -1, 0, 0, 0, 0])
    atoms.set_initial_charges([4, 4, -2, -2, -2, -2])
    (candidate,) = record_proposals(archive, [atoms], parents=(7, 12))
    again = archive.candidate(candidate.id)
    assert (again.source, again.operator, again.proposal.parents) == ("random", "made", (7, 12))
    assert again.proposal.tag == {"n": 0}
    assert again.proposal.cost == Cost(seconds=0.5)
    assert (again.atoms.positions == atoms.positions).all()
    assert (again.atoms.get_initial_magnetic_moments() == atoms.get_initial_magnetic_moments()).all()
    assert (again.atoms.get_initial_charges() == atoms.get_initial_charges()).all()
    with pytest.raises(ArchiveError, match="there is no candidate 2: candidates run from 1 to 1"):
        archive.candidate(2)


def test_history_yields_calls_and_outcomes_in_order(tmp_path):
    archive = Archive(tmp_path, write=True)
    one, other = crystals(2)
    first, second = record_proposals(archive, [one, other], rejected=[(1, RejectionReason.VOLUME)])
    archive.record_outcomes([relaxed(first, -3.0)])
    called, rejection, end = archive.history()
    assert isinstance(called, SourceCall)
    assert [candidate.id for candidate in called.candidates] == [1, 2]
    assert (rejection.candidate.id, rejection.reason) == (second.id, RejectionReason.VOLUME)
    assert (end.candidate.id, end.enthalpy_per_atom, end.converged) == (first.id, pytest.approx(-3.0), True)
    assert called.sequence < rejection.sequence < end.sequence


def test_candidates_wait_for_their_owner(tmp_path):
    archive = Archive(tmp_path, write=True)
    (mine,) = record_proposals(archive, crystals(1), owner=USER)
    (ours,) = record_proposals(archive, crystals(1, seed=1), owner=WORKERS)
    assert [candidate.id for candidate in archive.pending(USER)] == [mine.id]
    assert [candidate.id for candidate in archive.pending(WORKERS)] == [ours.id]
    archive.record_outcomes([Failed(candidate=mine, reason=FailureReason.REPORTED)])
    assert archive.pending(USER) == []


def test_structures_handed_in_do_not_count_as_relaxations(tmp_path):
    archive = Archive(tmp_path, write=True)
    (added,) = record_proposals(archive, crystals(1), source=ADDED, owner=USER)
    archive.record_outcomes([relaxed(added, -3.0)])
    assert archive.state.relaxations == 0
    assert archive.minima()[0].first_relaxation == 0


def test_after_a_failed_transaction_nothing_is_written_until_the_archive_is_opened_again(tmp_path):
    archive = Archive(tmp_path, write=True)
    one, other = crystals(2)
    first, second = record_proposals(archive, [one, other])
    unwritable = relaxed(second, -3.1, detail=object())
    with pytest.raises(TypeError, match="JSON"):
        archive.record_outcomes([relaxed(first, -3.0), unwritable])
    # The first outcome changed the state before the second failed, so that the log must not go on from there.
    with pytest.raises(ArchiveError, match=r"could not be recorded .* open the directory again"):
        archive.record_outcomes([relaxed(first, -3.0)])
    archive.close()
    with Archive(tmp_path, write=True) as again:
        assert again.state.relaxations == again.number_of_minima == 0
        again.record_outcomes([relaxed(first, -3.0)])
        assert again.state.relaxations == 1


def test_ctrl_c_does_not_interrupt_a_transaction(tmp_path, monkeypatch):
    archive = Archive(tmp_path, write=True)
    (candidate,) = record_proposals(archive, crystals(1))
    transaction = archive._log.transaction

    @contextlib.contextmanager
    def interrupted():
        with transaction() as opened:
            yield opened
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(archive._log, "transaction", interrupted)
    with pytest.raises(KeyboardInterrupt):
        archive.record_outcomes([relaxed(candidate, -3.0)])
    before = summary(archive)
    assert archive.minima()[0].found_by.id == candidate.id
    archive.close()
    assert summary(Archive(tmp_path)) == before


def test_ctrl_c_while_it_is_opened_leaves_the_directory_to_others(tmp_path, monkeypatch):
    with Archive(tmp_path, write=True) as archive:
        record_proposals(archive, crystals(1))
    logs = []

    def interrupted(log):
        logs.append(log)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hybridcsp.archive.event_log.EventLog.read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Archive(tmp_path, write=True)
    assert not logs[0].writable  # although it is still referred to
    Archive(tmp_path, write=True).close()


def test_ase_db_selects_by_the_keys_of_rows(tmp_path):
    archive = Archive(tmp_path, write=True)
    candidates = record_proposals(archive, crystals(3), rejected=[(2, RejectionReason.DUPLICATE)], parents=(1,))
    archive.record_outcomes([relaxed(candidates[0], -3.0)])
    archive.record_outcomes([Failed(candidate=candidates[1], reason=FailureReason.NON_FINITE, detail="energy is nan")])
    database = ase.db.connect(tmp_path / "search.db")
    failed, rejected = database.get(event="failed"), database.get(event="rejected")
    for row in (failed, rejected):
        assert (row.source, row.operator, row.parents) == ("random", "made", "c1")
    assert failed.reason == "non-finite"
    assert rejected.reason == "duplicate"
    end = database.get(event="relaxed")
    assert end.energy == pytest.approx(-12.0)
    assert end.toatoms().get_potential_energy() == pytest.approx(-12.0)
    assert (end.minimum, end.relaxation, end.converged) == (1, 1, True)


def test_the_documented_queries_of_ase_db_find_what_they_say(tmp_path, capsys):
    from ase.cli.main import main

    archive = Archive(tmp_path, write=True)
    one, other = crystals(2)
    candidates = record_proposals(archive, [one, one, other])
    archive.record_outcomes(
        [relaxed(c, e, s) for c, e, s in zip(candidates, [-3.0, -3.001, -3.5], [one, one, other], strict=True)]
    )
    database = str(tmp_path / "search.db")
    for query, wanted in (("event=relaxed", "3"), ("best=1", "3"), ("best=1,minimum=1", "2")):
        main(args=["db", database, query, "--sort", "enthalpy_per_atom", "--limit", "1", "-c", "candidate,calculator"])
        said = capsys.readouterr().out
        assert said.splitlines()[1].split("|")[0].strip() == wanted
        assert "unknown" not in said
    main(args=["db", database, "event=relaxed,calculator=test", "-n"])
    assert "3" in capsys.readouterr().out
    main(args=["db", database, "best=1", "-n"])
    assert "2" in capsys.readouterr().out


def test_structures_that_are_no_crystals_can_be_recorded_as_rejected(tmp_path):
    archive = Archive(tmp_path, write=True)
    broken = bulk("Cu")
    broken.positions[0, 0] = np.nan
    flat = bulk("Cu")
    flat.cell[2] = 0
    record_proposals(archive, [broken, flat], rejected=[(0, RejectionReason.INVALID), (1, RejectionReason.INVALID)])
    assert archive.state.tallies["random", "made"].rejected == {"invalid": 2}


class TestTheKeyOfTheBest:
    """Rows with ``best=1`` are those of the best relaxations of the minima, at any time."""

    def selected(self, directory):
        with ase.db.connect(directory / "search.db") as database:
            chosen = list(database.select("best=1"))
            pairs = [row.id for row in database.select() if "best" in row.key_value_pairs]
        assert pairs == [row.id for row in chosen]
        return {(row.minimum, row.candidate): row.enthalpy_per_atom for row in chosen}

    def expected(self, archive):
        basins = archive.state.basins.values()
        return {(one.id, one.best.candidate): one.enthalpy_per_atom for one in basins}

    def test_it_moves_on_as_minima_are_found_improved_and_absorbed(self, tmp_path):
        structures = crystals(4)
        with Archive(tmp_path, write=True) as archive:
            starts = record_proposals(archive, [*structures, structures[0], structures[0]])
            first = [relaxed(starts[n], energy) for n, energy in enumerate((-3.0, -3.2, -3.1))]
            for outcomes in (first[:1], first[1:]):
                archive.record_outcomes(outcomes)
                assert self.selected(tmp_path) == self.expected(archive)
            # Two better ones of the first minimum arrive together, and then a worse one.
            better = [relaxed(starts[4], -3.001), relaxed(starts[5], -3.002)]
            archive.record_outcomes(better)
            assert archive.state.basins[1].best.candidate == 6
            assert self.selected(tmp_path) == self.expected(archive)
            archive.record_outcomes([relaxed(starts[3], -2.9999, structures[0])])
            assert self.selected(tmp_path) == self.expected(archive)
            # The third turns out to be the first once it is refined.
            archive.record_outcomes([relaxed(starts[2], -3.0021, structures[0], level=REFINE)])
            assert len(archive.state.basins) == 2
            assert self.selected(tmp_path) == self.expected(archive)
        assert len(self.selected(tmp_path)) == 2

    def test_databases_of_earlier_versions_get_it_when_they_are_written_to(self, tmp_path):
        structures = crystals(2)
        with Archive(tmp_path, write=True) as archive:
            starts = record_proposals(archive, [*structures, structures[0]])
            archive.record_outcomes([relaxed(start, -3.0 - start.id / 1000) for start in starts])
            expected = self.expected(archive)
        with contextlib.closing(sqlite3.connect(tmp_path / "search.db")) as database, database:
            database.execute("DROP INDEX hybridcsp_best")
            database.execute("DELETE FROM keys WHERE key = 'best'")
            database.execute("DELETE FROM number_key_values WHERE key = 'best'")
            database.execute("UPDATE systems SET key_value_pairs = replace(key_value_pairs, ', \"best\": 1', '')")
        assert self.selected(tmp_path) == {}
        Archive(tmp_path).close()
        assert self.selected(tmp_path) == {}
        Archive(tmp_path, write=True).close()
        assert self.selected(tmp_path) == expected


def test_niches_are_recorded_with_minima_and_go_on_after_the_archive_is_opened_again(tmp_path):
    near, other = crystals(2)
    near_copy = near.copy()
    near_copy.rattle(0.04, seed=1)
    with Archive(tmp_path, write=True) as archive:
        candidates = record_proposals(archive, [near, other, near, near, other])
        ends = [relaxed(candidates[0], -3.5, near), relaxed(candidates[1], -3.5, other)]
        first, second = archive.record_outcomes(ends)
        assert (first.niche, first.is_new_niche) == (1, True)
        assert (second.niche, second.is_new_niche) == (2, True)
    with Archive(tmp_path, write=True) as archive:
        (third,) = archive.record_outcomes([relaxed(candidates[2], -3.48, near_copy)])
        assert (third.minimum, third.niche, third.is_new_minimum, third.is_new_niche) == (3, 1, True, False)
        assert [minimum.niche for minimum in archive.preferred_minima()] == [1, 2, 1]
        assert archive.state.number_of_niches == 2
    seen = [o.niche for o in Archive(tmp_path).history() if not isinstance(o, SourceCall)]
    assert seen == [1, 2, 1]
