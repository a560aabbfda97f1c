"""Searches whose workers relax several candidates at the same time."""

import pytest
from ase.calculators.emt import EMT
from batch_emt import BatchEMT
from crystals import what_happened

from hybridcsp import Search, config
from hybridcsp.config.recorded import recorded_tables
from hybridcsp.errors import HybridCSPError, InputError
from hybridcsp.relaxation.backends import BatchedPool, GenerationBackend, WorkerPool


def make(directory, **options):
    keywords = {"calculator": BatchEMT, "batch": 4, "workers": 1, "sources": ["random", "evolution"]}
    return Search("CuAu", formula_units=(1, 2), directory=directory, seed=3, **(keywords | options))


def run(directory, relaxations, *, interrupt_after=None, **options):
    """Search, or interrupt the search while a batch runs after a number of relaxations; return the numbers reported."""
    reported = []

    def watch(progress):
        reported.append(progress.relaxations)
        if interrupt_after is not None and progress.relaxations >= interrupt_after and progress.running:
            raise KeyboardInterrupt

    with make(directory, **options) as search:
        try:
            search.run(relaxations=relaxations, on_progress=watch)
        except KeyboardInterrupt:
            assert interrupt_after is not None
    return reported


def test_an_interrupted_search_of_one_worker_is_the_uninterrupted_search(tmp_path):
    reported = run(tmp_path / "whole", 13)
    assert {1, 2, 3}.isdisjoint(reported)  # four candidates end together
    assert reported[-1] == 13
    for after in (4, 8):
        run(tmp_path / "parts", 13, interrupt_after=after)
    run(tmp_path / "parts", 13)
    assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")


def test_two_workers_fill_their_places(tmp_path):
    assert run(tmp_path, 9, workers=2)[-1] == 9


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, GenerationBackend), ({"workers": 2}, BatchedPool), ({"batch": 1}, WorkerPool), ({"batch": None}, WorkerPool)],
)
def test_workers_are_those_that_the_number_asks_for(tmp_path, options, kind):
    with make(tmp_path, **options) as search, search._open_backend() as pool:
        assert type(pool) is kind
        assert pool.capacity == search.workers * (search.settings.batch or 1)


def test_the_number_is_recorded_and_may_change(tmp_path):
    with make(tmp_path, calculator="chgnet", batch="auto") as search:
        assert recorded_tables(search.archive)["search"]["batch"] == "auto"
    with make(tmp_path, calculator="chgnet", batch=None) as search:
        assert "batch" not in search.archive.state.settings[-1]


@pytest.mark.parametrize(("given", "batch"), [("auto", "auto"), ("8", 8), (8, 8)])
def test_the_configuration_holds_the_number(given, batch):
    raw = {"problem": {"formula": "TiO2"}, "search": {"batch": given}}
    assert config.parse(raw, "a file").settings.batch == batch


@pytest.mark.parametrize("batch", [0, "many", True, 1.5])
def test_wrong_numbers_are_refused(tmp_path, batch):
    with pytest.raises(InputError, match=r'batch = .*a whole number from 1, or "auto"'):
        make(tmp_path, batch=batch)


@pytest.mark.parametrize("batch", [0, "many", 1.5])
def test_wrong_numbers_in_the_configuration_are_refused(batch):
    with pytest.raises(HybridCSPError, match=r'search.batch.*a whole number from 1, or "auto"'):
        config.parse({"problem": {"formula": "TiO2"}, "search": {"batch": batch}}, "a file")


def test_calculators_without_batches_are_refused_before_a_directory_is_made(tmp_path):
    with pytest.raises(InputError, match="the calculator EMT evaluates one structure after the other"):
        make(tmp_path / "run", calculator=EMT())
    with pytest.raises(InputError, match="the calculator lj evaluates one structure after the other"):
        make(tmp_path / "run", calculator="lj")
    with pytest.raises(InputError, match="it belongs to a calculator, and none is given"):
        make(tmp_path / "run", calculator=None)
    with pytest.raises(InputError, match="it needs worker processes of this machine"):
        make(tmp_path / "run", executor="dask:tcp://head:8786")
    assert not (tmp_path / "run").exists()


def test_what_the_workers_build_must_have_batches(tmp_path):
    with make(tmp_path, calculator=EMT) as search, pytest.raises(HybridCSPError, match="EMT cannot evaluate several"):
        search.run(relaxations=2)
