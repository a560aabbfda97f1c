"""A follow-up calculator that raises, crashes, hangs or takes too much memory costs the search nothing."""

import ctypes
import sys
import time

import cloudpickle
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from hybridcsp import Search
from hybridcsp.core.records import Limits
from hybridcsp.search.follow_up import FollowUp

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


def misbehaving(behave):
    """Return a function that builds a calculator which behaves at its second structure."""

    class Misbehaving(LennardJones):
        evaluated = 0

        def calculate(self, atoms=None, properties=None, system_changes=None):
            type(self).evaluated += 1
            if type(self).evaluated == 2:
                behave()
            super().calculate(atoms, properties or ["energy"], system_changes or ["positions"])

    return lambda: Misbehaving(epsilon=0.1, sigma=2.5, rc=7.5, smooth=True)


def fail():
    raise RuntimeError("no such element")


def crash():
    ctypes.string_at(8)


def hang():
    time.sleep(600)


def eat():
    eaten = bytearray(2 * 1024**3)
    for place in range(0, len(eaten), 4096):
        eaten[place] = 1
    time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behave", "reason"), [(fail, "calculator"), (crash, "worker-died"), (hang, "time-limit"), (eat, "memory-limit")]
)
def test_a_follow_up_that_fails_costs_nothing_else(tmp_path, behave, reason):
    with Search(
        "Cu",
        calculator=EMT,
        sources=["random"],
        formula_units=(2, 4),
        workers=1,
        directory=tmp_path,
        limits=Limits(seconds=0.3 if behave is hang else 30, memory=1536 * 1024**2),
        then=FollowUp(calculators=(misbehaving(behave),), best=4),
    ) as search:
        assert search.run(relaxations=8, refine=0).stopped == "relaxations used up"
        (level,) = search.archive.state.follow_ups
    # A worker that was replaced builds its calculator anew, and that fails again at its second structure.
    assert level.failed.keys() == {reason}
    assert search.archive.state.tallies.failed().total() == 0 or behave is hang
    assert search.archive.state.number_of_minima > 1
