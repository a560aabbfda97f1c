import builtins
import os
import subprocess
import sys

from hybridcsp.utils.machine import available_cores, forbid_core_dumps, load_average


def test_cores_are_those_that_this_process_may_use():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    if hasattr(os, "sched_setaffinity"):
        code = one + "from hybridcsp.utils.machine import available_cores; print(available_cores())"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"


def test_other_systems_than_linux_have_less_and_do_as_well(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert available_cores() == os.cpu_count()
    assert load_average() is None
    imported = builtins.__import__

    def without_resource(name, *rest):
        if name == "resource":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_resource)
    forbid_core_dumps()


def test_a_search_knows_its_workers_on_such_a_system(monkeypatch, tmp_path):
    from hybridcsp import Search

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    with Search("Cu", calculator="emt", sources=["random"], directory=tmp_path) as search:
        assert search.workers == os.cpu_count()
