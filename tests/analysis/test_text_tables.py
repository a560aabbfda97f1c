from io import StringIO

import pytest
from rich.console import Console

from hybridcsp.analysis.text_tables import Column, FittingTable, heading_lines, list_table

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


def test_headings_of_several_lines_end_in_the_same_line_and_are_named_in_one():
    columns = [
        Column(heading="rank"),
        Column(heading=heading_lines(["ΔmeV", "sevennet:l3i5"]), meaning="above the best"),
        Column(heading="hidden\ncolumn", dispensable=1),
    ]
    shown = lines(FittingTable("T", columns, [["1", "12.5", "9" * 40]]), 40)
    assert [line.split() for line in shown[2:5]] == [["ΔmeV"], ["sevennet:"], ["rank", "l3i5"]]
    assert "ΔmeV sevennet:l3i5: above the best." in shown
    assert "Hidden columns (widen the terminal to show them): hidden column." in " ".join(" ".join(shown).split())


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("SevenNetCalculator", ["SevenNet", "Calculator"]),
        ("quantum_espresso_pbesol", ["quantum_", "espresso_", "pbesol"]),
        ("my_module:factory", ["my_module:", "factory"]),
        ("x" * 30, ["x" * 12, "x" * 12, "x" * 6]),
    ],
)
def test_long_names_are_broken_in_headings(name, heading):
    assert heading_lines(["ΔmeV", name]).splitlines() == ["ΔmeV", *heading]


def test_a_word_without_a_place_to_break_is_folded_as_a_last_resort():
    shown = lines(FittingTable("T", [Column(heading="name", words=True)], [["x" * 100]]), 40)
    assert "".join(shown).count("x") == 100
    assert max(map(len, shown)) <= 40


def test_names_of_a_list_stay_whole():
    entries = [("basin-hopping", "leaps " * 20), ("my-package-source", "something else")]
    words = " ".join(lines(list_table(entries), 60)).split()
    assert {"basin-hopping", "my-package-source"} <= set(words)
