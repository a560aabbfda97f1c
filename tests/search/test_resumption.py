from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ase.db
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from crystals import InlineBackend, P1Source, instant_relaxation

from hybridcsp import Search
from hybridcsp.errors import ArchiveError, RelaxationsFailedError
from hybridcsp.relaxation.backends import ExecutorBackend
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.retraining.settings import Retraining
from hybridcsp.retraining.training_set import examples_from_minima


def search(directory, calculator, **options):
    return Search(
        "Cu", calculator=calculator, directory=directory, sources=["random"], workers=1, formula_units=1, **options
    )


def lj(**parameters):
    return LennardJones(sigma=2.5, rc=7.5, smooth=True, **parameters)


class Nested(EMT):
    """A calculator with nested parameters, as those of DFT codes."""

    def __init__(self, cutoff, command="one"):
        super().__init__()
        self.parameters = {"input_data": {"system": {"ecutwfc": cutoff}}, "kpts": (3, 3, 3), "command": command}


class Naming(EMT):
    """A calculator whose parameters are files."""

    def __init__(self, **parameters):
        super().__init__()
        self.parameters = parameters


def labelled(label, shift=0.0):
    """Return a backend whose energies have a label and are lower by ``shift`` in eV/atom."""

    def relax(job):
        outcome = instant_relaxation(job)
        energy = outcome.evaluation.energy - shift * len(outcome.atoms)
        evaluation = replace(outcome.evaluation, calculator=label, energy=energy, enthalpy=energy)
        return replace(outcome, evaluation=evaluation)

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


def test_nested_parameters_are_part_of_the_label():
    labels = [build_calculator(Nested(cutoff))[1] for cutoff in (40, 60)]
    assert "input_data.system.ecutwfc=40, kpts=[3,3,3]" in labels[0]
    assert labels[0] != labels[1]
    assert labels[0] == build_calculator(Nested(40, command="another"))[1]


def test_changed_parameters_are_refused_with_the_difference(tmp_path):
    with search(tmp_path, lj(epsilon=0.1)) as first:
        first.run(relaxations=1, refine=0)
    with pytest.raises(ArchiveError, match=r"\(epsilon 0\.1 -> 0\.2\).*--allow-calculator-change"):
        search(tmp_path, lj(epsilon=0.2))
    search(tmp_path, lj(epsilon=0.1)).close()
    search(tmp_path, lj(epsilon=0.2), allow_calculator_change=True).close()


def test_calculator_of_results_is_checked_before_they_are_recorded(tmp_path):
    run_labelled(tmp_path, "Code (code 1.0, input.ecutwfc=40, kpts=[2,2,2])", 2)
    with pytest.raises(ArchiveError, match=r"\(input\.ecutwfc 40 -> 60\)"):
        run_labelled(tmp_path, "Code (code 1.0, input.ecutwfc=60, kpts=[2,2,2])", 4)
    with pytest.raises(ArchiveError, match="now Other"):
        run_labelled(tmp_path, "Other", 4)
    assert set(run_labelled(tmp_path, "Code (code 1.0, input.ecutwfc=40, kpts=[2,2,2])", 3)) == {
        "Code (code 1.0, input.ecutwfc=40, kpts=[2,2,2])"
    }


def test_energies_after_an_allowed_change_are_ranked_separately(tmp_path):
    run_labelled(tmp_path, "Code (cutoff=40)", 2)
    assert set(run_labelled(tmp_path, "Code (cutoff=60)", 4, allow_calculator_change=True)) == {"Code (cutoff=60)"}


def test_database_rows_name_the_calculator(tmp_path):
    run_labelled(tmp_path, "Code (cutoff=40)", 2)
    assert ase.db.connect(tmp_path / "search.db").count(calculator="code", event="relaxed") == 2


