"""The command line: parses, builds, prints."""

from hybridcsp.cli import comparing as comparing
from hybridcsp.cli import evaluating as evaluating
from hybridcsp.cli import exchanging as exchanging
from hybridcsp.cli import generating as generating
from hybridcsp.cli import results as results
from hybridcsp.cli import sampling as sampling
from hybridcsp.cli import searching as searching
from hybridcsp.cli import training as training
from hybridcsp.cli.app import app as app
from hybridcsp.cli.app import run as main

__all__ = ["app", "main"]
