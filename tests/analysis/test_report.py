from io import StringIO

import pytest
from ase.build import bulk
from crystals import InlineBackend, ListSource, instant_relaxation, rutile
from rich.console import Console

from hybridcsp import Search
from hybridcsp.analysis.report import minima_table, sources_table
from hybridcsp.records import Failed, FailureReason


class BrokenSource:
    exhausted = False

    def propose(self, n, context):
        raise ValueError("no [/such] model")

    def proposed(self, candidates):
        pass

    def observe(self, outcomes):
        pass


def test_it_is_said_why_the_calculator_and_a_source_failed(tmp_path):
    def fail(job):
        return Failed(candidate=job.candidate, reason=FailureReason.CALCULATOR, detail="no potential for Ti")

    sources = [ListSource([bulk("Cu"), bulk("Cu", "bcc", a=2.9)]), BrokenSource()]
    with Search("Cu", sources=sources, calculator="emt", backend=InlineBackend(fail), directory=tmp_path) as search:
        search.run(relaxations=2)
        console = Console(width=200, record=True, file=StringIO())
        console.print(sources_table(search.archive))
    printed = console.export_text()
    assert "calculator, the first time: no potential for Ti" in printed
    assert "errors, the last: ValueError: no [/such] model" in printed


class Prototypes(ListSource):
    name = "prototypes"


@pytest.mark.parametrize(("width", "whole"), [(80, False), (120, True)])
def test_names_too_long_for_the_terminal_go_on_after_the_slash(tmp_path, width, whole):
    crystals = [rutile(), rutile()]
    crystals[1].set_cell(crystals[1].cell * 1.1, scale_atoms=True)
    run = InlineBackend(instant_relaxation)
    sources = [Prototypes(crystals, "wyckoff-table")]
    with Search("TiO2", sources=sources, calculator="emt", backend=run, directory=tmp_path) as search:
        search.run(relaxations=2)
        console = Console(width=width, record=True, file=StringIO())
        console.print(minima_table(search.minima(), search.problem), sources_table(search.archive))
    words = console.export_text().split()
    assert ("prototypes/wyckoff-table" in words) is whole
    assert ("prototypes/" in words and "wyckoff-table" in words) is not whole
