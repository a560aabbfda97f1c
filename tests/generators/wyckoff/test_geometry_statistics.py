import numpy as np
import pytest
from ase.spacegroup import crystal
from wyckoff_examples import CRYSTALS, TINY, matches, rutile

from hybridcsp.generators.base import Example, Request, Sample
from hybridcsp.generators.wyckoff import WyckoffGenerator
from hybridcsp.generators.wyckoff.geometry_statistics import GeometryStatistics
from hybridcsp.generators.wyckoff.representation import encode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.tokens import tokenize


def statistics(crystals, positions):
    sequences = [tokenize(encode_wyckoff(atoms), positions) for atoms in crystals]
    store = PrototypeStore(sequences)
    return GeometryStatistics.of(sequences, store, positions), sequences, store


def test_the_mean_of_similar_crystals_is_kept(positions):
    found, sequences, store = statistics([rutile("Ti", 4.59, 0.30), rutile("Sn", 4.74, 0.31)], positions)
    (mean,) = found.of_prototype(store.number_of(sequences[0].prototype))
    assert mean.formulas == 2
    np.testing.assert_allclose(mean.cell, np.mean([one.cell for one in sequences], axis=0))
    np.testing.assert_allclose(mean.coordinates, np.mean([one.coordinates for one in sequences], axis=0))


def test_no_geometry_of_a_single_formula_is_kept(positions):
    found, sequences, store = statistics([rutile("Ti", 4.59, 0.30), rutile("Ti", 4.62, 0.31)], positions)
    assert not len(found)
    assert found.of_prototype(store.number_of(sequences[0].prototype)) == ()
    assert found.of_prototype(0) == ()


def test_prototypes_without_free_parameters_have_no_mean_geometry(positions):
    salts = [atoms for atoms in CRYSTALS if len(atoms) == 2 and atoms.cell.volume > 15]
    found, _, _ = statistics(salts, positions)
    assert not len(found)


def quartz_like(metal, x):
    sites = [(0.47, 0, 0), (x, 0.267, 0.119)]
    return crystal([metal, "O"], sites, spacegroup=152, cellpar=[4.916, 4.916, 5.405, 90, 90, 120])


def test_different_geometries_of_one_prototype_are_kept_apart_the_most_frequent_first(positions):
    usual = [quartz_like(metal, x) for metal, x in (("Si", 0.41), ("Ge", 0.42), ("Ti", 0.415))]
    other = [quartz_like(metal, x) for metal, x in (("Zr", 0.21), ("Hf", 0.215))]
    found, sequences, store = statistics([*other, *usual], positions)
    assert len({one.prototype for one in sequences}) == 1
    means = found.of_prototype(store.number_of(sequences[0].prototype))
    assert [mean.formulas for mean in means] == [3, 2]
    assert np.abs(means[0].coordinates - means[1].coordinates).max() > 0.1


def test_means_of_coordinates_are_taken_across_the_boundary_of_the_cell(positions):
    found, sequences, store = statistics([rutile("Ti", 4.59, 0.30), rutile("Sn", 4.74, 0.30)], positions)
    moved = [
        type(one)(
            one.elements, one.counts, one.spacegroup, one.slots, one.letters, (one.coordinates + by) % 1.0, one.cell
        )
        for one, by in zip(sequences, (0.69, 0.71), strict=True)
    ]
    (mean,) = GeometryStatistics.of(moved, store, positions).of_prototype(store.number_of(sequences[0].prototype))
    before = found.of_prototype(store.number_of(sequences[0].prototype))[0]
    apart = mean.coordinates - (before.coordinates + 0.70)
    np.testing.assert_allclose(apart - np.rint(apart), 0.0, atol=1e-9)


