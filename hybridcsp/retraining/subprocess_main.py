"""Entry point of the process of one training; see :func:`hybridcsp.retraining.versions.train_in_subprocess`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from hybridcsp.errors import GeneratorError
from hybridcsp.retraining.versions import train
from hybridcsp.utils.process_watch import end_with


def main(parent: str, unfinished: str, target: str, prior: str) -> None:
    """Train one version of a generator; end when the parent process ends.

    Parameters
    ----------
    parent
        Number of the parent process.
    unfinished
        Folder with the training set and the plan.
    target
        Class of the generator as ``module:Class``.
    prior
        Folder of the initial weights; empty to start untrained.
    """
    end_with(int(parent))
    module, _, name = target.partition(":")
    kind = getattr(importlib.import_module(module), name)
    try:
        train(Path(unfinished), kind.load(Path(prior)) if prior else kind.from_scratch())
    except GeneratorError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
