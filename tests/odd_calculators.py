"""Calculators that behave as each structure requests in ``atoms.info["behaviour"]``; calculator servers import them."""

import os
import subprocess
import sys
import time

import numpy as np
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError

from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError


class Broken:
    def __array__(self, *_, **__):
        raise RuntimeError("the tensor is on another device")


class Shy(Exception):
    def __str__(self):
        raise ValueError("no")


class OddCalculator(BaseCalculator):
    """A calculator of constants, whose results or side effects a structure chooses."""

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmoms")

    def get_property(self, name, atoms=None, allow_calculation=True):
        n = len(atoms)
        behaviour = atoms.info.get("behaviour", "")
        self.results = {
            "energy": -1.5 * n,
            "free_energy": -1.5 * n,
            "forces": np.zeros((n, 3)),
            "stress": np.zeros(6),
            "magmoms": np.arange(n) / 3,
            "charges": np.ones(n),
        }
        if behaviour in RESULTS:
            self.results.update(RESULTS[behaviour](n))
        elif behaviour in ACTIONS:
            ACTIONS[behaviour](self, name, atoms)
        if name not in self.results:
            raise PropertyNotImplementedError(f"{name} property not implemented")
        return self.results[name]

    def calculate(self, atoms, properties, system_changes):
        raise NotImplementedError


RESULTS = {
    "": lambda n: {},
    "array energy": lambda n: {"energy": np.array([-1.25 * n])},
    "integers": lambda n: {"energy": -2, "forces": np.zeros((n, 3), dtype=int)},
    "single precision": lambda n: {"energy": np.float32(-0.1), "forces": np.full((n, 3), 0.01, dtype=np.float32)},
    "extended precision": lambda n: {"energy": np.longdouble(-1) / 3},
    "lists": lambda n: {"forces": [[0.0, 0.0, 0.001]] * n, "stress": (0,) * 6},
    "stress matrix": lambda n: {"stress": np.arange(9.0).reshape(3, 3) / 1e6},
    "no magnetic moments": lambda n: {"magmoms": None},
    "no energy": lambda n: {"energy": None},
    "complex energy": lambda n: {"energy": -1.0 + 0j},
    "complex forces": lambda n: {"forces": np.zeros((n, 3), dtype=complex)},
    "text": lambda n: {"energy": "-1.5"},
    "long text": lambda n: {"energy": "-1.5" * 1000},
    "truth": lambda n: {"energy": True},
    "objects": lambda n: {"forces": np.full((n, 3), None)},
    "bytes": lambda n: {"energy": b"1"},
    "dates": lambda n: {"energy": np.datetime64("2026-01-01")},
    "dictionary": lambda n: {"forces": {"x": 1}},
    "ragged forces": lambda n: {"forces": [[0.0, 0.0, 0.0], [0.0]]},
    "unreadable forces": lambda n: {"forces": Broken()},
    "masked forces": lambda n: {"forces": np.ma.MaskedArray(np.zeros((n, 3)), np.eye(n, 3))},
    "wrong shape": lambda n: {"forces": np.zeros((n + 1, 3))},
    "huge forces": lambda n: {"forces": np.broadcast_to(np.zeros(3), (10**9, 3))},
    "empty forces": lambda n: {"forces": np.zeros((0, 3))},
    "huge whole number": lambda n: {"energy": 10**5000},
    "infinite forces": lambda n: {"forces": np.full((n, 3), -np.inf)},
    "undefined energy": lambda n: {"energy": float("nan")},
    "overflowing energy": lambda n: {"energy": np.longdouble("1e400")},
    "impossible energy": lambda n: {"energy": -1e30},
}


def _raise(error):
    def act(calculator, name, atoms):
        raise error

    return act


def _without(missing):
    def act(calculator, name, atoms):
        del calculator.results[missing]

    return act


def _move(distance):
    def act(calculator, name, atoms):
        atoms.positions[0] += distance

    return act


def _delete(calculator, name, atoms):
    del atoms[0]


def _replace(calculator, name, atoms):
    atoms.numbers[0] = 79


def _fail_at_energy(calculator, name, atoms):
    calculator.results = {}
    if name == "energy":
        raise ValueError("no convergence")


def _print(calculator, name, atoms):
    sys.stdout.write("not a message")
    os.write(1, b"\x05\0\0\0\0\0\0\0hello")
    subprocess.run(["echo", "nor this"], check=True)


ACTIONS = {
    "isolated": _raise(IsolatedAtomsError("1 of 4 atoms")),
    "memory": _raise(MemoryError("4 GiB")),
    "division": _raise(ZeroDivisionError("no k-points")),
    "surrogates": _raise(RuntimeError("caf\udce9")),
    "long message": _raise(RuntimeError("x" * 100_000)),
    "no message": _raise(Shy()),
    "not implemented": _raise(NotImplementedError("spin")),
    "exit": _raise(SystemExit("licence server not found")),
    "interrupt": _raise(KeyboardInterrupt()),
    "without stress": _without("stress"),
    "without forces": _without("forces"),
    "without energy": _without("energy"),
    "late failure": _fail_at_energy,
    "rounding": _move(1e-6),
    "relaxing": _move(0.1),
    "deleting": _delete,
    "replacing": _replace,
    "printing": _print,
}

PROGRAM = ["sleep", "61.25"]

#: What ends or blocks a process instead of returning from it.
FATAL = {
    "os exit": lambda *_: os._exit(3),
    "abort": lambda *_: os.abort(),
    "kill": lambda *_: os.kill(os.getpid(), 9),
    "close": lambda *_: (os.closerange(3, 4096), time.sleep(60)),
    "garbage": lambda *_: _write_everywhere(b"\n\n\n\nTraceback (most recent call last):"),
    "empty message": lambda *_: _write_everywhere(b"\0" * 8),
    "wrong message": lambda *_: _write_everywhere(b"\x02\0\0\0\0\0\0\0{}"),
    "hang": lambda *_: time.sleep(60),
    "fork and die": lambda *_: time.sleep(60) if os.fork() == 0 else os._exit(4),
    "program": lambda *_: subprocess.run(PROGRAM, check=False),
    "memory hog": lambda *_: _allocate(),
}
ACTIONS.update(FATAL)


def _write_everywhere(data):
    for descriptor in range(3, 4096):
        try:
            os.write(descriptor, data)
        except OSError:
            continue
    time.sleep(60)


def _allocate():
    held = []
    while True:
        held.append(b"x" * 2**24)
        time.sleep(0.01)


def fail():
    raise RuntimeError("no licence found")


def leave():
    sys.exit("no licence found")


def crash():
    os.abort()


def nothing():
    return "no calculator"


def choosing(*, device=None, precision=None):
    calculator = OddCalculator()
    calculator.parameters = {"chosen": f"{device} {precision}"}
    return calculator
