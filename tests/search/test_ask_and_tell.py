import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from copper import COPPER, crystals, search
from crystals import ListSource, P1Source

from hybridcsp import Search
from hybridcsp.errors import ArchiveError, InputError


class TestAskAndTell:
    def ask_only(self, directory, source=None):
        return Search("Cu", calculator=None, directory=directory, sources=[source or P1Source()], **COPPER)

    def relax(self, candidate):
        atoms = candidate.atoms
        atoms.calc = EMT()
        return atoms

    @pytest.mark.parametrize(
        ("results", "words"),
        [
            ({"energy": float("nan")}, "energy is not finite"),
            ({"energy": -1 + 0j}, "energy is complex numbers"),
            ({"energy": [-1.0, -2.0]}, r"energy has shape \(2,\)"),
            ({}, "the energy is not available"),
            ({"energy": -1.0, "forces": [0.0, 0.0, 0.0]}, r"forces have shape \(3,\)"),
            ({"energy": -1.0, "stress": [float("inf")] * 6}, "stress is not finite in 6 of 6 components"),
        ],
    )
    def test_told_results_are_checked_like_those_of_workers(self, tmp_path, results, words):
        run = self.ask_only(tmp_path)
        (candidate,) = run.ask()
        atoms = candidate.atoms
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = results
        with pytest.raises(InputError, match=words):
            run.tell(candidate, atoms)
        assert len(run.pending()) == 1

    def test_energy_as_array_of_one_number_is_accepted(self, tmp_path):
        run = self.ask_only(tmp_path)
        (candidate,) = run.ask()
        atoms = candidate.atoms
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = {"energy": np.array([-1.5])}
        assert run.tell(candidate, atoms).evaluation.energy == -1.5

    def test_candidates_are_pending_until_they_are_reported(self, tmp_path):
        run = self.ask_only(tmp_path)
        first, second, third = run.ask(3)
        assert [candidate.id for candidate in run.pending()] == [first.id, second.id, third.id]
        outcome = run.tell(first, self.relax(first), force_calls=17)
        assert outcome.evaluation.energy == pytest.approx(self.relax(first).get_potential_energy())
        run.fail(second.id, "my queue lost it")
        assert [candidate.id for candidate in run.pending()] == [third.id]
        assert run.archive.state.cost.force_calls == 17
        assert run.archive.state.relaxations == 2
        assert run.minima()[0].found_by.id == first.id

    def test_pending_candidates_survive_the_process(self, tmp_path):
        first = self.ask_only(tmp_path)
        asked = first.ask(2)
        first.close()
        again = self.ask_only(tmp_path)
        assert [candidate.id for candidate in again.pending()] == [candidate.id for candidate in asked]
        again.tell(asked[0].id, self.relax(asked[0]))
        assert len(again.minima()) == 1

    def test_workers_do_not_relax_candidates_of_the_user(self, tmp_path):
        run = search(tmp_path)
        (mine,) = run.ask()
        run.run(relaxations=3)
        assert [candidate.id for candidate in run.pending()] == [mine.id]
        theirs = run.minima()[0].found_by
        with pytest.raises(ArchiveError, match="belongs to the workers"):
            run.tell(theirs, self.relax(theirs))

    def test_structure_without_energy_is_refused(self, tmp_path):
        run = self.ask_only(tmp_path)
        (candidate,) = run.ask()
        with pytest.raises(InputError, match="needs a calculator that holds the energy"):
            run.tell(candidate, candidate.atoms)
        bad = candidate.atoms
        bad.calc = SinglePointCalculator(bad, energy=float("nan"))
        with pytest.raises(InputError, match="finite energy"):
            run.tell(candidate, bad)
        assert run.pending()

    @pytest.mark.parametrize("atoms", [3, None, "POSCAR", EMT()])
    def test_objects_other_than_atoms_are_refused(self, tmp_path, atoms):
        run = self.ask_only(tmp_path)
        (candidate,) = run.ask()
        with pytest.raises(InputError, match=r"atoms .*as ase\.Atoms"):
            run.tell(candidate, atoms)
        with pytest.raises(InputError, match=r"atoms .*as ase\.Atoms"):
            run.add(atoms)
        assert [waiting.id for waiting in run.pending()] == [candidate.id]

    def test_structure_of_other_composition_is_refused(self, tmp_path):
        run = self.ask_only(tmp_path)
        (candidate,) = run.ask()
        silver = bulk("Ag")
        silver.calc = EMT()
        with pytest.raises(InputError, match="whole formula units of Cu"):
            run.tell(candidate, silver)

    def test_candidate_cannot_be_reported_twice(self, tmp_path):
        run = self.ask_only(tmp_path)
        (candidate,) = run.ask()
        run.tell(candidate, self.relax(candidate))
        with pytest.raises(ArchiveError, match="reported already"):
            run.fail(candidate, "changed my mind")

    def test_structures_can_be_added(self, tmp_path):
        run = self.ask_only(tmp_path)
        copper = bulk("Cu")
        copper.calc = EMT()
        run.add(copper)
        assert run.minima()[0].spacegroup == 225
        assert run.minima()[0].found_by.source == "added"
        assert run.archive.state.relaxations == 0

    def test_added_structures_are_compared_with_later_relaxations(self, tmp_path):
        stretched = bulk("Cu", "bcc", a=2.9)
        with Search("Cu", calculator="emt", directory=tmp_path, sources=[ListSource([stretched])], **COPPER) as run:
            copper = bulk("Cu")
            copper.calc = EMT()
            run.add(copper)
            run.run(relaxations=1, refine=0)
            (minimum,) = run.minima()
            assert (minimum.found_by.source, minimum.multiplicity) == ("added", 2)

    def test_exhausted_sources_give_fewer_candidates(self, tmp_path):
        assert len(self.ask_only(tmp_path, ListSource(crystals(2))).ask(5)) == 2

    def test_enthalpy_includes_the_pressure(self, tmp_path):
        run = Search("Cu", calculator=None, directory=tmp_path, sources=[P1Source()], pressure_gpa=10, **COPPER)
        (candidate,) = run.ask()
        outcome = run.tell(candidate, self.relax(candidate))
        work = 10 * 0.0062415 * candidate.atoms.get_volume()
        assert outcome.evaluation.enthalpy - outcome.evaluation.energy == pytest.approx(work, rel=1e-4)


