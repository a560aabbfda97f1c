"""Suppression of the terminal output of third-party code."""

import logging
import sys
import threading
import warnings

import pytest

from hybridcsp.utils.quiet import quiet


def test_output_of_a_block_is_suppressed_and_later_output_is_not(capsys):
    handlers = list(logging.getLogger().handlers)
    with quiet():
        sys.stdout.write("out\n")
        sys.stderr.write("error\n")
        warnings.warn("a warning", stacklevel=1)
    sys.stdout.write("after\n")
    assert capsys.readouterr() == ("after\n", "")
    assert logging.getLogger().handlers == handlers


def test_output_is_on_again_after_blocks_of_two_threads_that_overlap(capsys):
    first_runs, second_runs = threading.Event(), threading.Event()

    def first():
        with quiet():
            first_runs.set()
            second_runs.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    first_runs.wait(10)
    with quiet():  # ends after the block that began before it
        second_runs.set()
        thread.join()
        sys.stdout.write("inside\n")
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "after\n"


def test_output_is_on_again_after_an_error_and_in_blocks_inside_blocks(capsys):
    with pytest.raises(ValueError, match="mistake"), quiet(), quiet():
        raise ValueError("a mistake")
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "after\n"
