"""Some hundred damaged files; the benchmark has 30,000."""

import json
import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"

CLASSES = "cif,extxyz,poscar,res,csv,json,traj,gz,zip,database,foreign,uspex,calypso,cryspy,xtalopt,toml"


def test_damaged_files_do_not_crash_hang_or_fill_memory(tmp_path):
    command = [sys.executable, FUZZ, "--cases", "320", "--seed", "11", "--only", CLASSES]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output", tmp_path / "fuzz.json"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "fuzz.json").read_text())
    assert results["done"] == 320
    assert results["failures"] == []
    assert all(row["read"] for kind, row in results["classes"].items() if kind != "toml")
