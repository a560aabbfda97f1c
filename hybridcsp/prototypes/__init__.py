"""Known prototypes: libraries of structures, a table of counts, and their ranking for a problem's elements.

A *prototype* is an anonymous stoichiometry with a space group and the Wyckoff positions of its elements
(:class:`Label`). Its coordinates are those of a :class:`Template`, or they are drawn. :class:`Options` lists all
proposals for a problem in the order of their estimated probability of success.
"""

from hybridcsp.prototypes.labels import Label, identify
from hybridcsp.prototypes.library import Library, Template, aflow
from hybridcsp.prototypes.options import Option, Options
from hybridcsp.prototypes.ranking import resemblance
from hybridcsp.prototypes.table import CountTable, shipped_table
from hybridcsp.prototypes.templates import TemplateLibrary


def training_formulas() -> frozenset[str]:
    """Return the reduced formulas (Hill order) of the crystals counted in the shipped table."""
    return shipped_table().formulas


__all__ = [
    "CountTable",
    "Label",
    "Library",
    "Option",
    "Options",
    "Template",
    "TemplateLibrary",
    "aflow",
    "identify",
    "resemblance",
    "shipped_table",
    "training_formulas",
]
