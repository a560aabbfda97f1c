"""Numbers of the evaluation, on generators whose samples are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from crystals import rutile

from hybridcsp.generators import metrics as room
from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.metrics import Scored, displacement, evaluate, index_of, summarise
from hybridcsp.structure.conversion import to_pymatgen

CRYSTALS = [rutile(), bulk("NaCl", "rocksalt", a=5.64), bulk("ZnS", "zincblende", a=5.41)]


class Answering:
    """Answers each request with what a function makes of the crystal sought."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked = 0

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        self.asked += len(requests)
        return [self.answer(i, self._sought(request), rng) for i, request in enumerate(requests)]

    @staticmethod
    def _sought(request: Request) -> Atoms:
        return next(
            c for c in CRYSTALS if {s: c.get_chemical_symbols().count(s) for s in c.symbols} == request.contents
        )


def turned(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The same crystal, turned, shifted, reordered and 5 % longer."""
    other = atoms[rng.permutation(len(atoms))]
    other.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    other.positions += rng.normal(size=3)
    other.set_cell(1.05 * other.cell.array, scale_atoms=True)
    return other


def test_known_crystals_match_themselves():
    generator = Answering(lambda i, atoms, rng: Sample(atoms=turned(atoms, rng), request=i))
    summary = summarise(evaluate(generator, CRYSTALS, samples=3, seed=1), ks=(1, 3))
    assert generator.asked == 9
    assert summary["match rate at 1"] == summary["match rate at 3"] == 1
    assert summary["RMSE at 1"] == pytest.approx(0, abs=1e-4)
    assert summary["valid"] == summary["symmetric"] == 1
    assert summary["unique"] == pytest.approx(1 / 3)  # three times the same crystal
    assert summary["new"] is None  # nothing to be new against
    assert summary["samples per second"] > 0


def test_known_crystals_are_not_new():
    generator = Answering(lambda i, atoms, rng: Sample(atoms=atoms, request=i))
    summary = summarise(evaluate(generator, CRYSTALS, samples=1, known=index_of(CRYSTALS[:2])), ks=(1,))
    assert summary["new"] == pytest.approx(1 / 3)


def test_random_structures_never_match():
    def needle(i: int, atoms: Atoms, rng: np.random.Generator) -> Sample:
        positions = 0.1 * rng.random((len(atoms), 3))
        return Sample(atoms=Atoms(atoms.numbers, positions=positions, cell=[3, 3, 90], pbc=True), request=i)

    summary = summarise(evaluate(Answering(needle), CRYSTALS, samples=2), ks=(1, 2))
    assert summary["match rate at 1"] == summary["match rate at 2"] == summary["valid"] == 0
    assert summary["RMSE at 2"] is summary["unique"] is summary["symmetric"] is None


def test_rejections_count_as_samples_that_do_not_match():
    def second_only(i: int, atoms: Atoms, rng: np.random.Generator) -> Sample | Reject:
        return Sample(atoms=atoms, request=i) if i % 2 else Reject(request=i, reason="not today")

    summary = summarise(evaluate(Answering(second_only), CRYSTALS, samples=2), ks=(1, 2))
    assert (summary["match rate at 1"], summary["match rate at 2"]) == (0, 1)
    assert summary["valid"] == 0.5
    assert summary["rejected"] == {"not today": 3}


def test_other_contents_and_broken_cells_are_rejected():
    def wrong(i: int, atoms: Atoms, rng: np.random.Generator) -> Sample:
        other = atoms * (2, 1, 1) if i % 2 else atoms.copy()
        if i % 2 == 0:
            other.cell[2] = 0
        return Sample(atoms=other, request=i)

    summary = summarise(evaluate(Answering(wrong), CRYSTALS, samples=2), ks=(1,))
    assert summary["rejected"] == {"not a crystal": 3, "other contents than requested": 3}


@pytest.mark.parametrize(
    ("answers", "reason"), [("raise", "raised ZeroDivisionError"), ("few", "0 answers to 3 requests")]
)
def test_a_generator_that_fails_is_counted(answers, reason):
    class Failing:
        def sample(self, requests, rng):
            return [] if answers == "few" else [1 / 0]

    assert summarise(evaluate(Failing(), CRYSTALS, samples=1), ks=(1,))["rejected"] == {reason: 3}


def test_the_displacement_is_pymatgens():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    rng = np.random.default_rng(0)
    for crystal in (*CRYSTALS, bulk("ZnS", "zincblende", a=5.41) * (2, 1, 1), bulk("Cu", cubic=True)):
        for scale in (0.02, 0.2, 0.6):
            moved = turned(crystal, rng)
            moved.rattle(scale, rng=rng)
            expected = matcher.get_rms_dist(to_pymatgen(moved), to_pymatgen(crystal))
            found, cut_short = displacement(moved, crystal)
            assert found == (None if expected is None else pytest.approx(expected[0], abs=1e-6))
            assert not cut_short
    layers = rutile()
    layers.set_scaled_positions([(0, 0, z / 6) for z in range(6)])
    assert displacement(layers, rutile()) == (None, False)


def test_long_comparisons_are_cut_short_and_counted(monkeypatch):
    monkeypatch.setattr(room, "MAPPINGS", 0)
    generator = Answering(lambda i, atoms, rng: Sample(atoms=atoms, request=i))
    summary = summarise(evaluate(generator, CRYSTALS, samples=2), ks=(1,))
    assert summary["match rate at 1"] == 0
    assert summary["comparisons cut short"] == 6


def test_evaluation_follows_the_seed_and_can_be_continued():
    def rattled(i: int, atoms: Atoms, rng: np.random.Generator) -> Sample:
        other = atoms.copy()
        other.positions += 0.1 * rng.normal(size=(len(atoms), 3))
        return Sample(atoms=other, request=i)

    def displacements(scored: Sequence[Scored]) -> list[tuple[float | None, ...]]:
        return [one.displacements for one in scored]

    crystals = CRYSTALS * 6  # more than one group
    heard: list[Scored] = []
    whole = evaluate(Answering(rattled), crystals, samples=1, seed=5, progress=heard.extend)
    assert heard == whole
    rest = evaluate(Answering(rattled), crystals, samples=1, seed=5, first=17)
    assert displacements(rest) == displacements(whole[16:])
    other = evaluate(Answering(rattled), crystals, samples=1, seed=6)
    assert displacements(other) != displacements(whole)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_scores_survive_json(scale):
    """Also those of samples that are too dense or too dilute."""

    def scaled(i, atoms, rng):
        other = atoms.copy()
        other.set_cell(scale * atoms.cell.array, scale_atoms=True)
        return Sample(atoms=other, request=i)

    scored = evaluate(Answering(scaled), CRYSTALS, samples=2, seed=1)
    assert {valid for one in scored for valid in one.valid} == {scale == 1.0}
    assert [Scored.of(json.loads(json.dumps(asdict(one)))) for one in scored] == scored
