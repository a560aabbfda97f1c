import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hybridcsp.errors import ExitRaisedError
from hybridcsp.utils.interrupts import exits_contained, noted_interrupts, uninterrupted


def test_ctrl_c_is_delayed_until_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done


def test_handlers_are_restored_without_a_signal():
    before = signal.getsignal(signal.SIGINT)
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_blocks_may_be_nested():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done


def test_other_threads_are_not_affected():
    done = []

    def work():
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_ignored_signal_stays_ignored_and_hides_no_other():
    """As ``nohup`` leaves it: Ctrl-C has no effect, SIGTERM has."""
    terminated = []
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert not terminated
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
    assert terminated == [True]


def test_user_interrupt_differs_from_a_raised_one():
    with contextlib.suppress(KeyboardInterrupt), noted_interrupts() as noted:
        raise KeyboardInterrupt
    assert noted == []
    with contextlib.suppress(KeyboardInterrupt), noted_interrupts() as noted:
        signal.raise_signal(signal.SIGINT)
    assert noted == [signal.SIGINT]


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_raised_exits_become_ordinary_errors(kind):
    error = kind("no licence")
    with pytest.raises(ExitRaisedError, match=f"{kind.__name__}: no licence"), exits_contained():
        raise error
    with pytest.raises(kind), exits_contained(passing=(kind,)):
        raise error


def test_exits_by_a_signal_pass():
    with pytest.raises(KeyboardInterrupt), exits_contained():
        signal.raise_signal(signal.SIGINT)


def test_handler_set_by_the_block_stays():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with exits_contained():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_search_that_ignores_ctrl_c(tmp_path):
    command = ["search", "Cu8", "--formula-units", "1", "--calculator", "emt", "--workers", "1", "--source", "random"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridcsp", *command, "--relaxations", "100000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "Cu8" / "workers" / "worker-1.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "hybridcsp resume Cu8" in output
