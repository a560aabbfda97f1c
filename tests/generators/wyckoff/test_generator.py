import copy
import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.data import atomic_numbers
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Example, Reject, Request, Sample
from hybridcsp.generators.wyckoff import WyckoffGenerator, sampler
from hybridcsp.generators.wyckoff.collation import (
    GeometryData,
    OccupationData,
    conditions,
    contents_row,
    geometry_row,
    occupation_row,
    pad_and_stack,
    substituted,
)
from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork, normal_log_density, von_mises_log_density
from hybridcsp.generators.wyckoff.geometry_sampling import _von_mises, draw_geometries
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.occupation_sampling import Decoder, OccupationState
from hybridcsp.generators.wyckoff.representation import Site, WyckoffCrystal, decode_wyckoff, encode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.sampler import _choose_occupations
from hybridcsp.generators.wyckoff.tables import N_LETTERS, WyckoffTables
from hybridcsp.generators.wyckoff.tokens import contents_in_order, detokenize, tokenize
from hybridcsp.generators.wyckoff.transformer import Size
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive, spacegroup
from hybridcsp.structure.wyckoff import LETTERS, space_group

TINY = Size(width=32, blocks=1, heads=2, dropout=0.0)


def rutile(metal="Ti", a=4.594, u=0.305):
    return crystal([metal, "O"], [(0, 0, 0), (u, u, 0)], spacegroup=136, cellpar=[a, a, 0.644 * a, 90, 90, 90])


def polar(ti=0.515):
    return crystal(
        ["Ba", "Ti", "O", "O"],
        [(0, 0, 0), (0.5, 0.5, ti), (0.5, 0.5, 0.976), (0.5, 0, 0.486)],
        spacegroup=99,
        cellpar=[3.994, 3.994, 4.038, 90, 90, 90],
    )


CRYSTALS = [
    rutile(),
    rutile("Sn", 4.74, 0.307),
    rutile("Ge", 4.4, 0.306),
    rutile("Pb", 4.95, 0.307),
    bulk("NaCl", "rocksalt", 5.64),
    bulk("MgO", "rocksalt", 4.21),
    bulk("KBr", "rocksalt", 6.6),
    bulk("CsCl", "cesiumchloride", 4.12),
    bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382),
    polar(),
    crystal(
        ["Si", "O"],
        [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    ),
]


def contents(atoms):
    from hybridcsp.structure.symmetry import primitive

    return dict(Counter(primitive(atoms).get_chemical_symbols()))


def matches(a, b):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.05, stol=0.05, angle_tol=2).fit(to_pymatgen(a), to_pymatgen(b))


@pytest.fixture(scope="session")
def positions():
    return WyckoffTables.tabulate()


@pytest.fixture(scope="session")
def untrained(positions):
    """Random weights that remember some crystals."""
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit([Example(atoms=atoms) for atoms in CRYSTALS], epochs=1, batch_size=4, device="cpu")
    return generator


@pytest.fixture(scope="session")
def overfitted():
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit(
        [Example(atoms=polar(), weight=1.0)],
        epochs=250,
        batch_size=1,
        learning_rate=0.01,
        warm_up=5,
        patience=1000,
        averaging=0.9,
        device="cpu",
    )
    return generator


# The look-ahead


def completions(group, counts, lowest, taken):
    """All ways to place the elements one after the other, their letters ascending, by brute force."""
    if not any(counts):
        return True
    if not counts[0]:
        return completions(group, counts[1:], 0, taken)
    for index, position in sorted((LETTERS.index(p.letter), p) for p in group.positions):
        if index < lowest or position.multiplicity > counts[0] or index in taken:
            continue
        after = taken | ({index} if not position.freedom else set())
        if completions(group, (counts[0] - position.multiplicity, *counts[1:]), index, after):
            return True
    return False


