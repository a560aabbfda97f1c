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
from hybridcsp.generators import Condition, Example, Reject, Request, Sample, storage
from hybridcsp.generators.wyckoff import WyckoffGenerator
from hybridcsp.generators.wyckoff.collation import Sequences, contents_row, stack
from hybridcsp.generators.wyckoff.memory import Memory
from hybridcsp.generators.wyckoff.network import Network, Size, normal_log_density, von_mises_log_density
from hybridcsp.generators.wyckoff.positions import N_LETTERS, Positions
from hybridcsp.generators.wyckoff.sampling import Decoder, Skeleton
from hybridcsp.generators.wyckoff.sequences import contents_in_order, from_sequence, to_sequence
from hybridcsp.prototypes.labels import LETTERS
from hybridcsp.representations.wyckoff import decode, encode
from hybridcsp.structure import SYMPREC_LOOSE, spacegroup, to_pymatgen
from hybridcsp.wyckoff import space_group

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
    from hybridcsp.structure import primitive

    return dict(Counter(primitive(atoms).get_chemical_symbols()))


def matches(a, b):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.05, stol=0.05, angle_tol=2).fit(to_pymatgen(a), to_pymatgen(b))


@pytest.fixture(scope="session")
def positions():
    return Positions.tabulate()


@pytest.fixture(scope="session")
def untrained(positions):
    """Random weights that remember some crystals."""
    generator = WyckoffGenerator(TINY)
    generator.fit([Example(atoms=atoms) for atoms in CRYSTALS], epochs=1, batch_size=4, device="cpu")
    return generator


@pytest.fixture(scope="session")
def overfitted():
    generator = WyckoffGenerator(Size(width=32, blocks=1, heads=2, dropout=0.0))
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
def test_the_next_letters_are_exactly_those_after_which_all_atoms_find_a_place(number, positions):
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


def test_fixed_positions_are_taken_once(positions):
    a, b = LETTERS.index("a"), LETTERS.index("b")
    assert not positions.next_letters(225, (1,), taken=frozenset({a, b})).any()
    assert positions.next_letters(225, (1,), taken=frozenset({a}))[b]
    assert not positions.next_letters(225, (1,), lowest=b)[a]


# Sequences


@pytest.mark.parametrize("atoms", CRYSTALS, ids=lambda atoms: atoms.get_chemical_formula())
def test_a_sequence_is_the_crystal(atoms, positions):
    written = to_sequence(encode(atoms), positions)
    back = decode(from_sequence(written, positions))
    assert matches(atoms, back)
    assert back.get_volume() / len(back) == pytest.approx(atoms.get_volume() / len(atoms), rel=1e-6)
    assert dict(zip(written.elements, written.counts, strict=True)) == Counter(back.numbers.tolist())


def test_angles_that_make_no_cell_are_no_crystal(positions):
    triclinic = to_sequence(encode(bulk("Cu") * (1, 1, 1)), positions)
    flat = np.array([0, 0, 0, 3.0, 3.0, 3.0])
    impossible = replace(triclinic, spacegroup=1, letters=np.array([0]), cell=flat, coordinates=np.zeros((1, 3)))
    assert from_sequence(impossible, positions) is None


# The memory


def test_remembered_crystals_of_like_elements_weigh_more(positions):
    memory = Memory(to_sequence(encode(atoms), positions) for atoms in CRYSTALS)
    recall = memory.recall(*contents_in_order({atomic_numbers["Zr"]: 2, atomic_numbers["O"]: 4}))
    assert recall.of_groups()[:, 0].argmax() == 136
    salt = memory.recall(*contents_in_order({atomic_numbers["Rb"]: 1, atomic_numbers["Br"]: 1}))
    similar = salt.weights[:, 0]
    assert similar[salt.groups == 225].sum() > similar[salt.groups == 221].sum() > 0


def test_crystals_of_the_same_formula_can_be_left_out(positions):
    memory = Memory([to_sequence(encode(rutile()), positions)])
    asked = contents_in_order({22: 2, 8: 4})
    assert len(memory.recall(*asked).weights) == 1
    assert len(memory.recall(*asked, same_formula=False).weights) == 0


def test_a_memory_comes_back_from_its_arrays(positions):
    memory = Memory(to_sequence(encode(atoms), positions) for atoms in CRYSTALS)
    again = Memory.from_arrays(memory.arrays())
    for a, b in zip(memory.occupations, again.occupations, strict=True):
        assert (a.elements, a.counts, a.prototype) == (b.elements, b.counts, b.prototype)


def test_a_memory_keeps_no_coordinates_and_no_cells(untrained, tmp_path):
    """It is a table of occurrences: weights may be given away where the crystals may not."""
    untrained.save(tmp_path)
    tensors, _ = storage.load(tmp_path, "wyckoff")
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("memory.")}
    assert set(kept) == {
        f"memory.{name}" for name in ("n_elements", "n_sites", "elements", "counts", "groups", "slots", "letters")
    }
    assert not any(tensor.is_floating_point() for tensor in kept.values())
    assert not any(hasattr(occupation, "coordinates") for occupation in untrained._memory.occupations)


