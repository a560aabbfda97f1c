"""The order of rows by a value is kept as rows are added, removed and renumbered."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.similarity.sorted_rows import SortedRows

VALUES = st.floats(-1, 1) | st.sampled_from([0.0, 0.5, math.nan])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(VALUES, st.booleans()), max_size=60), st.floats(-1, 1) | st.just(math.nan), st.floats(0, 1))
def test_rows_between_bounds_are_those_that_a_comparison_of_all_values_finds(steps, low, width):
    table, rows = [], SortedRows()
    for value, then_removes in steps:
        rows.add(len(table), value)
        table.append(value)
        if then_removes:  # the last row takes the place of the removed one
            gone, last = len(table) // 2, len(table) - 1
            rows.remove(gone, table[gone])
            if gone != last:
                rows.renumber(last, table[last], gone)
            table[gone] = table[last]
            table.pop()
    values = np.array(table)
    expected = np.flatnonzero(~((values < low) | (values > low + width)))
    assert sorted(rows.between(low, low + width)) == expected.tolist()