def test_dense_seed_is_relaxed_and_its_descendants_stay_dense(tmp_path):
    dense = bulk("Cu", "fcc", a=2.0)  # 2 Å³ per atom, estimated 4.7 to 29
    write(tmp_path / "dense.extxyz", dense)
    sources = [f"seeds:{tmp_path / 'dense.extxyz'}", "shake"]
    options = {"distance_fraction": 0.3, "formula_units": (1, 2), "calculator": None, "seed": 3}
    with Search("Cu", sources=sources, directory=tmp_path / "run", **options) as search:
        (candidate,) = search.ask()
        assert candidate.source == "seeds"
        end = candidate.atoms.copy()
        end.calc = SinglePointCalculator(end, energy=-1.0)
        search.tell(candidate, end)
        (child,) = search.ask()
        assert child.source == "shake"
        assert child.atoms.get_volume() / len(child.atoms) == pytest.approx(2.0, rel=0.2)


def test_dependent_source_may_run_alone_with_ask_and_tell(tmp_path):
    """Minima that the user adds or tells take the place of those of other sources."""
    with Search("Cu", calculator=None, directory=tmp_path, sources=["shake"]) as alone:
        assert alone.ask() == []
        minimum = bulk("Cu", "sc", a=2.4)
        minimum.calc = EMT()
        alone.add(minimum)
        assert len(alone.ask()) == 1
