"""The prototypes source: known answers, the problem's limits, each thing once, and exact replay."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from crystals import rutile

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import RejectionReason
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate
from hybridcsp.errors import InputError
from hybridcsp.prototypes import aflow
from hybridcsp.search.screening import Screen
from hybridcsp.similarity import MINIMA, same_structure
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.sources.registry import SOURCES
from hybridcsp.structure.symmetry import spacegroup

# Before it is relaxed, a crystal has the shape of the prototype's and an estimated volume.
RELATIVES = replace(MINIMA, volume=0.3)


def context(problem, call, seed=0):
    return Context(problem=problem, archive=cast(Archive, None), rng=np.random.default_rng([seed, call]))


def take(source, problem, n, seed=0, first=0):
    """Ask for proposals one by one, as a search does."""
    found = []
    for call in range(first, first + n):
        proposals = source.propose(1, context(problem, call, seed))
        source.proposed([Candidate(proposal=p, id=call + 1, source="prototypes") for p in proposals])
        found += proposals
    return found


@pytest.fixture(scope="module")
def titania():
    problem = Problem("TiO2", formula_units=(1, 4))
    return take(PrototypesSource(problem), problem, 30)


def test_titania_gets_rutile_first_and_anatase_early(titania):
    anatase = bulk("Ti", "bct", a=3.79, c=9.51)
    assert same_structure(titania[0].atoms, rutile(), RELATIVES)
    assert titania[0].operator == "aflow"
    assert "Rutile" in titania[0].tag["template"]
    assert any(p.tag["template"] and "Anatase" in p.tag["template"] for p in titania[:10])
    found = next(p for p in titania if p.tag["template"] and "Anatase" in p.tag["template"])
    assert spacegroup(found.atoms) == 141
    # its titanium atoms alone are a body-centred tetragonal lattice's with a basis: two in the primitive cell
    assert len(found.atoms) == 6
    assert found.atoms.cell.lengths().max() < anatase.cell.lengths().max() * 1.2


def test_sodium_chloride_gets_rock_salt_first():
    problem = Problem("NaCl", formula_units=(1, 2))
    (first,) = take(SOURCES["prototypes"].load()(problem), problem, 1)
    assert same_structure(first.atoms, bulk("NaCl", "rocksalt", a=5.64), RELATIVES)
    assert first.atoms.get_volume() / 2 == pytest.approx(problem.expected_volume_per_atom)


def test_strontium_titanate_gets_perovskite_with_strontium_among_twelve_oxygen_atoms():
    problem = Problem("SrTiO3", formula_units=(1, 2))
    found = take(PrototypesSource(problem), problem, 5)
    cubic = next(p.atoms for p in found if spacegroup(p.atoms) == 221)
    assert len(cubic) == 5
    distances = cubic.get_all_distances(mic=True)
    symbols = list(cubic.symbols)
    to_oxygen = {s: min(distances[symbols.index(s), i] for i in range(5) if symbols[i] == "O") for s in ("Sr", "Ti")}
    assert to_oxygen["Sr"] == pytest.approx(to_oxygen["Ti"] * 2**0.5)


@pytest.mark.parametrize("formula", ["TiO2", "LiFeAs", "Mg2SiO4"])
def test_proposals_obey_the_problem_and_differ(formula):
    problem = Problem(formula, formula_units=(1, 4), max_atoms=28)
    screen = Screen(problem)
    duplicates = 0
    proposals = take(PrototypesSource(problem), problem, 20)
    assert len(proposals) == 20
    for i, proposal in enumerate(proposals):
        verdict = screen.check(proposal.atoms)
        duplicates += verdict.reason is RejectionReason.DUPLICATE
        assert verdict.reason in (None, RejectionReason.DUPLICATE), verdict.detail
        if verdict.described is not None:
            screen.accepted(Candidate(proposal=proposal, id=i + 1, source="prototypes"), verdict.described)
        assert spacegroup(proposal.atoms) == proposal.tag["spacegroup"] or proposal.operator == "aflow"
    assert duplicates <= 2
    assert len({proposal.tag["rank"] for proposal in proposals}) == 20


def test_tags_describe_the_prototype(titania):
    for proposal in titania:
        assert set(proposal.tag) == {"prototype", "spacegroup", "sites", "template", "draw", "chance", "rank"}
        assert proposal.tag["prototype"].startswith("AB2_")
        assert proposal.tag["sites"] == ["Ti", "O"]
        assert proposal.operator == ("aflow" if proposal.tag["template"] else "wyckoff-table")
    chances = [proposal.tag["chance"] for proposal in titania]
    assert chances == sorted(chances, reverse=True)


def test_resumed_search_equals_uninterrupted_search(titania):
    problem = Problem("TiO2", formula_units=(1, 4))
    resumed = PrototypesSource(problem)
    for i, proposal in enumerate(titania[:20]):
        resumed.proposed([Candidate(proposal=proposal, id=i + 1, source="prototypes")])
    again = take(resumed, problem, 10, first=20)
    assert [p.atoms for p in again] == [p.atoms for p in titania[20:]]
    assert [dict(p.tag) for p in again] == [dict(p.tag) for p in titania[20:]]


def test_proposing_changes_nothing_until_it_is_taken_in():
    problem = Problem("NaCl", formula_units=(1, 4))
    source = PrototypesSource(problem)
    first, second = (source.propose(3, context(problem, 0)) for _ in range(2))
    assert [p.atoms for p in first] == [p.atoms for p in second]
    assert len(first) == 3


def test_seed_changes_drawn_coordinates_but_not_the_order():
    problem = Problem("TiO2", formula_units=(1, 4))
    one, other = (take(PrototypesSource(problem), problem, 8, seed=seed) for seed in (0, 1))
    assert [p.tag["prototype"] for p in one] == [p.tag["prototype"] for p in other]
    drawn = [(a, b) for a, b in zip(one, other, strict=True) if a.operator == "wyckoff-table"]
    assert drawn
    assert all(a.atoms != b.atoms for a, b in drawn)


def test_it_ends_when_everything_was_proposed():
    problem = Problem("NaCl", formula_units=1, spacegroups=(225, 221))
    source = PrototypesSource(problem)
    found = take(source, problem, 10)
    assert {p.tag["prototype"] for p in found} == {"AB_cF8_225_a_b", "AB_cP2_221_a_b"}
    assert len(found) == 2
    assert source.status() is SourceStatus.EXHAUSTED
    assert source.propose(1, context(problem, 11)) == []


@pytest.mark.parametrize(
    "problem", [Problem("Li7Na13", max_atoms=40), Problem("NaCl", formula_units=1, cell=(4, 4, 4, 60, 60, 60))]
)
def test_source_is_exhausted_if_no_prototype_is_known(problem):
    source = PrototypesSource(problem)
    assert source.status() is SourceStatus.EXHAUSTED
    assert source.propose(1, context(problem, 0)) == []


def test_templates_of_a_person_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "own.extxyz", [bulk("AgCl", "rocksalt", a=5.5)])
    problem = Problem("NaCl", formula_units=1)
    (first,) = take(PrototypesSource(problem, str(tmp_path / "own.extxyz"), libraries=[]), problem, 1)
    assert first.operator == "template"
    assert first.tag["template"] == "own.extxyz, frame 0"
    with pytest.raises(InputError, match="no such file"):
        PrototypesSource(problem, str(tmp_path / "nothing.extxyz"))


def test_benchmark_can_leave_out_its_targets():
    problem = Problem("TiO2", formula_units=(1, 2))
    source = PrototypesSource(problem, libraries=[aflow().without(["O2Ti"])])
    names = [p.tag["template"] for p in take(source, problem, 12) if p.operator == "aflow"]
    assert not any("Rutile" in name or "Anatase" in name for name in names)
