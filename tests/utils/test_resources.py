import builtins
import gc
import os
import subprocess
import sys

import pytest

from hybridcsp.utils.resources import available_cores, forbid_core_dumps, garbage_collection_paused, load_average


def test_available_cores_respect_cpu_affinity():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    if hasattr(os, "sched_setaffinity"):
        code = one + "from hybridcsp.utils.resources import available_cores; print(available_cores())"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"


def test_defaults_on_systems_without_linux_calls(monkeypatch):
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


def test_default_number_of_workers_without_cpu_affinity(monkeypatch, tmp_path):
    from hybridcsp import Search

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    with Search("Cu", calculator="emt", sources=["random"], directory=tmp_path) as search:
        assert search.workers == os.cpu_count()


def test_garbage_collection_is_paused_only_within_the_block():
    with garbage_collection_paused():
        assert not gc.isenabled()
        with garbage_collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="broken"), garbage_collection_paused():
        raise ValueError("broken")
    assert gc.isenabled()
