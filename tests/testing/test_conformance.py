"""The package's own sources, operators, generators, formats, backends and allocations conform; wrong ones are found."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import bulk
from toys import Toy

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Proposal
from hybridcsp.generators.loading import open_generator
from hybridcsp.io.formats import FORMATS, load
from hybridcsp.operators import OPERATORS, Operator
from hybridcsp.relaxation.backends import Backend, ExecutorBackend, WorkerPool
from hybridcsp.search.allocation import Allocation, EqualAllocation
from hybridcsp.search.success_allocation import SuccessAllocation
from hybridcsp.sources.base import BaseSource
from hybridcsp.sources.registry import SOURCES
from hybridcsp.testing import (
    check_allocation,
    check_backend,
    check_format,
    check_generator,
    check_operator,
    check_source,
)


class Strained(BaseSource):
    """A minimal correct source, and the base of incorrect ones."""

    name = "strained"

    def propose(self, n, context):
        atoms = bulk("CuAu", "cesiumchloride", a=3.1)
        strain = np.eye(3) + context.rng.normal(0, 0.05, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        return [Proposal(atoms=atoms, operator="strain")]


class TestSources:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "name", ["random", "prototypes", "evolution", "swarm", "basin-hopping", "shake", "tree-search"]
    )
    def test_shipped_sources_conform(self, name, tmp_path):
        others = ("prototypes",) if name == "random" else ("random",)
        relaxations = 8 if name in ("random", "prototypes", "tree-search") else 14  # the others need minima first
        check_source(
            lambda problem: SOURCES[name].build(problem, None), tmp_path, others=others, relaxations=relaxations
        )

    def test_minimal_source_conforms(self, tmp_path):
        check_source(lambda problem: Strained(), tmp_path, relaxations=9)

    def test_state_changed_in_propose_is_found(self, tmp_path):
        class Counting(Strained):
            calls = 0

            def propose(self, n, context):
                self.calls += 1
                atoms = bulk("CuAu", "cesiumchloride", a=2.8 + 0.06 * self.calls)
                return [Proposal(atoms=atoms, operator="strain")]

        with pytest.raises(AssertionError, match="A resumed search with the source strained differs"):
            check_source(lambda problem: Counting(), tmp_path, relaxations=9)

    def test_state_changed_by_follow_ups_in_propose_is_found(self, tmp_path):
        class Counting(Strained):
            seen = 0

            def propose(self, n, context):
                self.seen += len(context.archive.state.follow_ups.levels)
                atoms = bulk("CuAu", "cesiumchloride", a=2.8 + 0.06 * self.seen)
                atoms.set_cell(atoms.cell.array @ np.diag(1 + context.rng.normal(0, 0.02, 3)), scale_atoms=True)
                return [Proposal(atoms=atoms, operator="strain")]

        with pytest.raises(AssertionError, match="resumed search with the source strained and follow-ups differs"):
            check_source(lambda problem: Counting(), tmp_path, relaxations=9)

    def test_global_random_numbers_are_found(self, tmp_path):
        class Unseeded(Strained):
            def propose(self, n, context):
                context.rng.bit_generator.state = np.random.default_rng().bit_generator.state
                return super().propose(n, context)

        with pytest.raises(AssertionError, match="the same seed differ at event"):
            check_source(lambda problem: Unseeded(), tmp_path, relaxations=9)

    def test_wrong_contents_are_found(self, tmp_path):
        class Wrong(Strained):
            def propose(self, n, context):
                return [Proposal(atoms=bulk("Cu", cubic=True), operator="strain")]

        with pytest.raises(AssertionError, match="were rejected by the screening"):
            check_source(lambda problem: Wrong(), tmp_path, relaxations=6)

    def test_errors_are_found(self, tmp_path):
        class Failing(Strained):
            def propose(self, n, context):
                raise RuntimeError("out of order")

        with pytest.raises(AssertionError, match="raised an error in its call 0: RuntimeError: out of order"):
            check_source(lambda problem: Failing(), tmp_path, relaxations=6)


class TestAllocations:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", [SuccessAllocation, EqualAllocation])
    def test_shipped_allocations_conform(self, kind, tmp_path):
        check_allocation(kind, tmp_path)

    def test_unavailable_choice_is_found(self, tmp_path):
        class Unavailable(Allocation):
            def choose(self, available):
                return "elsewhere"

        with pytest.raises(AssertionError, match="'elsewhere', which is not among the available sources"):
            check_allocation(lambda problem, seed: Unavailable(), tmp_path)


class TestOperators:
    @pytest.mark.parametrize("offer", OPERATORS, ids=lambda offer: offer.operator.name)
    def test_shipped_operators_conform(self, offer):
        check_operator(offer.operator, problem=Problem("CuAu", formula_units=(1, 8), distance_fraction=0.4))

    def test_changed_parent_is_found(self):
        class InPlace(Operator):
            name = "in-place"

            def __call__(self, parents, problem, rng):
                parents[0].positions += rng.normal(0, 0.1, parents[0].positions.shape)
                return parents[0].copy()

        with pytest.raises(AssertionError, match="changed a parent"):
            check_operator(InPlace())

    def test_child_equal_to_its_parent_is_found(self):
        class Copy(Operator):
            name = "copy"

            def __call__(self, parents, problem, rng):
                return parents[0].copy()

        with pytest.raises(AssertionError, match="are equal to their parents"):
            check_operator(Copy())


class TestGenerators:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["wyckoff", "flow"])
    def test_shipped_generators_conform(self, name, tmp_path):
        check_generator(lambda: open_generator(name), tmp_path)

    def test_toy_conforms(self, tmp_path):
        check_generator(lambda: Toy(), tmp_path)

    def test_wrong_contents_are_found(self, tmp_path):
        class Wrong(Toy):
            def sample(self, requests, rng):
                answers = super().sample(requests, rng)
                for answer in answers:
                    answer.atoms.symbols[0] = "Ag"
                return answers

        with pytest.raises(AssertionError, match="requested was"):
            check_generator(lambda: Wrong(), tmp_path)

    def test_random_reconstructions_are_found(self, tmp_path):
        class Unsteady(Toy):
            reconstructs = True
            calls = 0

            def reconstruct(self, crystals):
                self.calls += 1
                return [atoms.repeat((self.calls, 1, 1)) for atoms in crystals]

        with pytest.raises(AssertionError, match="Two reconstructions of one crystal by the generator toy differ"):
            check_generator(lambda: Unsteady(), tmp_path)

    def test_exceptions_become_assertions(self, tmp_path):
        class Forgetful(Toy):
            def save(self, folder):
                raise FileNotFoundError("no such folder")

        with pytest.raises(AssertionError, match="check_generator was ended by FileNotFoundError: no such folder"):
            check_generator(lambda: Forgetful(), tmp_path)


class TestFormats:
    @pytest.mark.parametrize("name", sorted(FORMATS.entries()))
    def test_shipped_formats_conform(self, name, tmp_path):
        check_format(lambda: load(name), tmp_path, target="run.extxyz" if name == "plain" else "run")


class TestBackends:
    def test_process_pool_conforms(self):
        check_backend(lambda make_runner: WorkerPool(make_runner, workers=2))

    def test_executor_conforms(self):
        with ThreadPoolExecutor(2) as executor:
            check_backend(lambda make_runner: ExecutorBackend(executor, make_runner, capacity=2))

    def test_lost_jobs_are_found(self, monkeypatch):
        monkeypatch.setattr("hybridcsp.testing.backends.PATIENCE", 0.2)

        class Lossy(Backend):
            capacity = 1

            def __init__(self, runner):
                self.runner, self.jobs = runner, []

            def submit(self, job):
                self.jobs.append(job)

            def completed(self, timeout):
                jobs, self.jobs = [job for job in self.jobs if job.candidate.id == 1], []
                return [self.runner(job) for job in jobs]

        with pytest.raises(AssertionError, match="each of 1 to 8 must come back exactly once"):
            check_backend(lambda make_runner: Lossy(make_runner()))