def test_arrays_restore_the_geometries_and_unfit_arrays_are_refused(positions):
    found, sequences, store = statistics(CRYSTALS[:4], positions)
    again = GeometryStatistics.from_arrays(found.arrays())
    number = store.number_of(sequences[0].prototype)
    np.testing.assert_allclose(again.of_prototype(number)[0].cell, found.of_prototype(number)[0].cell, atol=1e-6)
    np.testing.assert_allclose(
        again.of_prototype(number)[0].coordinates, found.of_prototype(number)[0].coordinates, atol=1e-6
    )
    assert len(GeometryStatistics.from_arrays(GeometryStatistics().arrays())) == 0
    with pytest.raises(ValueError, match="inconsistent lengths"):
        GeometryStatistics.from_arrays(found.arrays() | {"coordinates": np.zeros((0, 3), np.float32)})


def test_joined_geometries_keep_the_first_of_similar_ones(positions):
    found, sequences, store = statistics(CRYSTALS[:2], positions)
    other = GeometryStatistics.of(
        [tokenize(encode_wyckoff(atoms), positions) for atoms in CRYSTALS[2:4]], store, positions
    )
    number = store.number_of(sequences[0].prototype)
    joined = found.joined(other).of_prototype(number)
    assert joined == found.of_prototype(number)
    assert GeometryStatistics().joined(other).of_prototype(number) == other.of_prototype(number)


def test_geometries_of_a_prototype_are_the_mean_and_draws_of_the_network_in_turn(positions):
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit([Example(atoms=atoms) for atoms in CRYSTALS[:4]], epochs=1, batch_size=4, device="cpu")
    requests = [Request(contents={"Zr": 2, "O": 4}, spacegroup=136)] * 8
    answers = generator.sample(requests, np.random.default_rng(0))
    made = [tokenize(encode_wyckoff(one.atoms), positions) for one in answers if isinstance(one, Sample)]
    number = generator._memory.number_of((136, ("a", "f")))
    (mean,) = generator._memory.means.of_prototype(number)
    same = [
        one.prototype == (136, ("a", "f"))
        and np.allclose(one.coordinates, mean.coordinates, atol=2e-3)
        and np.allclose(one.cell[1:], mean.cell[1:], atol=2e-3)
        for one in made
    ]
    # Rutile has two free parameters beside the volume: the network comes first.
    assert sum(same) == 1 and not same[0]


def tilted_perovskite(cation, scale=1.0):
    sites = [(0.03, 0.25, 0.992), (0, 0, 0.5), (0.484, 0.25, 0.08), (0.287, 0.037, 0.712)]
    lengths = [5.44 * scale, 7.64 * scale, 5.38 * scale]
    return crystal([cation, "Ti", "O", "O"], sites, spacegroup=62, cellpar=[*lengths, 90, 90, 90])


def assert_first_answer_is_tilted(generator, cation):
    requests = [Request(contents={cation: 4, "Ti": 4, "O": 12}, spacegroup=62)] * 2
    answer = generator.sample(requests, np.random.default_rng(0))[0]
    assert isinstance(answer, Sample)
    assert matches(answer.atoms, tilted_perovskite(cation))


def test_the_mean_geometry_of_a_prototype_with_many_parameters_comes_first():
    generator = WyckoffGenerator(TINY, TINY)
    learned = [Example(atoms=tilted_perovskite(cation, scale)) for cation, scale in (("Ca", 1.0), ("Sr", 1.02))]
    generator.fit(learned, epochs=1, batch_size=2, device="cpu")
    assert_first_answer_is_tilted(generator, "Ba")


def test_mean_geometries_are_added_for_stored_prototypes_of_one_formula():
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit([Example(atoms=tilted_perovskite("Ca"))], epochs=1, batch_size=1, device="cpu")
    assert len(generator._memory.means) == 0
    relaxed = [tilted_perovskite("Sr", 1.02), tilted_perovskite("Ba", 1.04), *CRYSTALS[:2]]
    assert generator.add_mean_geometries(relaxed) == 1  # rutile is not stored
    assert_first_answer_is_tilted(generator, "Ra")


def test_a_single_crystal_has_no_mean_geometry():
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit([Example(atoms=tilted_perovskite("Ca"))], epochs=1, batch_size=1, device="cpu")
    assert generator.add_mean_geometries([tilted_perovskite("Sr", 1.02)] * 2) == 0