@pytest.mark.parametrize("number", [1, 2, 14, 47, 62, 99, 123, 139, 166, 194, 216, 221, 225, 227])
def test_next_letters_are_those_after_which_all_atoms_can_be_placed(number, positions):
    group = space_group(number)
    by_index = {LETTERS.index(p.letter): p for p in group.positions}
    for counts in itertools.product((1, 2, 3, 4), (1, 2, 6)):
        found = positions.next_letters(number, counts)
        for index in range(N_LETTERS):
            position = by_index.get(index)
            expected = (
                position is not None
                and position.multiplicity <= counts[0]
                and completions(
                    group,
                    (counts[0] - position.multiplicity, *counts[1:]),
                    index,
                    frozenset({index} if not position.freedom else ()),
                )
            )
            assert found[index] == expected
        assert positions.groups(counts)[number] == completions(group, counts, 0, frozenset()) == found.any()


def test_fixed_positions_are_occupied_once(positions):
    a, b = LETTERS.index("a"), LETTERS.index("b")
    assert not positions.next_letters(225, (1,), taken=frozenset({a, b})).any()
    assert positions.next_letters(225, (1,), taken=frozenset({a}))[b]
    assert not positions.next_letters(225, (1,), lowest=b)[a]


# Sequences


@pytest.mark.parametrize("atoms", CRYSTALS, ids=lambda atoms: atoms.get_chemical_formula())
def test_tokens_restore_the_crystal(atoms, positions):
    written = tokenize(encode_wyckoff(atoms), positions)
    back = decode_wyckoff(detokenize(written, positions))
    assert matches(atoms, back)
    assert back.get_volume() / len(back) == pytest.approx(atoms.get_volume() / len(atoms), rel=1e-6)
    assert dict(zip(written.elements, written.counts, strict=True)) == Counter(back.numbers.tolist())


@pytest.mark.parametrize("angle", [15.0, 28.0, 152.0, 165.0])
def test_tokens_allow_small_monoclinic_angles(angle, positions):
    """Settings are chosen for what is on the sites, not for the shape of the cell."""
    sites = (Site(22, "a", ()), Site(8, "i", (0.31, 0.12)), Site(9, "i", (0.72, 0.41)))
    sharp = WyckoffCrystal(12, sites, (17.3, 3.35, 17.6, 90.0, angle, 90.0))
    back = detokenize(tokenize(sharp, positions), positions)
    assert back.cell == pytest.approx(sharp.cell)
    for one, other in zip(back.sites, sharp.sites, strict=True):
        assert (one.element, one.letter) == (other.element, other.letter)
        assert one.coordinates == pytest.approx(other.coordinates)


def test_detokenize_returns_none_for_invalid_angles(positions):
    triclinic = tokenize(encode_wyckoff(bulk("Cu") * (1, 1, 1)), positions)
    flat = np.array([0, 0, 0, 3.0, 3.0, 3.0])
    impossible = replace(triclinic, spacegroup=1, letters=np.array([0]), cell=flat, coordinates=np.zeros((1, 3)))
    assert detokenize(impossible, positions) is None


# The memory


def test_stored_crystals_of_similar_elements_have_larger_weights(positions):
    store = PrototypeStore(tokenize(encode_wyckoff(atoms), positions) for atoms in CRYSTALS)
    retrieved = store.retrieve(*contents_in_order({atomic_numbers["Zr"]: 2, atomic_numbers["O"]: 4}))
    assert retrieved.group_evidence()[:, 0].argmax() == 136
    salt = store.retrieve(*contents_in_order({atomic_numbers["Rb"]: 1, atomic_numbers["Br"]: 1}))
    similar = salt.weights[:, 0]
    assert similar[salt.groups == 225].sum() > similar[salt.groups == 221].sum() > 0


def test_retrieval_can_exclude_the_same_formula(positions):
    store = PrototypeStore([tokenize(encode_wyckoff(rutile()), positions)])
    asked = contents_in_order({22: 2, 8: 4})
    assert len(store.retrieve(*asked).weights) == 1
    assert len(store.retrieve(*asked, same_formula=False).weights) == 0


