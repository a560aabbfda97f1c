"""Conditions on the values of minima, such as ``band_gap > 1 and density < 6``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hybridcsp.errors import InputError

#: Name in a condition of the enthalpy above the lowest minimum in eV/atom.
HEIGHT = "height"

#: Longest condition in characters.
_LONGEST = 1000

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_SIGNS: Mapping[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}

#: Stands for the number 0 among the names of a condition.
_ZERO = ""

_FORM = (
    "comparisons (<, <=, >, >=) of names of objectives with numbers, joined by and, "
    "such as density > 4 and height < 0.1"
)


@dataclass(frozen=True)
class _Comparison:
    """Comparison of two names or numbers."""

    left: str | float
    sign: str
    right: str | float

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether it holds; it does not if a value is missing."""
        left, right = _term(self.left, values), _term(self.right, values)
        return left is not None and right is not None and _COMPARISONS[self.sign](left, right)

    @property
    def as_difference(self) -> tuple[str, str, tuple[Fraction, int]]:
        """Two names and the upper bound of the first minus the second; numbers have the name :data:`_ZERO`.

        The bound is a number, and -1 if the difference must be below it, 0 if it may be equal.
        """
        small, large = (self.left, self.right) if self.sign[0] == "<" else (self.right, self.left)
        bound = Fraction()  # sums of bounds must not be rounded
        if not isinstance(small, str):
            small, bound = _ZERO, -Fraction(small)
        elif not isinstance(large, str):
            large, bound = _ZERO, Fraction(large)
        return str(small), str(large), (bound, 0 if "=" in self.sign else -1)

    def __str__(self) -> str:
        return " ".join(term if isinstance(term, str) else f"{term:g}" for term in (self.left, self.sign, self.right))


