"""The GPU job from end to end with tiny networks on the CPU; its middle part with what a GPU machine has alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from crystals import rutile

JOB = Path(__file__).parents[1] / "benchmarks" / "on_gpu.py"

#: Runs a script where only what a GPU machine has can be imported beside the standard library.
ALONE = """
import runpy, sys

class Bare:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("ase", "pymatgen", "spglib", "pyxtal", "scipy", "pydantic", "rich", "typer", "psutil", "cloudpickle",
                   "deap", "chgnet", "mace", "matplotlib"):
            raise ModuleNotFoundError(f"{top} is not on the GPU machine", name=name)

sys.meta_path.insert(0, Bare())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments, alone=False, **more):
    command = [sys.executable, *(("-c", ALONE) if alone else ()), str(JOB), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **more)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    solids = [bulk(s, "fcc", a=4.0) for s in ("Ag", "Au", "Al", "Ni", "Pd", "Pt", "Rh", "Ir", "Pb", "Ca", "Sr")]
    solids += [bulk(f"{a}{b}", "rocksalt", a=5.0) for a in ("Na", "K", "Rb") for b in ("F", "Cl", "Br")]
    ase.io.write(folder / "crystals.extxyz", [*solids, rutile()])
    code, said = run("prepare", folder / "crystals.extxyz", "--cache", folder / "cache.safetensors")
    assert code == 0, said
    return folder / "cache.safetensors"


@pytest.mark.slow
def test_networks_are_trained_with_torch_alone_and_the_training_goes_on(cache, tmp_path):
    output = tmp_path / "trained"
    arguments = ("train", cache, "--output", output, "--smoke", "--workers", 0)
    code, said = run(*arguments, "--minutes", 0, alone=True)
    assert code == 0, said
    assert "the minutes are used" in said
    code, said = run(*arguments, "--minutes", 5, alone=True)
    assert code == 0, said
    for part in ("occupation", "geometry", "flow", "diffusion"):
        assert (output / f"{part}.safetensors").exists(), said
    code, said = run("finish", cache, output, "--crystals", 2, "--results", tmp_path)
    assert code == 0, said
    for name in ("wyckoff", "flow", "diffusion"):
        assert f"{name}: not installed: the interval does not lie above 0" in said
    report = json.loads((tmp_path / "on_gpu.json").read_text())
    assert report["diffusion"]["rival"] == "flow"
    assert report["flow"]["new"]["crystals"] == report["wyckoff"]["shipped"]["crystals"] == 2


def test_a_file_that_is_no_cache_is_refused_in_words(tmp_path):
    (tmp_path / "other").write_text("not a cache")
    code, said = run("train", tmp_path / "other", "--output", tmp_path / "out", alone=True)
    assert code == 1
    assert "is not a cache that" in said and "Traceback" not in said
