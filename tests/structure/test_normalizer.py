import numpy as np
import pytest

from hybridcsp.structure.normalizer import ENANTIOMORPHS, canonical_letters, letter_permutations, normalizer_operations
from hybridcsp.structure.wyckoff import LETTERS, space_group


def test_letter_permutations_preserve_multiplicities():
    for number in (2, 5, 12, 15, 47, 62, 148, 216, 227):
        permutations = letter_permutations(number)
        positions = {p.letter: p for p in space_group(number).positions}
        letters = tuple(LETTERS[: len(positions)])
        assert letters in permutations
        for permutation in permutations:
            assert sorted(permutation) == sorted(letters)
            for old, new in zip(letters, permutation, strict=True):
                assert positions[old].multiplicity == positions[new].multiplicity
                assert positions[old].freedom == positions[new].freedom


@pytest.mark.slow
def test_normalizers_permute_the_letters_of_every_group():
    for number in range(1, 231):
        letters = {position.letter for position in space_group(number).positions}
        for operation in normalizer_operations(number):
            assert set(operation.letters) == set(operation.letters.values()) == letters
        assert all(letter in LETTERS for letter in letters)


def test_normalizer_operations_carry_groups_into_themselves():
    """Conjugated operations of the group are operations of the group, up to lattice translations."""
    for number in (2, 5, 14, 47, 99, 136, 194, 227):
        general = space_group(number, conventional=True).positions[0]
        own = {key(r, t) for r, t in zip(general.rotations, general.translations, strict=True)}
        for operation in normalizer_operations(number):
            a, s = operation.rotation, operation.shift
            inverse = np.linalg.inv(a)
            for r, t in zip(general.rotations, general.translations, strict=True):
                rotation = a @ r @ inverse
                assert key(rotation, a @ t + s - rotation @ s) in own


def key(rotation, translation):
    return (*np.rint(rotation).astype(int).ravel().tolist(), *(np.rint(translation * 24).astype(int) % 24).tolist())


def test_canonical_letters_are_the_same_for_equivalent_choices_of_origin():
    assert canonical_letters(225, ("b", "a")) == canonical_letters(225, ("a", "b")) == ("a", "b")
    assert canonical_letters(225, ("c", "b")) == ("c", "a")


def test_enantiomorphs_have_the_lower_number():
    assert all(lower < number for number, lower in ENANTIOMORPHS.items())
