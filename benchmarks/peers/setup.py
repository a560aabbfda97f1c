"""Make an environment for each peer, with this project in it, so that both relax as this project does.

    python benchmarks/peers/setup.py             # both
    python benchmarks/peers/setup.py ase-ga      # one of them

An environment that is already there is brought up to date. Needs the package index, and about 2 GB of disk for each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]

REQUIREMENTS = {"ase-ga": ["ase-ga==1.0.3"], "cryspy": ["csp-cryspy==1.5.0"]}


def interpreter(peer: str) -> Path:
    """The Python that a peer runs in."""
    return HERE / f".venv-{peer}" / "bin" / "python"


def make(peer: str) -> None:
    python = interpreter(peer)
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
    pip = [python, "-m", "pip"]
    install = [*pip, "install", "--quiet", "--constraint", PROJECT / "constraints.txt"]
    subprocess.run([*install, *REQUIREMENTS[peer], "--editable", PROJECT], check=True)
    subprocess.run([*pip, "check"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(REQUIREMENTS)}; all by default")
    for peer in parser.parse_args().peers or REQUIREMENTS:
        if peer not in REQUIREMENTS:
            parser.error(f"there is no peer {peer!r}, only {', '.join(REQUIREMENTS)}")
        print(f"setting up {peer} in {interpreter(peer).parents[1]}", flush=True)
        make(peer)
    print(f"done, with {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
