"""MACE models by file and by name, and their downloads."""

from __future__ import annotations

import http.server
import logging
import os
import re
import threading

import numpy as np
import pytest
from ase.build import bulk

from hybridcsp import Search
from hybridcsp.core.records import Limits
from hybridcsp.errors import CalculatorError
from hybridcsp.relaxation.calculators import models
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import build_calculator, check_calculator, prepare_calculator
from hybridcsp.relaxation.calculators.server import mace
from hybridcsp.relaxation.guards import GuardedCalculator
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.utils.activity import announcements


@pytest.fixture(scope="module")
def mace_file(tmp_path_factory):
    """A MACE with random weights, written as MACE itself writes models."""
    with mace.mace_environment():
        import torch
        from e3nn import o3
        from mace.modules import RealAgnosticResidualInteractionBlock, ScaleShiftMACE

        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        model = ScaleShiftMACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=1,
            interaction_cls=RealAgnosticResidualInteractionBlock,
            interaction_cls_first=RealAgnosticResidualInteractionBlock,
            num_interactions=2,
            num_elements=2,
            hidden_irreps=o3.Irreps("8x0e"),
            MLP_irreps=o3.Irreps("8x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.array([-1.0, -2.0]),
            avg_num_neighbors=12.0,
            atomic_numbers=[13, 29],
            correlation=1,
            atomic_inter_scale=0.1,
            atomic_inter_shift=0.0,
        )
        path = tmp_path_factory.mktemp("mace") / "tiny.model"
        torch.save(model, path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the file in which the foundation model "small" is kept; it does not exist."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return mace.cached_file("small")


@pytest.fixture
def serve(monkeypatch):
    """Return a function that serves an answer as the file of the foundation model "small"."""
    servers = []

    def start(content, *, length=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                if length is not False:
                    self.send_header("Content-Length", str(length or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/small.model"
        monkeypatch.setitem(mace.FOUNDATION_MODELS, "small", address)
        return address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_model_is_downloaded_once_with_progress(mace_file, cache, serve, monkeypatch, caplog):
    address = serve(mace_file.read_bytes())
    file = mace.cached_file("small")
    monkeypatch.setattr(models, "_BLOCK", 4096)
    said = []
    check_calculator("mace:small")
    assert not file.exists()
    with announcements(said.append), caplog.at_level(logging.WARNING):
        prepare_calculator("mace:small")
    assert said and all(re.fullmatch(r"downloading mace:small, \d+ of \d+ MB", one) for one in said)
    assert f"from {address} to {file}" in caplog.text
    assert file.read_bytes() == mace_file.read_bytes()
    monkeypatch.setitem(mace.FOUNDATION_MODELS, "small", "http://127.0.0.1:1/small.model")
    prepare_calculator("mace:small")  # nothing is downloaded again
    _, label = build_calculator("mace:small")
    assert label.startswith("mace small ")


def test_model_without_an_announced_length_is_accepted(mace_file, cache, serve):
    serve(mace_file.read_bytes(), length=False)
    prepare_calculator("mace:small")
    assert mace.cached_file("small").read_bytes() == mace_file.read_bytes()


@pytest.mark.parametrize("length", [None, False, 100_000_000])
@pytest.mark.parametrize("end", ["half", "archive", "last byte"])
def test_part_of_a_download_is_never_a_model(mace_file, cache, serve, length, end):
    content = mace_file.read_bytes()
    inner = content.index(b"PK\x05\x06") + 22  # models contain archives: this is the end of the first one
    assert inner < len(content)
    stop = {"half": len(content) // 2, "archive": inner, "last byte": len(content) - 1}[end]
    serve(content[:stop], length=length)
    with pytest.raises(CalculatorError, match="the model cannot be downloaded"):
        prepare_calculator("mace:small")
    assert list(mace.cached_file("small").parent.iterdir()) == []


def test_page_in_place_of_a_model_is_refused(cache, serve):
    serve(b"<html>Please log in</html>")
    with pytest.raises(CalculatorError, match="the 26 bytes received are not a model"):
        prepare_calculator("mace:small")
    assert list(mace.cached_file("small").parent.iterdir()) == []


@pytest.mark.parametrize(("status", "words"), [(404, "404"), (500, "500")])
def test_refusal_of_the_server_is_reported(cache, serve, status, words):
    serve(b"", status=status)
    with pytest.raises(CalculatorError, match=words):
        prepare_calculator("mace:small")


def test_without_a_network_the_address_and_the_place_of_the_file_are_named(cache, monkeypatch, tmp_path):
    monkeypatch.setitem(mace.FOUNDATION_MODELS, "small", "http://127.0.0.1:1/small.model")
    file = mace.cached_file("small")
    words = rf"Download http://127.0.0.1:1/small.model where there is a network and save it as {re.escape(str(file))}"
    with pytest.raises(CalculatorError, match=words) as caught:
        Search("CuAl", calculator="mace:small", directory=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(CalculatorError, match=rf"has not been downloaded.*{re.escape(str(file))}"):
        build_calculator("mace:small")  # as a worker does


def test_incomplete_file_of_another_program_is_replaced(mace_file, cache, serve):
    serve(mace_file.read_bytes())
    file = mace.cached_file("small")
    file.parent.mkdir(parents=True)
    file.write_bytes(mace_file.read_bytes()[:5000])
    prepare_calculator("mace:small")
    assert file.read_bytes() == mace_file.read_bytes()


def test_simultaneous_downloads_give_one_complete_file(mace_file, cache, serve):
    serve(mace_file.read_bytes())
    threads = [threading.Thread(target=prepare_calculator, args=("mace:small",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in mace.cached_file("small").parent.iterdir()] == [mace_file.read_bytes()]


def test_foundation_models_agree_with_mace():
    with mace.mace_environment():
        from mace.calculators.foundations_models import mace_mp_urls
    assert mace_mp_urls == mace.FOUNDATION_MODELS


def test_cached_file_is_the_one_that_mace_itself_uses(cache, monkeypatch):
    with mace.mace_environment():
        from mace.calculators import foundations_models

    monkeypatch.setattr(foundations_models, "get_cache_dir", lambda: str(cache.parent))
    cache.parent.mkdir(parents=True)
    for name in mace.FOUNDATION_MODELS:
        mace.cached_file(name).touch()
        assert foundations_models.download_mace_mp_checkpoint(name) == str(mace.cached_file(name))


def test_single_precision_is_part_of_the_label(mace_file):
    choice = CalculatorChoice(calculator=f"mace:{mace_file}", precision="float32")
    calculator, label = build_calculator(choice)
    assert re.fullmatch(r"mace tiny\.model \(mace-torch [\d.]+, float32, weights=[0-9a-f]{16}\)", label)
    double, _ = build_calculator(f"mace:{mace_file}")
    energies = [one.get_property("energy", bulk("Cu")) for one in (calculator, double)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)
    assert energies[0] != energies[1]


def test_one_neighbour_list_is_made_for_each_geometry(mace_file, monkeypatch):
    calculator, _ = build_calculator(f"mace:{mace_file}")
    with mace.mace_environment():
        from mace.data import atomic_data

    calls = []
    true_function = atomic_data.get_neighborhood
    monkeypatch.setattr(atomic_data, "get_neighborhood", lambda **k: calls.append(1) or true_function(**k))
    atoms = bulk("Cu", cubic=True)
    guarded = GuardedCalculator(calculator, atoms, Limits(), RelaxationSettings())
    atoms.calc = guarded
    for _ in range(3):
        atoms.positions[0, 0] += 0.01
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert guarded.force_calls == len(calls) == 3


def test_unknown_element_is_explained(mace_file):
    calculator, _ = build_calculator(f"mace:{mace_file}")
    with pytest.raises(ValueError, match=r"the model tiny.model does not know Au; it knows Al, Cu"):
        calculator.get_property("energy", bulk("Au"))


def test_model_with_several_heads_needs_one_of_them(mace_file, tmp_path):
    import torch

    with mace.mace_environment():
        model = torch.load(mace_file, weights_only=False)
    model.heads = ["pbe", "scan"]
    path = tmp_path / "heads.model"
    torch.save(model, path)
    with pytest.raises(CalculatorError, match=rf"has the heads pbe, scan; name one, mace:{path}:HEAD"):
        build_calculator(f"mace:{path}")
    with pytest.raises(CalculatorError, match="has the heads pbe, scan"):
        build_calculator(f"mace:{path}:hse")
    calculator, label = build_calculator(f"mace:{path}:scan")
    assert label.startswith("mace heads.model scan (")
    assert calculator.head == "scan"


def test_missing_package_is_explained_before_the_search(mace_file, monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(CalculatorError, match=r"cannot import the package mace .*pip install 'hybridcsp\[mace\]'"):
        check_calculator(f"mace:{mace_file}")


def test_mace_loads_a_model_file_and_restores_global_state(mace_file, monkeypatch, capfd):
    import torch

    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    check_calculator(f"mace:{mace_file}")
    calculator, label = build_calculator(f"mace:{mace_file}")
    assert re.fullmatch(r"mace tiny\.model \(mace-torch [\d.]+, weights=[0-9a-f]{16}\)", label)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[0] = 13
    atoms.rattle(0.1, seed=2)
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert torch.get_default_dtype() is torch.float32
    assert capfd.readouterr() == ("", "")
    moved = atoms.copy()
    moved.calc = calculator
    moved.positions[0, 0] += 1e-4
    assert (energy - moved.get_potential_energy()) / 1e-4 == pytest.approx(forces[0, 0], abs=1e-3)


def test_file_without_a_mace_model_is_refused(tmp_path):
    import torch

    path = tmp_path / "weights.pt"
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CalculatorError, match="not a MACE model"):
        build_calculator(f"mace:{path}")
    path.write_text("nothing")
    with pytest.raises(CalculatorError, match="cannot be built"):
        build_calculator(f"mace:{path}")


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_structures_are_evaluated_together_as_they_are_alone(mace_file, precision):
    calculator, _ = build_calculator(CalculatorChoice(calculator=f"mace:{mace_file}", precision=precision))
    alone, _ = build_calculator(CalculatorChoice(calculator=f"mace:{mace_file}", precision=precision))
    crystals = [
        bulk("Cu", a=3.6),
        bulk("AlCu", "cesiumchloride", a=2.9) * (2, 1, 1),
        bulk("Fe"),
        bulk("Al", cubic=True),
    ]
    for number, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=number)
    results = calculator.calculate_batch(crystals)
    unknown = results.pop(2)
    assert isinstance(unknown, ValueError)
    assert "does not know Fe" in str(unknown)
    del crystals[2]
    for atoms, found in zip(crystals, results, strict=True):
        for name in ("energy", "free_energy", "forces", "stress"):
            np.testing.assert_allclose(found[name], alone.get_property(name, atoms), rtol=1e-5, atol=1e-6)


def test_used_up_memory_is_a_memory_error(monkeypatch, mace_file):
    import torch

    calculator, _ = build_calculator(f"mace:{mace_file}")

    def forward(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(type(calculator.models[0]), "forward", forward)
    with pytest.raises(MemoryError, match="out of memory"):
        calculator.calculate_batch([bulk("Cu")])
    with pytest.raises(MemoryError, match="out of memory"):
        calculator.get_property("energy", bulk("Cu"))
