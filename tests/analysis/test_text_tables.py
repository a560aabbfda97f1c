from io import StringIO

import pytest
from rich.console import Console

from hybridcsp.analysis.text_tables import Column, FittingTable, list_table

NAME = "generative:a-folder/of_weights"


def lines(table, width):
    console = Console(width=width, record=True, file=StringIO())
    console.print(table)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", range(30, 100, 7))
def test_the_most_dispensable_columns_go_first_and_words_and_numbers_stay_whole(width):
    columns = [
        Column(heading="name", words=True),
        Column(heading="number"),
        Column(heading="first", dispensable=2),
        Column(heading="second", dispensable=1),
    ]
    shown = lines(FittingTable("Title", columns, [[NAME, "123456789", "1", "987654321"]]), width)
    assert max(map(len, shown)) <= width
    words = " ".join(shown).split("Not shown")[0].split()
    assert "123456789" in words
    assert ("second" in words) or ("first" not in words)
    assert "".join(word for word in words if word in NAME and not word.isdigit()) == NAME


def test_a_word_without_a_place_to_break_is_folded_as_a_last_resort():
    shown = lines(FittingTable("T", [Column(heading="name", words=True)], [["x" * 100]]), 40)
    assert "".join(shown).count("x") == 100
    assert max(map(len, shown)) <= 40


def test_names_of_a_list_stay_whole():
    entries = [("basin-hopping", "leaps " * 20), ("my-package-source", "something else")]
    words = " ".join(lines(list_table(entries), 60)).split()
    assert {"basin-hopping", "my-package-source"} <= set(words)
