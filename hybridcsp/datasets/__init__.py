"""Data sets for training: element substitution, augmentation, relaxation, conversion, and the cards that describe them.

A data set is an extended XYZ file with properties of each crystal in its comment line (``atoms.info``), and a card
beside it, in JSON and as text. The command ``hybridcsp dataset`` makes them; ``hybridcsp train`` reads them.
"""

from hybridcsp.datasets.augmentation import OPERATIONS, augment
from hybridcsp.datasets.cards import describe_card, read_card, write_card
from hybridcsp.datasets.reading import Crystals, aflow_templates, read_crystals, templates_of
from hybridcsp.datasets.relaxation import RelaxationProgress, relax_crystals
from hybridcsp.datasets.searches import crystals_of_searches
from hybridcsp.datasets.substitution import (
    Substituted,
    Substitution,
    SubstitutionLimits,
    substitute_into,
    substitute_similar,
)
from hybridcsp.datasets.targets import Target
from hybridcsp.datasets.writing import fold, fold_to_lowest, write_dataset

__all__ = [
    "OPERATIONS",
    "Crystals",
    "RelaxationProgress",
    "Substituted",
    "Substitution",
    "SubstitutionLimits",
    "Target",
    "aflow_templates",
    "augment",
    "crystals_of_searches",
    "describe_card",
    "fold",
    "fold_to_lowest",
    "read_card",
    "read_crystals",
    "relax_crystals",
    "substitute_into",
    "substitute_similar",
    "templates_of",
    "write_card",
    "write_dataset",
]
