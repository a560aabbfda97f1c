"""The weights that come with the package."""

from collections import Counter

import numpy as np
import pytest

from hybridcsp.errors import InputError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Request, Sample
from hybridcsp.generators.datasets import is_held_out
from hybridcsp.generators.loading import open_generator
from hybridcsp.generators.wyckoff import WyckoffGenerator
from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive, spacegroup


@pytest.fixture(scope="module")
def wyckoff():
    return open_generator("wyckoff")


def test_shipped_weights_are_small_and_name_their_training_formulas(wyckoff):
    folder = weights_io.shipped("wyckoff")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 15e6
    formulas = wyckoff.card["training_formulas"].split()
    assert len(formulas) == wyckoff.card["formulas"] > 10_000
    assert not any(map(is_held_out, formulas))
    assert weights_io.overlap(wyckoff.card, ["O2Ti"]) == {"O2Ti"}
    assert [len(file["sha256"]) for file in wyckoff.card["data"]["files"]] == [64, 64]
    assert wyckoff.card["command"].startswith("hybridcsp train wyckoff")


def test_known_polymorphs_of_titania_are_sampled(wyckoff):
    requests = [Request(contents={"Ti": 2, "O": 4})] * 20
    answers = wyckoff.sample(requests, np.random.default_rng(0))
    atoms = [answer.atoms for answer in answers if isinstance(answer, Sample)]
    assert len(atoms) >= 15
    assert all(Counter(a.get_chemical_symbols()) == {"Ti": 2, "O": 4} for a in atoms)
    found = [spacegroup(a, SYMPREC_LOOSE) for a in atoms]
    assert {136, 141} <= set(found)  # rutile and anatase
    assert len(set(found)) >= 8


@pytest.mark.parametrize("name", ["wyckoff", "flow"])
def test_requested_space_group_is_sampled(name):
    requests = [Request(contents={"Ti": 2, "O": 4}, spacegroup=136)] * 12
    answers = open_generator(name).sample(requests, np.random.default_rng(0))
    made = [answer.atoms for answer in answers if isinstance(answer, Sample)]
    assert len(made) >= 10
    assert {(spacegroup(atoms), len(primitive(atoms))) for atoms in made} == {(136, 6)}


def test_flow_samples_what_it_always_has():
    """The network is shared with ``diffusion``; a change in it would show here."""
    requests = [
        Request(contents={"Na": 1, "Cl": 1}),
        Request(contents={"Ti": 2, "O": 4}, spacegroup=136),
        Request(contents={"Ti": 2, "O": 4}, energy_quantile=0.1),
    ]
    cells = [
        [3.825898, 3.87065, 3.815119, 58.938129, 59.483203, 60.324312],
        [4.626282, 4.626282, 2.98993, 90.0, 90.0, 90.0],
        [3.150218, 4.461185, 4.517207, 92.005088, 89.80186, 89.67988],
    ]
    answers = open_generator("flow").sample(requests, np.random.default_rng(3))
    for answer, cell in zip(answers, cells, strict=True):
        np.testing.assert_allclose(answer.atoms.cell.cellpar(), cell, atol=2e-3)
    found = answers[0].atoms.get_scaled_positions()
    np.testing.assert_allclose(found, [[0.084367, 0.415357, 0.867773], [0.583444, 0.915582, 0.366628]], atol=1e-3)


def test_a_space_group_that_is_asked_for_is_no_part_of_the_likelihood(wyckoff):
    def likelihoods(group):
        requests = [Request(contents={"Na": 1, "Cl": 1}, spacegroup=group)] * 12
        answers = wyckoff.sample(requests, np.random.default_rng(0))
        made = [answer for answer in answers if isinstance(answer, Sample)]
        return [a.log_likelihood for a in made if spacegroup(a.atoms, SYMPREC_LOOSE) == 216]

    given, open_ = likelihoods(216), likelihoods(None)
    assert max(given) > max(open_) + 0.5  # most of these crystals are rock salt, in group 225


def test_low_energies_can_be_asked_for(wyckoff):
    def likelihoods(quantile):
        requests = [Request(contents={"Na": 1, "Cl": 1}, energy_quantile=quantile)] * 8
        answers = wyckoff.sample(requests, np.random.default_rng(0))
        return {spacegroup(a.atoms): a.log_likelihood for a in answers if isinstance(a, Sample)}

    low, high = likelihoods(0.0), likelihoods(0.95)
    assert next(iter(low)) == 225  # rock salt comes first
    assert low[225] != high.get(225)


def test_truncated_weights_are_refused(tmp_path):
    for file in weights_io.shipped("wyckoff").iterdir():
        raw = file.read_bytes()
        (tmp_path / file.name).write_bytes(raw[:-1000] if file.suffix == ".safetensors" else raw)
    with pytest.raises(InputError, match="truncated"):
        WyckoffGenerator.load(tmp_path)


@pytest.mark.slow
def test_their_tables_are_those_of_the_installed_pyxtal(wyckoff):
    shipped = wyckoff._positions.arrays()
    for name, array in WyckoffTables.tabulate().arrays().items():
        assert np.allclose(shipped[name].astype(float), array.astype(float), atol=2e-3), name
