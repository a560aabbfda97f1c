from io import StringIO

from ase.build import bulk
from crystals import InlineBackend, ListSource
from rich.console import Console

from hybridcsp import Search
from hybridcsp.analysis.report import sources_table
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
