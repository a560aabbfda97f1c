"""Trains one version of a generator in a process of its own; see :func:`hybridcsp.retraining.versions.train_apart`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from hybridcsp.errors import GeneratorError
from hybridcsp.retraining.versions import train
from hybridcsp.utils.process_watch import end_with


def main(parent: str, unfinished: str, target: str, prior: str) -> None:
    """Train as a prepared folder says, from the weights in another folder or from none; end when the parent does."""
    end_with(int(parent))
    module, _, name = target.partition(":")
    kind = getattr(importlib.import_module(module), name)
    try:
        train(Path(unfinished), kind.load(Path(prior)) if prior else kind.from_scratch())
    except GeneratorError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
