import ase.db
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from crystals import InlineBackend, P1Source, instant_relaxation

from hybridcsp import Search
from hybridcsp.errors import ArchiveError
from hybridcsp.relaxation.calculators import build_calculator


def search(directory, calculator, **options):
    return Search(
        "Cu", calculator=calculator, directory=directory, sources=["random"], workers=1, formula_units=1, **options
    )


def lj(**parameters):
    return LennardJones(sigma=2.5, rc=7.5, smooth=True, **parameters)


class Nested(EMT):
    """A calculator with parameters as those of a DFT code: some within others."""

    def __init__(self, cutoff, command="one"):
        super().__init__()
        self.parameters = {"input_data": {"system": {"ecutwfc": cutoff}}, "kpts": (3, 3, 3), "command": command}


def labelled(label):
    def relax(job):
        from dataclasses import replace

        outcome = instant_relaxation(job)
        return replace(outcome, evaluation=replace(outcome.evaluation, calculator=label))

    return InlineBackend(relax, 1)


def run_labelled(directory, label, relaxations, **options):
    search = Search(
        "Cu",
        calculator=None,
        directory=directory,
        sources=[P1Source()],
        backend=labelled(label),
        formula_units=2,
        **options,
    )
    with search:
        search.run(relaxations=relaxations, refine=0)
        return [minimum.best.evaluation.calculator for minimum in search.minima()]


def test_parameters_within_others_are_part_of_the_label():
    labels = [build_calculator(Nested(cutoff))[1] for cutoff in (40, 60)]
    assert "input_data.system.ecutwfc=40, kpts=[3,3,3]" in labels[0]
    assert labels[0] != labels[1]
    assert labels[0] == build_calculator(Nested(40, command="another"))[1]


def test_other_parameters_of_a_calculator_are_refused_with_the_difference(tmp_path):
    with search(tmp_path, lj(epsilon=0.1)) as first:
        first.run(relaxations=1, refine=0)
    with pytest.raises(ArchiveError, match=r"\(epsilon 0\.1 -> 0\.2\).*--allow-calculator-change"):
        search(tmp_path, lj(epsilon=0.2))
    search(tmp_path, lj(epsilon=0.1)).close()
    search(tmp_path, lj(epsilon=0.2), allow_calculator_change=True).close()


def test_what_the_workers_report_is_compared_before_it_is_recorded(tmp_path):
    run_labelled(tmp_path, "Code (code 1.0, input.ecutwfc=40, kpts=[2,2,2])", 2)
    with pytest.raises(ArchiveError, match=r"\(input\.ecutwfc 40 -> 60\)"):
        run_labelled(tmp_path, "Code (code 1.0, input.ecutwfc=60, kpts=[2,2,2])", 4)
    with pytest.raises(ArchiveError, match="now Other"):
        run_labelled(tmp_path, "Other", 4)
    assert set(run_labelled(tmp_path, "Code (code 1.0, input.ecutwfc=40, kpts=[2,2,2])", 3)) == {
        "Code (code 1.0, input.ecutwfc=40, kpts=[2,2,2])"
    }


def test_energies_of_a_change_that_was_allowed_are_ranked_by_themselves(tmp_path):
    run_labelled(tmp_path, "Code (cutoff=40)", 2)
    assert set(run_labelled(tmp_path, "Code (cutoff=60)", 4, allow_calculator_change=True)) == {"Code (cutoff=60)"}


def test_rows_of_the_database_name_the_calculator(tmp_path):
    run_labelled(tmp_path, "Code (cutoff=40)", 2)
    assert ase.db.connect(tmp_path / "search.db").count(calculator="code", event="relaxed") == 2
