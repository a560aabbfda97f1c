import logging
import subprocess
import sys
from io import StringIO

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from hybridcsp.cli.console import SafeConsole, console, errors
from hybridcsp.cli.progress import RelaxationDisplay, bar, busy, counter

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e"


def shown(terminal=False):
    stream = StringIO()
    return SafeConsole(file=stream, force_terminal=terminal, width=60, color_system="standard"), stream


def table():
    made = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    made.add_row(HOSTILE)
    made.add_row(Text(HOSTILE, style="bold"))
    return made


@pytest.mark.parametrize("what", [HOSTILE, Text(HOSTILE), table()])
@pytest.mark.parametrize("terminal", [False, True])
def test_control_characters_are_escaped(what, terminal):
    console, stream = shown(terminal)
    console.print(what, style="red")
    console.print(what, markup=False, soft_wrap=True)
    text = stream.getvalue()
    assert "owned" in text
    assert not [command for command in ("\x1b]", "\x07", "\x9b", "\u202e") if command in text]


def test_own_colours_and_live_line_work():
    console, stream = shown(terminal=True)
    console.print("[red]red[/]")
    assert "\x1b[31mred" in stream.getvalue()
    with Progress(console=console) as bar:
        bar.add_task(HOSTILE, total=1)
    assert "\x1b[" in stream.getvalue()
    assert "\x1b]" not in stream.getvalue()


@pytest.mark.parametrize(
    "happens",
    [
        "raise ValueError(hostile)",
        "import warnings; warnings.warn(hostile)",
        "import logging; logging.getLogger('any').warning('%s', hostile)",
    ],
)
def test_control_characters_in_tracebacks_and_warnings_are_escaped(happens):
    code = (
        f"from hybridcsp.cli.console import guard_the_terminal; guard_the_terminal(); hostile = {HOSTILE!r}; {happens}"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr.decode()
    assert r"\x1b]0;owned\x07" in text
    assert "\x1b" not in text
    assert logging.lastResort is not None


def test_progress_prints_one_line_to_log(capsys):
    with busy("reading crystals"), counter("structures") as count:
        count(3)
    with bar("crystals", 2) as advance:
        advance(2)
    with RelaxationDisplay(errors):
        pass
    assert capsys.readouterr().err == "reading crystals …\n"


def test_colons_around_a_word_are_not_a_picture(capsys):
    console.print("follow-up with potentials:ghost: 3 minima")
    errors.print("potentials:ghost: no such file")
    printed = capsys.readouterr()
    assert printed.out == "follow-up with potentials:ghost: 3 minima\n"
    assert printed.err == "potentials:ghost: no such file\n"


def test_brackets_in_names_are_not_markup(capsys, monkeypatch):
    name = "runs[1]/of[/them]"
    with busy(f"reading {name}"):
        console.print(f"in {name}")
        errors.print(f"not in {name}")
    printed = capsys.readouterr()
    assert f"in {name}" in printed.out
    assert f"reading {name} …" in printed.err
    assert f"not in {name}" in printed.err
    live, stream = shown(terminal=True)
    monkeypatch.setattr("hybridcsp.cli.progress.errors", live)
    with busy(f"reading {name}"):
        pass
    assert f"reading {name}" in stream.getvalue()
