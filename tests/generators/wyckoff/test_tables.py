import itertools

import pytest

from hybridcsp.generators.wyckoff.tables import N_LETTERS
from hybridcsp.structure.wyckoff import LETTERS, space_group


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
