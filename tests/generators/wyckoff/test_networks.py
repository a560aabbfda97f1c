from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from wyckoff_examples import CRYSTALS, polar

from hybridcsp.generators.wyckoff.collation import (
    GeometryData,
    OccupationData,
    conditions,
    geometry_row,
    occupation_row,
    pad_and_stack,
    substituted,
)
from hybridcsp.generators.wyckoff.geometry_network import normal_log_density, von_mises_log_density
from hybridcsp.generators.wyckoff.geometry_sampling import _von_mises, draw_geometries
from hybridcsp.generators.wyckoff.occupation_sampling import Decoder, OccupationState
from hybridcsp.generators.wyckoff.representation import encode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.tokens import contents_in_order, tokenize
from hybridcsp.structure.wyckoff import LETTERS


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
    no = np.zeros((n, 1), dtype=bool)
    values, density = _von_mises(one, free, np.random.default_rng(0), temperature, np.zeros((n, 3)), no)
    assert (values[:, 2] == 0).all()
    spread = np.std(2 * np.pi * values[:, :2])
    assert spread == pytest.approx(np.sqrt(temperature / sharp), rel=0.05)
    # The density is the model's own, whatever the temperature.
    expected = von_mises_log_density(torch.as_tensor(values), torch.as_tensor(free).double(), *one)
    np.testing.assert_allclose(density, expected)


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
