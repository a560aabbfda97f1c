import copy
from collections import Counter

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from wyckoff_examples import CRYSTALS, TINY, contents, matches, polar, rutile

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Example, Reject, Request, Sample
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.generators.wyckoff import WyckoffGenerator, sampler
from hybridcsp.generators.wyckoff.collation import (
    GeometryData,
    conditions,
    contents_row,
)
from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork
from hybridcsp.generators.wyckoff.geometry_sampling import draw_geometries
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.occupation_sampling import OccupationState
from hybridcsp.generators.wyckoff.representation import decode_wyckoff, encode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.sampler import _choose_occupations
from hybridcsp.generators.wyckoff.tokens import contents_in_order, detokenize, tokenize
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive, spacegroup


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
                untrained._networks[0],
                positions,
                untrained._memory,
                requests,
                [together],
                rng,
                1.0,
                LearnedProperties(),
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


def test_one_network_can_be_trained_while_the_other_stays_as_it_is():
    generator = WyckoffGenerator(TINY, TINY)
    examples = [Example(atoms=atoms) for atoms in CRYSTALS]
    generator.fit(examples, epochs=1, device="cpu")
    before = copy.deepcopy([network.state_dict() for network in generator._networks])
    generator.fit(examples, epochs=1, device="cpu", parts=["geometry"])
    same = [
        all(torch.equal(tensor, old[name]) for name, tensor in network.state_dict().items())
        for network, old in zip(generator._networks, before, strict=True)
    ]
    assert same == [True, False]
    assert set(generator.card["metrics"]) == {"occupation", "geometry"}


@pytest.mark.parametrize("parts", ["geometry", [], ["cells"]])
def test_unknown_networks_are_not_trained(parts):
    with pytest.raises(InputError, match="a list of one or both of occupation, geometry"):
        WyckoffGenerator(TINY, TINY).fit([Example(atoms=rutile())], parts=parts)


def test_a_network_is_not_trained_alone_while_the_other_is_random():
    with pytest.raises(InputError, match="train both first"):
        WyckoffGenerator(TINY, TINY).fit([Example(atoms=rutile())], parts=["geometry"])
