"""The main program of a calculator server, ``python FOLDER/__main__.py DESCRIPTOR PARENT DEATH_SIGNAL``.

Every Python can read this file, also Python 2 and others that are too old for the rest of the package, and it says then
what is wrong.
"""

import json
import os
import platform
import struct
import sys

_OLDEST = (3, 9)
_NAME = "hybridcsp_server"


def _refuse(descriptor, **problem):
    # type: (int, object) -> None
    """Send the only message of an interpreter that cannot run a server, in the form that wire.py defines."""
    text = json.dumps(dict(problem, python=platform.python_version())).encode("ascii")
    os.write(descriptor, struct.pack("<Q", len(text)) + text)


def main(descriptor, parent, death_signal):
    # type: (int, int, int) -> None
    """Run a server.

    Parameters
    ----------
    descriptor
        File descriptor of the socket to the process that has started this one.
    parent
        Process id of that process.
    death_signal
        Signal that the kernel sends, on Linux, when the thread that started this process ends; 0 for none.
    """
    if sys.version_info < _OLDEST:
        _refuse(descriptor, problem="old")
        return
    from importlib import import_module
    from importlib.util import find_spec, module_from_spec, spec_from_file_location

    missing = [name for name in ("numpy", "ase") if find_spec(name) is None]
    if missing:
        _refuse(descriptor, problem="missing", packages=missing)
        return
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != folder]  # its modules have common names
    spec = spec_from_file_location(_NAME, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
    assert spec is not None and spec.loader is not None
    package = sys.modules[_NAME] = module_from_spec(spec)
    spec.loader.exec_module(package)
    try:
        run = import_module(_NAME + ".serve").run
    except Exception as error:  # noqa: BLE001 - a broken installation of numpy or ASE raises anything
        _refuse(descriptor, problem="broken", error=type(error).__name__ + ": " + str(error))
        return
    run(descriptor, parent, death_signal)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
