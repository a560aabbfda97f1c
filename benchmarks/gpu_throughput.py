"""The job on a GPU for batched relaxation: relaxations per minute with 1 to 512 structures at the same time.

    python benchmarks/on_gpu.py relax --output throughput        # or python benchmarks/gpu_throughput.py --output …

It needs the package with CHGNet and a torch that finds the device. Each number of structures is relaxed by one worker,
and by eight workers that share the device, because each worker computes bonds and steps of the optimiser on one core.
The first arm, one structure at a time, is what the others are compared with. Runs are appended to a file and are not
repeated; see throughput.py.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from throughput import CELLS, measure, report

#: Numbers of workers and of structures that each relaxes at the same time.
ARMS = ("1x1", *(f"1x{2**power}" for power in range(1, 10)), "8x16", "8x64", "16x32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the job to a parser."""
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and of the table")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=512, help="crystals in each arm")
    parser.add_argument("--sizes", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS))


def run(given: argparse.Namespace) -> None:
    """Measure what a folder lacks, and print the table."""
    warnings.simplefilter("ignore")
    given.output.mkdir(parents=True, exist_ok=True)
    runs = given.output / "throughput_runs.jsonl"
    # One structure at a time takes as long as all the others together; an eighth of the crystals is enough for it.
    few = [arm for arm in given.arms if arm in ("1x1", "1x2")]
    measure(few, given.sizes, max(1, given.count // 8), [0], runs, given.device)
    measure([arm for arm in given.arms if arm not in few], given.sizes, given.count, [0], runs, given.device)
    report(runs, given.output / "throughput.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
