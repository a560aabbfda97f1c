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


def test_ctrl_c_waits_until_the_block_is_done():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done


def test_nothing_is_changed_where_nothing_happens():
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


def test_other_threads_are_let_be():
    done = []

    def work():
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_an_ignored_signal_stays_ignored_and_hides_no_other():
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


def test_an_interrupt_by_a_person_is_told_from_one_that_code_raises():
    with contextlib.suppress(KeyboardInterrupt), noted_interrupts() as noted:
        raise KeyboardInterrupt
    assert noted == []
    with contextlib.suppress(KeyboardInterrupt), noted_interrupts() as noted:
        signal.raise_signal(signal.SIGINT)
    assert noted == [signal.SIGINT]


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_exits_that_code_raises_are_ordinary_errors(kind):
    error = kind("no licence")
    with pytest.raises(ExitRaisedError, match=f"{kind.__name__}: no licence"), exits_contained():
        raise error
    with pytest.raises(kind), exits_contained(passing=(kind,)):
        raise error


def test_exits_that_a_signal_asks_for_are_not_contained():
    with pytest.raises(KeyboardInterrupt), exits_contained():
        signal.raise_signal(signal.SIGINT)


def test_a_handler_that_the_code_sets_stays():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with exits_contained():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_search_that_ignores_ctrl_c_is_ended_in_order_by_sigterm(tmp_path):
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
