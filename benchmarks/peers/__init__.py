"""Other codes that search beside ours: see README.md. This module only starts them, each in its own interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from peers.setup import interpreter

PEERS = {"ase-ga": "peers.ase_ga_bulk", "cryspy": "peers.cryspy_ea"}


def run_peer(peer: str, atoms: Atoms, task: dict[str, Any]) -> dict[str, Any]:
    """Let a peer search the contents of a relaxed crystal; return the line of its run (see :mod:`peers.record`)."""
    python = interpreter(peer)
    if not python.exists():
        raise SystemExit(f"{peer} is not set up; run python {Path(__file__).with_name('setup.py')} {peer}")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "task.json").write_text(json.dumps({**task, "method": peer}))
        ase.io.write(Path(directory, "reference.extxyz"), atoms)
        benchmarks = Path(__file__).resolve().parents[1]
        path = os.pathsep.join([str(benchmarks), str(benchmarks.parent)])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [python, "-m", PEERS[peer]], cwd=directory, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{peer} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return dict(json.loads(Path(directory, "run.json").read_text()))
