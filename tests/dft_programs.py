"""Stand-ins for the programs of DFT codes, and DFT files that name them."""

import json
import sys
from pathlib import Path

FAKE_PW = Path(__file__).parent / "fake_pw.py"

#: Appended to the stand-in for pw.x: it notes each calculation, with the cutoff, beside itself.
_NOTE = """
with open(__file__ + ".log", "a") as log:
    print(setting(text, "ecutwfc"), setting(text, "calculation"), setting(text, "startingpot", "-"), file=log)
"""


def program(file, text):
    """Write a program in Python and return its path."""
    file.write_text(f"#!{sys.executable} -IS\n{text}")
    file.chmod(0o755)
    return file


def fake_pw(folder, after="", before=""):
    """Write a pw.x that computes a Morse potential, and does something ``before`` or ``after`` reading its input."""
    folder.mkdir(exist_ok=True)
    text = FAKE_PW.read_text()
    mark = 'if not {"tstress'
    head, tail = text.split(mark)
    (folder / "Si.UPF").write_text("a pseudopotential of silicon")
    return program(folder / "pw.x", f"{before}\n{head}{_NOTE}{after}\n{mark}{tail}")


def calculations(pw):
    """Cutoff in Ry, kind and origin of the density of every calculation that a stand-in for pw.x has made."""
    log = pw.with_name("pw.x.log")
    return [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []


def value(thing):
    """Plain data as TOML."""
    if isinstance(thing, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {value(item)}" for key, item in thing.items()) + "}"
    if isinstance(thing, list | tuple):
        return "[" + ", ".join(map(value, thing)) + "]"
    return json.dumps(thing)


def dft_file(path, **keys):
    """Write a DFT file for Quantum ESPRESSO, with other keys in place of its own; ``None`` removes one."""
    given = {
        "code": "quantum-espresso",
        "command": [str(path.parent / "espresso" / "pw.x")],
        "kspacing": 0.5,
        "cutoff": "12 Ry",
        "pseudopotentials": {"folder": "espresso", "Si": "Si.UPF"},
    }
    lines = [f"{key} = {value(thing)}" for key, thing in (given | keys).items() if thing is not None]
    path.write_text("\n".join(lines))
    return path