def test_label_contains_digests_of_files_in_parameters(tmp_path):
    weights, pseudo = tmp_path / "my.model", tmp_path / "pseudo"
    pseudo.mkdir()
    of_weights = {"model": str(weights), "models": [str(weights)]}
    of_pseudo = {"pseudopotentials": {"Cu": "Cu.UPF"}, "input_data": {"control": {"pseudo_dir": str(pseudo)}}}
    for parameters, file in ((of_weights, weights), (of_pseudo, pseudo / "Cu.UPF")):
        labels = []
        for contents in (b"one", b"two", b"one"):
            file.write_bytes(contents)
            labels.append(build_calculator(Naming(**parameters))[1])
        assert labels[0] == labels[2] != labels[1]
        assert file.name in labels[0]


def test_changed_weights_under_the_same_path_are_refused(tmp_path):
    weights = tmp_path / "my.model"
    weights.write_bytes(b"one")
    _, label = build_calculator(Naming(model=str(weights)))
    run_labelled(tmp_path / "run", label, 2)
    run_labelled(tmp_path / "run", build_calculator(Naming(model=str(weights)))[1], 3)
    weights.write_bytes(b"two")
    with pytest.raises(ArchiveError, match=r"\(model my\.model:\w+ -> my\.model:\w+\)"):
        run_labelled(tmp_path / "run", build_calculator(Naming(model=str(weights)))[1], 4)


def test_weights_of_torch_models_are_part_of_the_label():
    torch = pytest.importorskip("torch")
    labels = []
    for bias in (0.0, 1.0, 0.0):
        calculator = EMT()
        calculator.models = [torch.nn.Linear(2, 1)]
        torch.nn.init.constant_(calculator.models[0].weight, 2.0)
        torch.nn.init.constant_(calculator.models[0].bias, bias)
        labels.append(build_calculator(calculator)[1])
    assert labels[0] == labels[2] != labels[1]
    assert "models.0=" in labels[0]


def test_nested_calculators_are_part_of_the_label():
    labels = [build_calculator(SumCalculator([EMT(), lj(epsilon=epsilon)]))[1] for epsilon in (0.1, 0.2)]
    assert "epsilon=0.1" in labels[0]
    assert labels[0] != labels[1]


FACTORY = """
from ase.calculators.emt import EMT

def make():
    cutoff = {}
    return EMT()
"""


def test_changed_module_of_the_calculator_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "calculator_of_a_test.py"
    module.write_text(FACTORY.format(30))
    name = "calculator_of_a_test:make"
    _, label = build_calculator(name)
    assert "source=" in label
    with search(tmp_path / "run", name, backend=labelled(label)) as first:
        first.run(relaxations=1, refine=0)
    search(tmp_path / "run", name).close()
    module.write_text(FACTORY.format(60))
    with pytest.raises(ArchiveError, match=r"\(source \w+ -> \w+\).*--allow-calculator-change"):
        search(tmp_path / "run", name)


def test_label_has_no_digest_of_installed_modules():
    assert "source=" not in build_calculator("ase.calculators.emt:EMT")[1]


def test_calculator_of_an_executor_is_checked(tmp_path):
    def run(relaxations, epsilon):
        with ThreadPoolExecutor(1) as executor:
            backend = ExecutorBackend(executor, Relaxer(calculator=lj(epsilon=epsilon)), capacity=1)
            options = {"directory": tmp_path, "sources": ["random"], "formula_units": 1, "backend": backend}
            with backend, Search("Cu", calculator=None, **options) as search:
                search.run(relaxations=relaxations, refine=0)

    run(1, 0.1)
    run(2, 0.1)
    with pytest.raises(ArchiveError, match=r"epsilon 0\.1 -> 0\.2"):
        run(3, 0.2)


