"""Conformance suites for sources, operators, generators, predictors, formats, backends and allocations.

Each function checks one implementation of an interface and raises an :class:`AssertionError` with a full sentence if it
breaks a rule that searches rely on. Call it from a test of any framework:

>>> def test_my_source(tmp_path):
...     check_source(lambda problem: MySource(problem), tmp_path)
"""

from hybridcsp.testing.backends import check_backend
from hybridcsp.testing.formats import check_format
from hybridcsp.testing.generators import check_generator
from hybridcsp.testing.operators import check_operator
from hybridcsp.testing.predictors import check_predictor
from hybridcsp.testing.searches import check_allocation, check_source

__all__ = [
    "check_allocation",
    "check_backend",
    "check_format",
    "check_generator",
    "check_operator",
    "check_predictor",
    "check_source",
]
