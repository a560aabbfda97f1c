"""Rows of arrays of different lengths survive being packed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hybridcsp.generators.rows import pack, unpack

LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@given(st.data(), LENGTHS, st.booleans())
def test_rows_are_unpacked_as_they_were(data, lengths, mostly_zero):
    values = st.sampled_from([0.0] * 20 + [1.5]) if mostly_zero else st.floats(-4, 4, width=16)
    rows = [
        {
            "number": np.array(length),
            "letters": np.arange(length, dtype=np.int16),
            "evidence": data.draw(arrays(np.float16, (length, 3, 2), elements=values)),
            "allowed": np.zeros((length, 7), dtype=bool),
        }
        for length in lengths
    ]
    for row, again in zip(rows, unpack(pack(rows)), strict=True):
        assert list(again) == list(row)
        for name, array in row.items():
            assert again[name].dtype == array.dtype
            assert np.array_equal(again[name], array) and again[name].shape == array.shape


def test_inconsistent_parts_are_refused():
    packed = pack([{"a": np.arange(3)}, {"a": np.arange(2)}])
    with pytest.raises(ValueError, match="a: 4 values for shapes that hold 5"):
        unpack({**packed, "a/values": packed["a/values"][:-1]})