def test_training_excludes_evidence_of_the_same_formula(positions):
    rutiles = [
        rutile(),
        crystal(["Sn", "O"], [(0, 0, 0), (0.307, 0.307, 0)], spacegroup=136, cellpar=[4.74, 4.74, 3.19, 90, 90, 90]),
    ]
    sequences = [tokenize(encode_wyckoff(atoms), positions) for atoms in rutiles]

    def evidence(store):
        data = OccupationData.from_tokens(sequences[:1], [1.0], conditions([None], [None]), store, positions)
        return data.batch(np.array([0]), np.random.default_rng(0))["group_evidence"].abs().sum().item()

    assert (
        evidence(PrototypeStore(sequences[:1])) == evidence(PrototypeStore()) < evidence(PrototypeStore(sequences[1:]))
    )


def test_store_is_restored_from_its_arrays(positions):
    store = PrototypeStore(tokenize(encode_wyckoff(atoms), positions) for atoms in CRYSTALS)
    again = PrototypeStore.from_arrays(store.arrays())
    for a, b in zip(store.occupations, again.occupations, strict=True):
        assert (a.elements, a.counts, a.prototype) == (b.elements, b.counts, b.prototype)


def test_store_has_no_coordinates_and_no_cells(untrained, tmp_path):
    """It is a table of occurrences: weights may be given away where the crystals may not."""
    untrained.save(tmp_path)
    tensors, _ = weights_io.load(tmp_path, "wyckoff")
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("memory.")}
    assert set(kept) == {
        f"memory.{name}" for name in ("n_elements", "n_sites", "elements", "counts", "groups", "slots", "letters")
    }
    assert not any(tensor.is_floating_point() for tensor in kept.values())
    assert not any(hasattr(occupation, "coordinates") for occupation in untrained._memory.occupations)


def test_prototypes_are_numbered_in_the_order_of_insertion(positions):
    sequences = [tokenize(encode_wyckoff(atoms), positions) for atoms in CRYSTALS]
    store = PrototypeStore(sequences[:5])
    assert store.number_of(sequences[0].prototype) == store.number_of(sequences[1].prototype) == 1
    assert store.number_of(sequences[4].prototype) == store.n_prototypes == 2
    assert store.number_of(sequences[8].prototype) == 0
    store.add(sequences)
    assert store.number_of(sequences[4].prototype) == 2
    assert store.number_of(sequences[8].prototype) > 2


# Densities


def test_mixtures_are_normalised():
    torch.manual_seed(0)
    grid = torch.linspace(0, 1, 401)[:-1]
    points = torch.cartesian_prod(grid, grid)
    points = torch.cat([points, torch.zeros(len(points), 1)], dim=1)
    weights = torch.randn(1, 5).log_softmax(-1)
    means, sharp = torch.rand(1, 5, 3), torch.rand(1, 5, 3) * 40
    free = torch.tensor([[1.0, 1.0, 0.0]])
    assert von_mises_log_density(points, free, weights, means, sharp).exp().mean().item() == pytest.approx(
        1.0, abs=1e-3
    )
    line = torch.zeros(4001, 6)
    line[:, 0] = torch.linspace(-10, 10, 4001)
    free = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    density = normal_log_density(line, free, weights, torch.randn(1, 5, 6), torch.rand(1, 5, 6) + 0.2).exp()
    assert density.sum().item() * 20 / 4000 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_lower_temperatures_draw_coordinates_closer_to_the_mean(temperature):
    n, sharp = 4000, 50.0
    one = (torch.zeros(n, 1), torch.full((n, 1, 3), 0.25), torch.full((n, 1, 3), sharp))
    free = np.tile([True, True, False], (n, 1))
    values, density = _von_mises(one, free, np.random.default_rng(0), temperature)
    assert (values[:, 2] == 0).all()
    spread = np.std(2 * np.pi * values[:, :2])
    assert spread == pytest.approx(np.sqrt(temperature / sharp), rel=0.05)
    # The density is the model's own, whatever the temperature.
    expected = von_mises_log_density(torch.as_tensor(values), torch.as_tensor(free).double(), *one)
    np.testing.assert_allclose(density, expected)