# Densities


def test_mixtures_are_densities():
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


# The network


def test_writing_and_reading_agree_on_the_likelihood(untrained, positions):
    """Token after token with kept keys and values, or all at once: the probability is the same."""
    from hybridcsp.generators.wyckoff.collation import _row, energy_features

    network, memory = untrained._network, untrained._memory
    skeletons = [Skeleton(s.elements, s.counts, memory.recall(s.elements, s.counts)) for s in memory.occupations]
    rng = np.random.default_rng(1)
    with torch.no_grad():
        decoder = Decoder(network, positions, skeletons)
        decoder.draw_groups(rng, np.ones(len(skeletons)))
        decoder.draw_letters(rng, np.ones(len(skeletons)))
        written = decoder.draw_geometry(rng, 1.0)
        for sequence, likelihood in written:
            recall = memory.recall(sequence.elements, sequence.counts)
            batch = stack([_row(sequence, recall, positions)])
            batch["energy"] = torch.as_tensor(energy_features(np.array([np.nan])))
            assert -sum(v.item() for v in network(batch).values()) == pytest.approx(likelihood, abs=2e-3, rel=1e-3)


def test_padding_changes_nothing(untrained, positions):
    sequences = [to_sequence(encode(atoms), positions) for atoms in CRYSTALS]
    n = len(sequences)
    data = Sequences(sequences, [1.0] * n, [np.nan] * n, untrained._memory, positions)
    network = untrained._network.eval()
    with torch.no_grad():
        together = network(data.batch(np.arange(n), np.random.default_rng(0)))
        for i in range(n):
            alone = network(data.batch(np.array([i]), np.random.default_rng(0)))
            for name, value in alone.items():
                # Sharp densities of coordinates magnify rounding.
                assert value.item() == pytest.approx(together[name][i].item(), abs=1e-2, rel=1e-3)


def test_prototypes_that_are_wanted_are_written_and_weighed(untrained, positions):
    network, memory = untrained._network, untrained._memory
    elements, counts = contents_in_order({22: 2, 8: 4})
    start = Skeleton(elements, counts, memory.recall(elements, counts))
    a, f = LETTERS.index("a"), LETTERS.index("f")
    wanted = replace(start, spacegroup=136, wanted=(a, f), slots=[], letters=[])
    drawn = [replace(start, slots=[], letters=[]) for _ in range(60)]
    with torch.no_grad():
        decoder = Decoder(network, positions, [wanted, *drawn])
        decoder.draw_groups(np.random.default_rng(0), np.ones(61))
        decoder.draw_letters(np.random.default_rng(0), np.ones(61))
    assert wanted.named == (136, ("a", "f"))
    same = [skeleton for skeleton in drawn if skeleton.named == wanted.named]
    assert same
    assert all(skeleton.log_likelihood == pytest.approx(wanted.log_likelihood, abs=1e-3) for skeleton in same)
    assert len(same) / 60 == pytest.approx(np.exp(wanted.log_likelihood), abs=0.25)


# The generator

