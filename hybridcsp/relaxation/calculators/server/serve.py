"""The loop of a calculator server: it builds one calculator and evaluates structures with it.

The other side sends one message at a time, and each has one answer:

========== ======================================================== ===================================================
message    content                                                  answer
========== ======================================================== ===================================================
(none)                                                              versions of the protocol, Python, numpy and ASE
device     a device, before a calculator is built                   an error if there is no such device
build      name, argument, device and precision of a calculator     its label, class and properties, or an error
evaluate   a structure                                              its results, and the structure if it was changed
========== ======================================================== ===================================================
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import platform
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import ase
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from .builders import build, check_device
from .exceptions import BuildError, OptionError
from .wire import PROTOCOL, decode_structure, encode_error, encode_result, encode_structure, receive, send

#: Properties in the order in which they are calculated: the forces come first, because many calculators then calculate
#: everything else together with them.
PROPERTIES = ("forces", "stress", "energy", "free_energy", "magmoms", "charges")

_PR_SET_PDEATHSIG = 1

# Properties that are calculated only if the calculator declares them.
_IF_DECLARED = ("free_energy", "magmoms")


def run(descriptor: int, parent: int, death_signal: int) -> None:
    """Run a server in this process, and end the process; parameters as those of the main program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.set_inheritable(descriptor, False)  # so that programs of a calculator do not keep the socket open
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    faulthandler.enable()  # writes the stack to the log on a crash, and on the SIGABRT of the search
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    with contextlib.suppress(EOFError, OSError):
        serve(socket.socket(fileno=descriptor))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread of a calculator must not keep the process alive


def serve(connection: socket.socket) -> None:
    """Answer the messages of the other side until that ends.

    Raises
    ------
    EOFError, OSError
        If the other side has ended.
    """
    send(
        connection,
        {
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "ase": ase.__version__,
        },
    )
    message = receive(connection)
    if "name" not in message:
        send(connection, _device_checked(message["device"]))
        message = receive(connection)
    own = os.getpid()
    calculator, answer = _built(message)
    while True:
        if os.getpid() != own:
            os._exit(0)  # a fork that the calculator did not end must not answer too
        send(connection, answer)
        answer = _evaluated(calculator, decode_structure(receive(connection)))


def _device_checked(device: str) -> Any:
    """Return the answer to a message with a device: an error, or nothing if there is such a device."""
    try:
        check_device(device)
    except OptionError as error:
        return {"option": [error.option, error.value, error.reason]}
    return {}


def _built(message: Any) -> tuple[Any, Any]:
    """Return the calculator that a message describes, and the answer to the message."""
    try:
        calculator, label = build(
            message["name"], message["argument"], device=message["device"], precision=message["precision"]
        )
        return calculator, {
            "label": label,
            "class": type(calculator).__name__,
            "properties": [str(name) for name in calculator.implemented_properties],
        }
    except OptionError as error:
        return None, {"option": [error.option, error.value, error.reason]}
    except BuildError as error:
        return None, {"build": str(error)}
    except BaseException as error:  # noqa: BLE001 - calculators of other packages raise anything
        traceback.print_exc()
        return None, {"error": _described(error)}


def _evaluated(calculator: Any, atoms: Atoms) -> Any:
    """Return the answer to a message with a structure.

    The properties are those of :data:`PROPERTIES` up to the first that raises an error; charges are included only if
    they have been calculated together with the others.
    """
    before = atoms.copy()
    found: list[tuple[str, Any]] = []
    known: Mapping[str, Any] = {}
    for name in PROPERTIES:
        if name == "charges" and name not in known:
            continue
        try:
            if name in _IF_DECLARED and name not in calculator.implemented_properties:
                continue
            value = known[name] if name in known else calculator.get_property(name, atoms)
            results = getattr(calculator, "results", None)
            known = results if isinstance(results, Mapping) else {}
            found.append((name, {"value": encode_result(value, len(before))}))
        except PropertyNotImplementedError as error:
            found.append((name, {"missing": _described(error)}))
        except BaseException as error:  # noqa: BLE001 - calculators of other packages raise anything
            traceback.print_exc()
            found.append((name, {"error": _described(error)}))
            break
    return {"results": found, "changed": None if _same(before, atoms) else encode_structure(atoms)}


def _described(error: BaseException) -> Any:
    """Return an exception as a part of a message, with its kind if hybridcsp treats it differently from others."""
    names = [kind.__name__ for kind in type(error).__mro__]
    kind = "other"
    if isinstance(error, MemoryError):
        kind = "memory"
    elif "IsolatedAtomsError" in names:  # the calculator may have imported it from an installed hybridcsp
        kind = "isolated"
    elif not isinstance(error, Exception):
        kind = "exit"
    return {"kind": kind, **encode_error(error)}


def _same(before: Atoms, after: Atoms) -> bool:
    return (
        len(before) == len(after)
        and np.array_equal(before.numbers, after.numbers)
        and np.array_equal(before.positions, after.positions)
        and np.array_equal(before.cell.array, after.cell.array)
        and np.array_equal(before.pbc, after.pbc)
    )
