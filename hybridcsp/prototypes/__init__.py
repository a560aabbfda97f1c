"""Known prototypes: libraries of structures, a table of counts, and what a problem's elements make of them.

A *prototype* is an anonymous stoichiometry with a space group and the Wyckoff positions that its elements take
(:class:`Label`). Its coordinates are those of a :class:`Template`, or they are drawn. :class:`Options` puts everything
that can be tried for a problem into the order of its estimated chance.
"""

from hybridcsp.prototypes.labels import Label, identify
from hybridcsp.prototypes.library import Library, Template, aflow
from hybridcsp.prototypes.options import Option, Options
from hybridcsp.prototypes.table import CountTable, shipped_table
from hybridcsp.prototypes.templates import TemplateLibrary


def training_formulas() -> frozenset[str]:
    """Return the reduced formulas (Hill's order) that the shipped table was counted from."""
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
    "shipped_table",
    "training_formulas",
]
