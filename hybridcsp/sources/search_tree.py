"""The tree of a Monte-Carlo tree search: crystals that are partly built, and what their completions have led to."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hybridcsp.structure.normalizer import canonical_letters

#: Largest number of nodes. When there are as many, the tree is searched as before but does not grow any more.
MOST_NODES = 20_000

#: A node with n visits has at most n to the power of this children before its children are compared.
WIDENING = 0.5

#: Factor of the spread of the values of a node in the bound of its children.
EXPLORATION = math.sqrt(2) / 4


@dataclass(frozen=True)
class Growth:
    """A crystal that is built step by step: formula units, order of the point group, space group, orbit after orbit.

    Attributes
    ----------
    units
        Number of formula units in the primitive cell; 0 if it is not chosen yet.
    order
        Order of the point group; 0 if it is not chosen yet.
    spacegroup
        Number of the space group; 0 if it is not chosen yet.
    sites
        Symbol of the element and Wyckoff letter of each orbit so far.
    """

    units: int = 0
    order: int = 0
    spacegroup: int = 0
    sites: tuple[tuple[str, str], ...] = ()

    def steps(self) -> Iterator[Growth]:
        """Yield the beginning and the growth after each step, up to this one."""
        yield Growth()
        if self.units:
            yield Growth(self.units)
        if self.order:
            yield Growth(self.units, self.order)
        if self.spacegroup:
            for n in range(len(self.sites) + 1):
                yield replace(self, sites=self.sites[:n])

    @property
    def key(self) -> Hashable:
        """Key of the node: growths that differ in the order of their steps or in the origin of the cell share it."""
        if not self.sites:
            return self.units, self.order, self.spacegroup
        symbols = sorted({symbol for symbol, _ in self.sites})
        letters = tuple("".join(letter for own, letter in self.sites if own == symbol) for symbol in symbols)
        return self.units, self.order, self.spacegroup, *symbols, *canonical_letters(self.spacegroup, letters)


@dataclass(eq=False, slots=True)
class Node:
    """A growth in the tree.

    Attributes
    ----------
    growth
        The first growth with its key.
    results
        Numbers of the results of its completions.
    running
        Number of its completions without a result.
    children
        Keys of the nodes with one step more, in the order in which they were added.
    """

    growth: Growth
    results: list[int] = field(default_factory=list)
    running: int = 0
    children: dict[Hashable, None] = field(default_factory=dict)


class SearchTree:
    """Growths that candidates have in common, with the results of these candidates.

    Attributes
    ----------
    nodes
        Nodes by key.
    """

    def __init__(self) -> None:
        self._root = Growth().key
        self.nodes: dict[Hashable, Node] = {self._root: Node(Growth())}

    def add(self, growth: Growth) -> list[Hashable]:
        """Record a new candidate, whose first step outside of the tree is added; return the keys of its nodes."""
        visited: list[Hashable] = []
        for step in growth.steps():
            key = step.key
            known = key in self.nodes
            if not known:
                if len(self.nodes) >= MOST_NODES:
                    break
                self.nodes[key] = Node(step)
            if visited:
                self.nodes[visited[-1]].children[key] = None
            self.nodes[key].running += 1
            visited.append(key)
            if not known:
                break
        return visited

    def end(self, visited: Sequence[Hashable], result: int | None) -> None:
        """Record the number of the result of a candidate with these nodes; ``None`` if it will have none."""
        for key in visited:
            node = self.nodes[key]
            node.running -= 1
            if result is not None:
                node.results.append(result)

    def select(
        self,
        values: NDArray[np.float64],
        draw: Callable[[Growth], Growth | None],
        failures: Mapping[Hashable, int],
    ) -> Growth | None:
        """Return a complete growth: the most promising part of the tree, and a random completion of it.

        From node to node, a completion is drawn while the node has few children for the number of its visits; if its
        next step is not in the tree yet, it is returned. Otherwise the child with the highest upper bound follows.
        Candidates that are running count as visits.

        Parameters
        ----------
        values
            Values of all results between 0 (worst) and 1 (best), by number.
        draw
            Function that returns a random completion of a growth, or ``None`` if it finds none.
        failures
            Number of completions by node that could not be built just now; each counts as a visit of the value 0.

        Returns
        -------
        Growth or None
            ``None`` if no completion was found.
        """
        node = self.nodes[self._root]
        while True:
            visits = len(node.results) + node.running + failures.get(node.growth.key, 0)
            if len(node.children) < max(1.0, visits**WIDENING):
                drawn = draw(node.growth)
                if drawn is None or not node.children or _next_step(node.growth, drawn) not in node.children:
                    return drawn
            node = self._best_child(node, visits, values, failures)

    def _best_child(
        self, node: Node, visits: int, values: NDArray[np.float64], failures: Mapping[Hashable, int]
    ) -> Node:
        """Return the child with the highest upper confidence bound, the first of equal ones."""
        own = values[node.results]
        mean, spread = (float(own.mean()), float(np.ptp(own))) if len(own) else (0.0, 1.0)
        best, chosen = -math.inf, node
        for key in node.children:
            child = self.nodes[key]
            failed = failures.get(key, 0)
            known = len(child.results) + failed
            value = float(values[child.results].sum()) / known if known else mean
            width = math.sqrt(2 * math.log(max(visits, 1)) / max(known + child.running, 1))
            if value + EXPLORATION * spread * width > best:
                best, chosen = value + EXPLORATION * spread * width, child
        return chosen


def _next_step(growth: Growth, completed: Growth) -> Hashable:
    """Return the key of the step of a completion that follows a growth."""
    steps = list(completed.steps())
    done = sum(1 for _ in growth.steps())
    return steps[min(done, len(steps) - 1)].key


def values_of(enthalpies: Sequence[float | None]) -> NDArray[np.float64]:
    """Return the values of results: the share of all of them that are worse, 0 for those without an enthalpy."""
    values = np.zeros(len(enthalpies))
    known = [place for place, enthalpy in enumerate(enthalpies) if enthalpy is not None]
    descending = sorted(known, key=lambda place: -(enthalpies[place] or 0.0))
    values[descending] = (len(values) - len(known) + np.arange(len(known))) / max(len(values), 1)
    return values
