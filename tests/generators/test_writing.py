"""Samples into files."""

import ase.io
import numpy as np
import pytest
from toys import Toy

from hybridcsp.errors import GeneratorError
from hybridcsp.generators.base import Reject, Request
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
    written = write_samples(tmp_path / "x.extxyz", model, asked(3, 2, 1, 18, 4), 0, seen.append)
    assert (written.made.total(), dict(written.reasons)) == (28, {})
    assert model.calls == seen == [5, 16, 7]
    numbers = [frame.info["request"] for frame in ase.io.read(tmp_path / "x.extxyz", ":")]
    assert np.bincount(numbers).tolist() == [3, 2, 1, 18, 4]


def test_rejects_are_counted_and_no_file_is_written_without_crystals(tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "answer", lambda self, number, *_: Reject(request=number, reason="out of luck"))
    written = write_samples(tmp_path / "x.extxyz", Toy(), asked(2, 1), 0)
    assert written.made.total() == 0
    assert written.missing == {0: {"out of luck": 2}, 1: {"out of luck": 1}}
    assert written.reasons == {"out of luck": 3}
    assert list(tmp_path.iterdir()) == []


def test_rejected_requests_are_repeated(tmp_path, monkeypatch):
    """A generator that fails for the second request of every call makes all of them in the end, in order."""
    answer = Toy.answer
    monkeypatch.setattr(
        Toy, "answer", lambda self, i, *more: Reject(request=i, reason="luck") if i == 1 else answer(self, i, *more)
    )
    written = write_samples(tmp_path / "x.extxyz", Toy(), asked(2, 2), 0, notes={1: {"formula_units": 2}})
    assert (written.made, written.missing) == ({0: 2, 1: 2}, {})
    frames = ase.io.read(tmp_path / "x.extxyz", ":")
    assert [frame.info["request"] for frame in frames] == [0, 0, 1, 1]
    assert [frame.info.get("formula_units") for frame in frames] == [None, None, 2, 2]


def test_requests_that_are_not_answered_are_missing(tmp_path, monkeypatch):
    sample = Toy.sample
    monkeypatch.setattr(Toy, "sample", lambda self, requests, rng: sample(self, requests[:1], rng))
    written = write_samples(tmp_path / "x.extxyz", Toy(), asked(6), 0)
    assert (written.made, written.missing) == ({0: 4}, {0: {"no answer": 2}})


def test_a_generator_that_raises_leaves_the_file_of_before(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no idea")

    (tmp_path / "x.extxyz").write_text("before")
    monkeypatch.setattr(Toy, "answer", fail)
    with pytest.raises(GeneratorError, match="toy raised RuntimeError: no idea"):
        write_samples(tmp_path / "x.extxyz", Toy(), asked(3), 0)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
