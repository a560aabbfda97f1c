"""Assignment of minimum cost, by scipy if it is installed and otherwise by the same method in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

try:
    from scipy.optimize import linear_sum_assignment
except ImportError:  # networks can be trained in environments with torch alone
    linear_sum_assignment = None


def minimal_assignment(cost: NDArray[np.float64]) -> NDArray[np.int_]:
    """Return the column of each row in the assignment of minimum total cost.

    Parameters
    ----------
    cost
        Finite costs, shape ``(n, n)``.

    Returns
    -------
    numpy.ndarray
        A permutation, shape ``(n,)``.
    """
    if linear_sum_assignment is None:
        return shortest_augmenting_paths(cost)
    return np.asarray(linear_sum_assignment(cost)[1])


def shortest_augmenting_paths(cost: NDArray[np.float64]) -> NDArray[np.int_]:
    """Solve the assignment by shortest augmenting paths (Jonker and Volgenant, doi:10.1007/BF02278710).

    Parameters and result are those of :func:`minimal_assignment`. In the code, row and column 0 stand for "unassigned".
    """
    n = len(cost)
    row_price, column_price = np.zeros(n + 1), np.zeros(n + 1)
    row_of, before = np.zeros(n + 1, dtype=int), np.zeros(n + 1, dtype=int)
    for row in range(1, n + 1):
        row_of[0], column = row, 0
        distance, reached = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=bool)
        while row_of[column]:
            reached[column] = True
            own = row_of[column]
            reduced = np.concatenate([[np.inf], cost[own - 1] - row_price[own] - column_price[1:]])
            nearer = ~reached & (reduced < distance)
            distance[nearer], before[nearer] = reduced[nearer], column
            following = int(np.where(reached, np.inf, distance).argmin())
            step = distance[following]
            row_price[row_of[reached]] += step
            column_price[reached] -= step
            distance[~reached] -= step
            column = following
        while column:
            row_of[column] = row_of[before[column]]
            column = before[column]
    columns = np.empty(n, dtype=int)
    columns[row_of[1:] - 1] = np.arange(n)
    return columns
