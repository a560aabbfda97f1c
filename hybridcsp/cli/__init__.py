"""Provide the command line: each module holds one command, or a group of commands."""

from hybridcsp.cli import calculators as calculators
from hybridcsp.cli import compare as compare
from hybridcsp.cli import dataset as dataset
from hybridcsp.cli import dataset_files as dataset_files
from hybridcsp.cli import dataset_relax as dataset_relax
from hybridcsp.cli import design as design
from hybridcsp.cli import dft as dft
from hybridcsp.cli import environments as environments
from hybridcsp.cli import evaluate as evaluate
from hybridcsp.cli import front as front
from hybridcsp.cli import generators as generators
from hybridcsp.cli import hull as hull
from hybridcsp.cli import import_export as import_export
from hybridcsp.cli import lists as lists
from hybridcsp.cli import potential as potential
from hybridcsp.cli import potential_search as potential_search
from hybridcsp.cli import predict as predict
from hybridcsp.cli import refine as refine
from hybridcsp.cli import resume as resume
from hybridcsp.cli import sample as sample
from hybridcsp.cli import search as search
from hybridcsp.cli import show as show
from hybridcsp.cli import train as train
from hybridcsp.cli import watch as watch
from hybridcsp.cli import xrd as xrd
from hybridcsp.cli.app import app as app
from hybridcsp.cli.app import run as main

__all__ = ["app", "main"]
