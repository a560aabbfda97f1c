from io import StringIO

import pytest
from ase.build import bulk
from crystals import InlineBackend, ListSource, instant_relaxation, rutile
from rich.console import Console

from hybridcsp import Search
from hybridcsp.analysis.minima_report import minima_rows, minima_table
from hybridcsp.analysis.report import duration, sources_rows, sources_table
from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.sources.base import BaseSource


class BrokenSource(BaseSource):
    def propose(self, n, context):
        raise ValueError("no [/such] model")


def test_table_of_sources_explains_failures(tmp_path):
    def fail(job):
        return Failed(candidate=job.candidate, reason=FailureReason.CALCULATOR, detail="no potential for Ti")

    sources = [ListSource([bulk("Cu"), bulk("Cu", "bcc", a=2.9)]), BrokenSource()]
    with Search("Cu", sources=sources, calculator="emt", backend=InlineBackend(fail), directory=tmp_path) as search:
        search.run(relaxations=2)
        console = Console(width=200, record=True, file=StringIO())
        console.print(sources_table(search.archive))
    printed = console.export_text()
    assert "calculator, first message: no potential for Ti" in printed
    assert "errors, last message: ValueError: no [/such] model" in printed


class Prototypes(ListSource):
    name = "prototypes"


@pytest.fixture
def archive(tmp_path):
    """A search with long names of sources, rutile and something without a name."""
    other = rutile()
    other.set_cell(other.cell * 1.1, scale_atoms=True)
    other.rattle(0.1, seed=1)
    run = InlineBackend(instant_relaxation)
    sources = [Prototypes([rutile(), other], "wyckoff-table")]
    with Search("TiO2", sources=sources, calculator="emt", backend=run, directory=tmp_path) as search:
        search.run(relaxations=2)
        yield search.archive


def printed(what, width):
    console = Console(width=width, record=True, file=StringIO())
    console.print(what)
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_and_break_no_word(archive, width):
    text = printed(minima_table(archive.minima(), archive), width) + printed(sources_table(archive), width)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    assert {"P4_2/mnm", "rutile", "rank", "eV/atom", "structure", "relaxed"} <= set(words)
    whole = "prototypes/wyckoff-table" in words
    assert whole or {"prototypes/", "wyckoff-table"} <= set(words)
    assert whole or width < 120


def test_hidden_columns_are_named(archive):
    narrow, usual = (printed(minima_table(archive.minima(), archive), width) for width in (60, 80))
    assert "Hidden columns" in " ".join(narrow.split())
    assert "Hidden columns" not in usual


def test_rows_are_plain_data_with_units_in_keys(archive):
    best, other = minima_rows(archive.minima(), archive)
    assert best["rank"] == 1
    assert {best["prototype"], other["prototype"]} == {"rutile", None}
    named = best if best["prototype"] else other
    assert (named["spacegroup"], named["spacegroup_symbol"], named["formula_units"]) == (136, "P4_2/mnm", 2)
    assert named["volume_a3_per_atom"] == pytest.approx(rutile().get_volume() / 6)
    (row,) = sources_rows(archive)
    assert (row["source"], row["operator"], row["relaxed"]) == ("prototypes", "wyckoff-table", 2)
    assert all(value is None or isinstance(value, str | int | float) for value in [*best.values(), *row.values()])


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (187, "3:07 min"), (7500, "2:05 h")])
def test_durations_are_formatted_for_display(seconds, text):
    assert duration(seconds) == text