# The network


def test_likelihoods_of_sampling_and_training_agree(untrained, positions):
    """Token after token with kept keys and values, or all at once: the probability is the same."""
    (occupation, geometry), store = untrained._networks, untrained._memory
    states = [OccupationState(s.elements, s.counts, store.retrieve(s.elements, s.counts)) for s in store.occupations]
    rng = np.random.default_rng(1)
    asked = torch.as_tensor(conditions([None], [None]))
    with torch.no_grad():
        decoder = Decoder(occupation, positions, states)
        decoder.draw_groups(rng, np.ones(len(states)))
        decoder.draw_letters(rng, np.ones(len(states)))
        for sequence, likelihood in draw_geometries(geometry, positions, store, states, rng, 1.0):
            retrieved = store.retrieve(sequence.elements, sequence.counts)
            terms = {
                **occupation({**pad_and_stack([occupation_row(sequence, retrieved, positions)]), "conditions": asked}),
                **geometry({**pad_and_stack([geometry_row(sequence, store, positions)]), "conditions": asked}),
            }
            assert -sum(v.item() for v in terms.values()) == pytest.approx(likelihood, abs=2e-3, rel=1e-3)


def test_losses_are_independent_of_padding(untrained, positions):
    sequences = [tokenize(encode_wyckoff(atoms), positions) for atoms in CRYSTALS]
    n = len(sequences)
    asked = conditions([None] * n, [None] * n)
    sets = (
        OccupationData.from_tokens(sequences, [1.0] * n, asked, untrained._memory, positions),
        GeometryData.from_tokens(sequences, [1.0] * n, asked, untrained._memory, positions, learning=False),
    )
    for network, data in zip(untrained._networks, sets, strict=True):
        network.eval()
        with torch.no_grad():
            together = network(data.batch(np.arange(n), np.random.default_rng(0)))
            for i in range(n):
                alone = network(data.batch(np.array([i]), np.random.default_rng(0)))
                for name, value in alone.items():
                    # Sharp densities of coordinates magnify rounding.
                    assert value.item() == pytest.approx(together[name][i].item(), abs=1e-2, rel=1e-3)


def test_cell_depends_on_all_occupied_positions(untrained, positions):
    """The cell that is expected depends on the last site, and coordinates of the first on what the last one is."""
    geometry = untrained._networks[1].eval()
    row = geometry_row(tokenize(encode_wyckoff(polar()), positions), untrained._memory, positions)
    other = {**row, "elements": np.array([*row["elements"][:-1], 16])}  # sulphur for oxygen, which comes last
    asked = torch.as_tensor(conditions([None], [None]))
    with torch.no_grad():
        losses = [geometry({**pad_and_stack([one]), "conditions": asked}) for one in (row, other)]
    assert losses[0]["cell"].item() != losses[1]["cell"].item()


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(CRYSTALS), st.integers(0, 2**32 - 1))
def test_substituted_crystals_have_similar_elements_and_unknown_volume(positions, atoms, seed):
    row = geometry_row(tokenize(encode_wyckoff(atoms), positions), PrototypeStore(), positions)
    found = substituted(row, np.random.default_rng(seed))
    same = {name for name, value in row.items() if np.array_equal(value, found[name])}
    if found is row:
        return
    assert same >= set(row) - {"elements", "free_cell"}
    elements, counts = found["elements"].tolist(), found["counts"].tolist()
    assert contents_in_order(dict(zip(elements, counts, strict=True))) == (tuple(elements), tuple(counts))
    assert found["free_cell"].tolist() == [0.0, *row["free_cell"][1:].tolist()]


def test_unknown_conditions_are_zeros():
    asked = conditions([None, 0.0, 0.3], [None, 0.0, 30.0])
    assert asked.tolist() == [[0, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 0, pytest.approx(0.3), 1, 0.5]]