class Condition:
    """A condition on the values of a minimum, which consists of comparisons joined by ``and``.

    The text is parsed and never executed.

    Parameters
    ----------
    text
        The condition; an empty one always holds.

    Attributes
    ----------
    text
        The condition as it was given.
    names
        Names that occur in it, in their order.

    Raises
    ------
    InputError
        If the text is not a condition.

    Examples
    --------
    >>> condition = Condition("1 < band_gap <= 3 and density < 6")
    >>> condition.names
    ('band_gap', 'density')
    >>> condition.holds({"band_gap": 2.0, "density": 5.5})
    True
    """

    def __init__(self, text: str = "") -> None:
        if not isinstance(text, str):
            raise InputError("where", text, f"a text with {_FORM}")
        self.text = text.strip()
        self._comparisons = _parsed(self.text) if self.text else ()
        terms = (term for one in self._comparisons for term in (one.left, one.right) if isinstance(term, str))
        self.names: tuple[str, ...] = tuple(dict.fromkeys(terms))

    def __bool__(self) -> bool:
        return bool(self._comparisons)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether the condition holds for values by name; it does not if a value that it needs is missing."""
        return all(one.holds(values) for one in self._comparisons)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the lowest and highest allowed value of each name that is compared with numbers."""
        found: dict[str, tuple[float, float]] = {}
        for one in self._comparisons:
            small, large = (one.left, one.right) if one.sign[0] == "<" else (one.right, one.left)
            if isinstance(small, str) and not isinstance(large, str):
                low, high = found.get(small, (-math.inf, math.inf))
                found[small] = low, min(high, large)
            elif isinstance(large, str) and not isinstance(small, str):
                low, high = found.get(large, (-math.inf, math.inf))
                found[large] = max(low, small), high
        return found

    def unmet(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """Return the comparisons that do not hold for values by name, also because a value is missing."""
        return tuple(str(one) for one in self._comparisons if not one.holds(values))

    def check(self, bounds: Mapping[str, tuple[float, float]] | None = None) -> None:
        """Check that there are values which meet all comparisons.

        Parameters
        ----------
        bounds
            Smallest and largest value that minima can have, by name. Heights begin at 0.

        Raises
        ------
        InputError
            If comparisons contradict each other or the bounds; the error names them.
        """
        for one in self._comparisons:
            if any(term in (math.inf, -math.inf) for term in (one.left, one.right)):
                raise InputError("where", self.text, reason=f"{one} compares with a number that is not finite")
        known = {HEIGHT: (0.0, math.inf), **(bounds or {})}
        natural = [
            _Comparison(name, sign, bound)
            for name in self.names
            if name in known
            for sign, bound in zip((">=", "<="), known[name], strict=True)
            if math.isfinite(bound)
        ]
        conflict = _conflict([*self._comparisons, *natural])
        if not conflict:
            return
        given = " and ".join(str(one) for one in conflict if one not in natural)
        reason = f"no minimum can meet {given}"
        if limits := " and ".join(str(one) for one in conflict if one in natural):
            reason += f", because every structure that the search may find has {limits}"
        raise InputError("where", self.text, reason=reason)


def _conflict(comparisons: Sequence[_Comparison]) -> list[_Comparison]:
    """Return comparisons that contradict each other, in the given order; none if values can meet all of them.

    Every comparison bounds a difference of two terms. Bounds contradict each other if they form a cycle along which
    their sum is negative, which the algorithm of Bellman and Ford finds (doi:10.1090/qam/102435).
    """
    edges = [one.as_difference for one in comparisons]
    distance = {name: (Fraction(), 0) for small, large, _ in edges for name in (small, large)}
    reached_by: dict[str, int] = {}
    changed = _ZERO
    for _ in range(len(distance) + 1):
        changed, moved = _ZERO, False
        for number, (small, large, bound) in enumerate(edges):
            new = (distance[large][0] + bound[0], distance[large][1] + bound[1])
            if new < distance[small]:
                distance[small], reached_by[small], changed, moved = new, number, small, True
        if not moved:
            return []
    for _ in distance:  # back into the cycle
        changed = edges[reached_by[changed]][1]
    cycle: list[int] = []
    while reached_by[changed] not in cycle:
        cycle.append(reached_by[changed])
        changed = edges[reached_by[changed]][1]
    return [comparisons[number] for number in sorted(cycle)]


def _term(term: str | float, values: Mapping[str, float]) -> float | None:
    return values.get(term) if isinstance(term, str) else term


def _parsed(text: str) -> tuple[_Comparison, ...]:
    if len(text) > _LONGEST:
        raise InputError("where", text, reason=f"it has more than {_LONGEST} characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError("where", text, reason=f"it cannot be read; it must be {_FORM}") from None
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    comparisons: list[_Comparison] = []
    for part in parts:
        if not isinstance(part, ast.Compare):
            raise _not_read(text, part)
        terms = [_read_term(text, node) for node in (part.left, *part.comparators)]
        for left, sign, right in zip(terms, part.ops, terms[1:], strict=False):
            if type(sign) not in _SIGNS:
                raise InputError("where", text, reason=f"its signs must be <, <=, > or >=; it must be {_FORM}")
            if not isinstance(left, str) and not isinstance(right, str):
                raise InputError("where", text, reason="it compares two numbers; one side must name an objective")
            comparisons.append(_Comparison(left, _SIGNS[type(sign)], right))
    return tuple(comparisons)


def _read_term(text: str, node: ast.expr) -> str | float:
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
        node = node.operand
        if not isinstance(node, ast.Constant):
            raise _not_read(text, node)
    match node:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            try:
                return sign * float(value)
            except OverflowError:
                raise _not_read(text, node) from None
        case _:
            raise _not_read(text, node)


def _not_read(text: str, node: Any) -> InputError:
    what = "or" if isinstance(node, ast.BoolOp) else ast.unparse(node)
    if isinstance(node, ast.BoolOp):
        return InputError("where", text, reason=f"comparisons are joined by and only; it must be {_FORM}")
    return InputError("where", text, reason=f"{what!r} is no comparison, name or number there; it must be {_FORM}")
