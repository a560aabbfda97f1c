import numpy as np
from ase.data import atomic_numbers
from ase.spacegroup import crystal
from wyckoff_examples import CRYSTALS, rutile

from hybridcsp.generators import weights_io
from hybridcsp.generators.wyckoff.collation import (
    OccupationData,
    conditions,
)
from hybridcsp.generators.wyckoff.representation import encode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.tokens import contents_in_order, tokenize


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