def test_given_prototypes_are_followed_and_scored(untrained, positions):
    network, store = untrained._networks[0], untrained._memory
    elements, counts = contents_in_order({22: 2, 8: 4})
    start = OccupationState(elements, counts, store.retrieve(elements, counts))
    a, f = LETTERS.index("a"), LETTERS.index("f")
    wanted = replace(start, spacegroup=136, wanted=(a, f), slots=[], letters=[])
    asked = replace(wanted, requested=True, slots=[], letters=[])
    drawn = [replace(start, slots=[], letters=[]) for _ in range(60)]
    with torch.no_grad():
        decoder = Decoder(network, positions, [wanted, asked, *drawn])
        decoder.draw_groups(np.random.default_rng(0), np.ones(62))
        group = [state.log_likelihood for state in (wanted, asked)]
        decoder.draw_letters(np.random.default_rng(0), np.ones(62))
    assert group[1] == 0.0 > group[0]  # given the group that was asked for
    assert asked.log_likelihood == pytest.approx(wanted.log_likelihood - group[0], abs=1e-3)
    assert wanted.prototype_by_element == (136, ("a", "f"))
    same = [state for state in drawn if state.prototype_by_element == wanted.prototype_by_element]
    assert same
    assert all(state.log_likelihood == pytest.approx(wanted.log_likelihood, abs=1e-3) for state in same)
    assert len(same) / 60 == pytest.approx(np.exp(wanted.log_likelihood), abs=0.25)


# The generator


def test_plausibility_is_checked_at_the_requested_pressure(untrained, monkeypatch):
    asked = []

    def watch(atoms, pressure_gpa):
        asked.append(pressure_gpa)
        return True

    monkeypatch.setattr(sampler, "is_plausible", watch)
    requests = [Request(contents={"Ti": 2, "O": 4}, pressure_gpa=80.0), Request(contents={"Ti": 2, "O": 4})]
    untrained.sample(requests, np.random.default_rng(0))
    assert set(asked) == {80.0, None}