SYMBOLS = ["Li", "Na", "K", "Mg", "Ti", "Fe", "Cu", "La", "U", "C", "N", "O", "S", "F", "Cl", "He"]


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(st.sampled_from(SYMBOLS), st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_the_contents_are_always_exactly_those_asked_for(untrained, asked, seed):
    answers = untrained.sample([Request(contents=asked)] * 3, np.random.default_rng(seed))
    assert [answer.request for answer in answers] == [0, 1, 2]
    for answer in answers:
        if isinstance(answer, Sample):
            assert Counter(answer.atoms.get_chemical_symbols()) == asked
            assert answer.atoms.pbc.all()
            assert np.isfinite(answer.log_likelihood)
        else:
            assert "too close" in answer.reason


def test_sampling_is_reproducible_by_its_seed(untrained):
    requests = [Request(contents={"Ti": 2, "O": 4}), Request(contents={"Na": 1, "Cl": 1})] * 4
    runs = [untrained.sample(requests, np.random.default_rng(seed)) for seed in (5, 5, 6)]

    def numbers(answers):
        return [a.atoms.positions.tolist() if isinstance(a, Sample) else a.reason for a in answers]

    assert numbers(runs[0]) == numbers(runs[1]) != numbers(runs[2])


def test_equal_requests_get_different_prototypes_the_most_probable_first(untrained):
    def groups(n, seed):
        answers = untrained.sample([Request(contents={"Ti": 2, "O": 4})] * n, np.random.default_rng(seed))
        return {a.request: encode(a.atoms).spacegroup for a in answers if isinstance(a, Sample)}

    runs = [groups(12, seed) for seed in range(6)]
    assert {run[0] for run in runs if 0 in run} == {136}  # where its geometry was not too close
    assert len({number for run in runs for number in run.values()}) >= 4


def test_overfitting_one_crystal_reproduces_it(overfitted):
    requests = [Request(contents=contents(polar()))] * 5
    for answer in overfitted.sample(requests, np.random.default_rng(0))[:2]:
        assert isinstance(answer, Sample)
        assert spacegroup(answer.atoms, SYMPREC_LOOSE) == 99
        assert matches(answer.atoms, polar())


@pytest.mark.parametrize("number", [136, 99, 2, 1])
def test_a_space_group_that_is_asked_for_is_drawn(untrained, number):
    asked = {"Ti": 2, "O": 4}
    answers = untrained.sample([Request(contents=asked, spacegroup=number)] * 4, np.random.default_rng(0))
    made = [answer.atoms for answer in answers if isinstance(answer, Sample)]
    for atoms in made:
        order = len(space_group(number).positions[0].rotations)
        assert len(space_group(spacegroup(atoms)).positions[0].rotations) >= order


def test_enantiomorphic_groups_can_both_be_asked_for(untrained):
    asked = {"Si": 3, "O": 6}
    found = set()
    for number in (152, 154):
        for answer in untrained.sample([Request(contents=asked, spacegroup=number)] * 6, np.random.default_rng(0)):
            if isinstance(answer, Sample) and spacegroup(answer.atoms) in (152, 154):
                found.add((number, spacegroup(answer.atoms)))
    assert found <= {(152, 152), (154, 154)}


def test_a_group_that_cannot_hold_the_contents_is_a_reject_with_its_reason(untrained):
    request = Request(contents={"Ti": 1, "O": 2}, spacegroup=230)
    (answer,) = untrained.sample([request], np.random.default_rng(0))
    assert isinstance(answer, Reject)
    assert "230" in answer.reason


@pytest.mark.parametrize(
    "request_", [Request(contents={"Qq": 1}), Request(contents={}), Request(contents={"Ti": 1}, spacegroup=231)]
)
def test_what_makes_no_sense_is_an_error(untrained, request_):
    with pytest.raises(InputError):
        untrained.sample([request_], np.random.default_rng(0))


def test_untrained_generators_say_so(tmp_path):
    with pytest.raises(InputError, match="not trained"):
        WyckoffGenerator().sample([], np.random.default_rng(0))
    with pytest.raises(InputError, match="not trained"):
        WyckoffGenerator().save(tmp_path)


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="learning_rate"):
        WyckoffGenerator(TINY).fit([Example(atoms=rutile())], learnin_rate=1)


def test_what_is_saved_samples_the_same(untrained, tmp_path):
    untrained.save(tmp_path / "weights")
    loaded = [WyckoffGenerator.load(tmp_path / "weights") for _ in range(2)]
    requests = [Request(contents={"Ti": 2, "O": 4}, energy_quantile=0.0)] * 4
    first, second = (generator.sample(requests, np.random.default_rng(3)) for generator in loaded)
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Sample):
            assert np.array_equal(a.atoms.positions, b.atoms.positions)
    assert loaded[0].card["crystals"] == len(untrained._memory.occupations)
    assert storage.overlap(loaded[0].card, ["O2Ti", "Al2O3"]) == {"O2Ti"}
    assert {Condition.SPACEGROUP, Condition.ENERGY} == WyckoffGenerator.conditions


def test_weights_without_their_memory_are_refused(untrained, tmp_path):
    storage.save(tmp_path, "wyckoff", untrained._network.state_dict(), untrained.card)
    with pytest.raises(InputError, match="incomplete"):
        WyckoffGenerator.load(tmp_path)


def test_a_stopped_training_ends_as_one_that_was_not(tmp_path):
    examples = [Example(atoms=atoms, energy_quantile=0.1 * i) for i, atoms in enumerate(CRYSTALS)]
    options = {"epochs": 3, "batch_size": 3, "device": "cpu", "seed": 2}
    whole = WyckoffGenerator(TINY)
    whole.fit(examples, **options)

    def stop(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WyckoffGenerator(TINY).fit(examples, checkpoint=tmp_path / "state", on_epoch=stop, **options)
    resumed, seen = WyckoffGenerator(TINY), []
    resumed.fit(examples, checkpoint=tmp_path / "state", on_epoch=seen.append, **options)
    assert [epoch.number for epoch in seen] == [3]
    for (name, a), b in zip(whole._network.state_dict().items(), resumed._network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_network_is_asked_about_contents_in_one_order_only(positions):
    memory = Memory()
    elements, counts = contents_in_order({8: 3, 22: 1, 38: 1})
    assert elements == (38, 22, 8)
    row = contents_row(elements, counts, memory.recall(elements, counts))
    assert row["elements"].tolist() == [38, 22, 8]
    assert Network(positions, TINY).positions.multiplicity[225].max() == positions.multiplicity[225].max()
