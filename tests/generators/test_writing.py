"""Samples into files."""

import ase.io
import numpy as np
import pytest
from toys import Toy

from hybridcsp.errors import GeneratorError
from hybridcsp.generators import Reject, Request
from hybridcsp.generators.writing import write_samples


class Noting(Toy):
    """Notes what is asked in one call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def sample(self, requests, rng):
        self.calls.append(len(requests))
        return super().sample(requests, rng)


def asked(*groups):
    return [(number, Request(contents={"Cu": 1})) for number, n in enumerate(groups) for _ in range(n)]


def test_requests_of_one_group_stay_together_as_far_as_possible(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridcsp.generators.writing.TOGETHER", 4)
    model, seen = Noting(), []
    made, reasons = write_samples(tmp_path / "x.extxyz", model, asked(3, 2, 1, 18, 4), 0, seen.append)
    assert (made, dict(reasons)) == (28, {})
    assert model.calls == seen == [5, 16, 7]
    numbers = [frame.info["request"] for frame in ase.io.read(tmp_path / "x.extxyz", ":")]
    assert np.bincount(numbers).tolist() == [3, 2, 1, 18, 4]


def test_what_came_to_nothing_is_counted_and_without_a_crystal_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "answer", lambda self, number, *_: Reject(request=number, reason="out of luck"))
    made, reasons = write_samples(tmp_path / "x.extxyz", Toy(), asked(3), 0)
    assert (made, dict(reasons)) == (0, {"out of luck": 3})
    assert list(tmp_path.iterdir()) == []


def test_a_generator_that_raises_leaves_the_file_of_before(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no idea")

    (tmp_path / "x.extxyz").write_text("before")
    monkeypatch.setattr(Toy, "answer", fail)
    with pytest.raises(GeneratorError, match="toy raised RuntimeError: no idea"):
        write_samples(tmp_path / "x.extxyz", Toy(), asked(3), 0)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