SYMBOLS = ["Li", "Na", "K", "Mg", "Ti", "Fe", "Cu", "La", "U", "C", "N", "O", "S", "F", "Cl", "He"]


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(st.sampled_from(SYMBOLS), st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_samples_have_the_requested_contents(untrained, asked, seed):
    answers = untrained.sample([Request(contents=asked)] * 3, np.random.default_rng(seed))
    assert [answer.request for answer in answers] == [0, 1, 2]
    for answer in answers:
        if isinstance(answer, Sample):
            assert Counter(answer.atoms.get_chemical_symbols()) == asked
            assert answer.atoms.pbc.all()
            assert np.isfinite(answer.log_likelihood)
        else:
            assert "too close" in answer.reason


def test_sampling_is_reproducible(untrained):
    requests = [Request(contents={"Ti": 2, "O": 4}), Request(contents={"Na": 1, "Cl": 1})] * 4
    runs = [untrained.sample(requests, np.random.default_rng(seed)) for seed in (5, 5, 6)]

    def numbers(answers):
        return [a.atoms.positions.tolist() if isinstance(a, Sample) else a.reason for a in answers]

    assert numbers(runs[0]) == numbers(runs[1]) != numbers(runs[2])


def test_equal_requests_get_different_prototypes(untrained, positions):
    requests = [Request(contents={"Ti": 2, "O": 4})] * 12
    together = list(range(12))
    found = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            ((indices, chosen),) = _choose_occupations(
                untrained._networks[0], positions, untrained._memory, requests, [together], rng, 1.0
            )
        assert indices == together
        assert chosen[0].prototype_by_element == (136, ("a", "f"))
        found |= {state.spacegroup for state in chosen[:12]}
    assert len(found) >= 4


def test_widening_keeps_the_embeddings_of_prototypes(overfitted, positions):
    geometry = overfitted._networks[1]
    before = geometry.prototype.weight.detach().clone()
    generator = copy.deepcopy(overfitted)
    generator.fit([Example(atoms=atoms) for atoms in CRYSTALS], epochs=1, learning_rate=1e-9, device="cpu")
    after = generator._networks[1].prototype.weight
    assert len(before) == 2 < len(after) == 1 + generator._memory.n_prototypes
    assert before[1].abs().max() > 0.01
    torch.testing.assert_close(after[:2], before, atol=1e-5, rtol=0)


def test_overfitting_one_crystal_reproduces_it(overfitted):
    requests = [Request(contents=contents(polar()))] * 5
    for answer in overfitted.sample(requests, np.random.default_rng(0))[:2]:
        assert isinstance(answer, Sample)
        assert spacegroup(answer.atoms, SYMPREC_LOOSE) == 99
        assert matches(answer.atoms, polar())


@pytest.mark.parametrize("number", [136, 99, 2, 1])
def test_samples_have_the_requested_space_group(untrained, number):
    asked = {"Ti": 2, "O": 4}
    answers = untrained.sample([Request(contents=asked, spacegroup=number)] * 4, np.random.default_rng(0))
    made = [answer.atoms for answer in answers if isinstance(answer, Sample)]
    for atoms in made:
        assert spacegroup(atoms) == number
        assert len(primitive(atoms)) == 6


def test_card_lists_all_training_formulas(overfitted):
    again = copy.deepcopy(overfitted)
    before = set(again.card["training_formulas"].split())
    again.fit([Example(atoms=bulk("NaCl", "rocksalt", a=5.6))], epochs=1)
    assert set(again.card["training_formulas"].split()) == {*before, "ClNa"}


def test_both_enantiomorphic_groups_can_be_requested(untrained):
    asked = {"Si": 3, "O": 6}
    found = set()
    for number in (152, 154):
        for answer in untrained.sample([Request(contents=asked, spacegroup=number)] * 6, np.random.default_rng(0)):
            if isinstance(answer, Sample) and spacegroup(answer.atoms) in (152, 154):
                found.add((number, spacegroup(answer.atoms)))
    assert found <= {(152, 152), (154, 154)}


def test_impossible_space_group_is_rejected_with_its_reason(untrained):
    request = Request(contents={"Ti": 1, "O": 2}, spacegroup=230)
    (answer,) = untrained.sample([request], np.random.default_rng(0))
    assert isinstance(answer, Reject)
    assert "230" in answer.reason


@pytest.mark.parametrize(
    "request_", [Request(contents={"Qq": 1}), Request(contents={}), Request(contents={"Ti": 1}, spacegroup=231)]
)
def test_invalid_requests_are_refused(untrained, request_):
    with pytest.raises(InputError):
        untrained.sample([request_], np.random.default_rng(0))


def test_untrained_generators_are_refused(tmp_path):
    with pytest.raises(InputError, match="not trained"):
        WyckoffGenerator().sample([], np.random.default_rng(0))
    with pytest.raises(InputError, match="not trained"):
        WyckoffGenerator().save(tmp_path)


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="learning_rate"):
        WyckoffGenerator(TINY, TINY).fit([Example(atoms=rutile())], learnin_rate=1)


def test_loaded_generators_sample_the_same(untrained, tmp_path):
    untrained.save(tmp_path / "weights")
    loaded = [WyckoffGenerator.load(tmp_path / "weights") for _ in range(2)]
    requests = [Request(contents={"Ti": 2, "O": 4}, energy_quantile=0.0)] * 4
    first, second = (generator.sample(requests, np.random.default_rng(3)) for generator in loaded)
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Sample):
            assert np.array_equal(a.atoms.positions, b.atoms.positions)
    assert loaded[0].card["crystals"] == len(untrained._memory.occupations)
    assert weights_io.overlap(loaded[0].card, ["O2Ti", "Al2O3"]) == {"O2Ti"}
    assert loaded[0].conditions == {Condition.SPACEGROUP, Condition.ENERGY}