class TestAllowedCalculatorChange:
    """Energies of two calculators in one directory."""

    def search(self, directory, backend, **options):
        sources = ["random", "evolution", "swarm", "basin-hopping", "shake"]
        settings = {"sources": sources, "formula_units": 4, "seed": 3, "allow_calculator_change": True} | options
        return Search("Cu", calculator=None, directory=directory, backend=backend, **settings)

    def calculators(self, search):
        """Return the calculators of all energies that the sources know."""
        sources, archive = search.sources, search.archive
        ends = [minimum.best for minimum in search.minima()]
        ends += [individual.minimum.best for individual in sources["evolution"].population(archive)]
        for swarm in sources["swarm"].swarms.values():
            ends += [*swarm.known.values(), *(one.best for one in swarm.particles.values() if one.best is not None)]
        ends += [walker.end for walker in sources["basin-hopping"].walkers.values() if walker.end is not None]
        ends += [saddle.end for saddle in sources["shake"]._waiting.values()]
        return {end.evaluation.calculator for end in ends}

    def state(self, search):
        walkers = search.sources["basin-hopping"].walkers
        return (
            {name: search._proposer.allocation.rate(name) for name in search.sources},
            search._proposer.allocation._credit._lowest[0],
            {number: (walker.place, walker.lowest, walker.futile) for number, walker in walkers.items()},
            search.sources["evolution"]._minima,
            search.sources["shake"]._heights.lowest,
        )

    @pytest.mark.parametrize("shift", [-10.0, 10.0])
    def test_sources_do_not_know_energies_of_the_former_calculator(self, tmp_path, shift):
        with self.search(tmp_path, labelled("one", shift)) as first:
            first.run(relaxations=30, refine=0)
            assert self.calculators(first) == {"one"}
        with self.search(tmp_path, labelled("two")) as second:
            second.run(relaxations=60, refine=0)
            assert self.calculators(second) == {"two"}
            state = self.state(second)
            assert state[1] == second.archive.best_enthalpy_per_atom
            examples = examples_from_minima(second.archive.preferred_minima(), "flow", second.problem, Retraining())
            assert len(examples) <= len(second.minima()) < len(second.archive.state.basins)
        with self.search(tmp_path, labelled("two"), allow_calculator_change=False) as again:
            assert self.state(again) == state
            again.run(relaxations=65, refine=0)
            assert self.calculators(again) == {"two"}

    def test_stopping_criteria_use_the_new_energies_only(self, tmp_path):
        with self.search(tmp_path, labelled("one", 10.0)) as first:
            first.run(relaxations=20, refine=0)
            lowest = first.archive.best_enthalpy_per_atom
        with self.search(tmp_path, labelled("two")) as second:
            assert second.run(relaxations=30, refine=0, stop_at=lowest + 5).stopped == "relaxations used up"
            summary = second.run(relaxations=200, refine=0, stop_after_unchanged=15)
            assert summary.stopped == "best unchanged"
            assert second.archive.state.relaxations > 35
            assert summary.progress.best > lowest + 5

    def test_named_calculator_is_in_use_before_its_first_result(self, tmp_path):
        emt = build_calculator("emt")[1]
        with self.search(tmp_path, labelled(emt, 10.0), sources=["random"]) as first:
            first.run(relaxations=5, refine=0)
        options = {"sources": ["random"], "formula_units": 4, "seed": 3, "allow_calculator_change": True}
        with Search("Cu", calculator="lj", directory=tmp_path, workers=1, **options) as second:
            assert second.archive.state.calculator == build_calculator("lj")[1]
            assert (second.minima(), second.archive.best_enthalpy_per_atom) == ([], None)

    def test_return_to_the_first_calculator_ranks_its_minima_again(self, tmp_path):
        for label, relaxations in (("one", 12), ("two", 18), ("one", 20)):
            with self.search(tmp_path, labelled(label, 10.0 * (label == "two"))) as search:
                search.run(relaxations=relaxations, refine=0)
        assert {minimum.best.evaluation.calculator for minimum in search.minima()} == {"one"}
        with self.search(tmp_path, labelled("one")) as search:
            assert search.archive.number_of_minima > 2
            assert search.archive.state.improvements[0][0] == 1

    def test_new_calculator_that_always_fails_ends_the_search(self, tmp_path):
        with self.search(tmp_path, labelled("emt (1)"), sources=["random"]) as first:
            first.run(relaxations=3, refine=0)

        class Failing(EMT):
            def calculate(self, *args, **kwargs):
                raise RuntimeError("no licence")

        label = build_calculator(Failing())[1]
        with self.search(tmp_path, InlineBackend(Relaxer(calculator=Failing())()), sources=["random"]) as second:
            second.archive.open_session({**second.archive.state.settings[-1], "calculator_label": label})
            with pytest.raises(RelaxationsFailedError, match="no licence"):
                second.run(relaxations=50, stop_after_failures=4)