@pytest.mark.parametrize("missing", ["memory.", "positions.", "geometry."])
def test_incomplete_weights_are_refused(untrained, tmp_path, missing):
    untrained.save(tmp_path)
    tensors, card = weights_io.load(tmp_path, "wyckoff")
    weights_io.save(tmp_path, "wyckoff", {n: t for n, t in tensors.items() if not n.startswith(missing)}, card)
    with pytest.raises(InputError, match=r"incomplete|another version"):
        WyckoffGenerator.load(tmp_path)


@pytest.mark.slow
def test_cells_follow_the_requested_pressure(positions):
    known = {0.0: 5.64, 20.0: 5.2, 60.0: 4.8}
    sequences = [tokenize(encode_wyckoff(bulk("NaCl", "rocksalt", a)), positions) for a in known.values()]
    asked = conditions([None] * 3, [*known])
    data = GeometryData.from_tokens(sequences, [1.0] * 3, asked, PrototypeStore(), positions, learning=False)
    batch = {**data.batch(np.arange(3), np.random.default_rng(0)), "conditions": torch.as_tensor(asked)}
    torch.manual_seed(0)
    network = GeometryNetwork(positions, TINY)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.001)
    for _ in range(500):
        optimiser.zero_grad()
        network(batch)["cell"].mean().backward()
        optimiser.step()
    network.eval()
    for sequence, (pressure, a) in zip(sequences, known.items(), strict=True):
        state = OccupationState(
            sequence.elements,
            sequence.counts,
            PrototypeStore().retrieve(sequence.elements, sequence.counts),
            pressure=pressure,
            spacegroup=225,
            slots=sequence.slots.tolist(),
            letters=sequence.letters.tolist(),
        )
        drawn = draw_geometries(network, positions, PrototypeStore(), [state] * 9, np.random.default_rng(0), 0.3)
        volumes = [decode_wyckoff(detokenize(one, positions)).get_volume() for one, _ in drawn]
        assert np.median(volumes) == pytest.approx(a**3 / 4, rel=0.05)


def test_pressure_is_a_condition_once_crystals_under_pressure_were_learned(tmp_path):
    generator = WyckoffGenerator(TINY, TINY)
    assert Condition.PRESSURE not in generator.conditions
    examples = [Example(atoms=atoms, pressure_gpa=10.0 * i) for i, atoms in enumerate(CRYSTALS[:4])]
    generator.fit(examples, epochs=1, device="cpu")
    generator.save(tmp_path)
    loaded = WyckoffGenerator.load(tmp_path)
    assert Condition.PRESSURE in loaded.conditions
    assert loaded.card["pressures_gpa"] == [10.0, 30.0]


@pytest.mark.parametrize("part", ["occupation", "geometry"])
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, part):
    examples = [Example(atoms=atoms, energy_quantile=0.1 * i) for i, atoms in enumerate(CRYSTALS)]
    options = {"epochs": 3, "batch_size": 3, "device": "cpu", "seed": 2}
    whole = WyckoffGenerator(TINY, TINY)
    whole.fit(examples, **options)

    def stop(epoch):
        if (epoch.part, epoch.number) == (part, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WyckoffGenerator(TINY, TINY).fit(examples, checkpoint=tmp_path / "state", on_epoch=stop, **options)
    resumed, seen = WyckoffGenerator(TINY, TINY), []
    resumed.fit(examples, checkpoint=tmp_path / "state", on_epoch=seen.append, **options)
    left = [("occupation", 3)] if part == "occupation" else []
    left += [("geometry", number) for number in ((1, 2, 3) if left else (3,))]
    assert [(epoch.part, epoch.number) for epoch in seen] == left
    for one, other in zip(whole._networks, resumed._networks, strict=True):
        for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_samples_are_independent_of_the_order_of_contents(positions):
    elements, counts = contents_in_order({8: 3, 22: 1, 38: 1})
    assert elements == (38, 22, 8)
    assert contents_row(elements, counts)["elements"].tolist() == [38, 22, 8]
    assert OccupationNetwork(positions, TINY).positions_multiplicity[225].max() == positions.multiplicity[225].max()
