"""``--target`` and ``--predictor``: wanted values of properties on the command line."""

import math
from pathlib import Path

import ase.io
import pytest
from cubes import Cubes, Volume
from typer.testing import CliRunner

from hybridcsp.cli.app import app
from hybridcsp.cli.targets import with_targets_of_search
from hybridcsp.cli.values import read_targets
from hybridcsp.errors import InputError


@pytest.fixture(autouse=True)
def cubes(monkeypatch, tmp_path):
    """Give the command a generator of cubes, and a predictor of their volume in the folder ``volume``."""
    monkeypatch.setattr("hybridcsp.generators.loading.open_generator", lambda text: Cubes())
    monkeypatch.setattr("hybridcsp.predictors.loading.open_predictor", lambda text: Volume(text))
    monkeypatch.chdir(tmp_path)


def sample(*arguments):
    done = CliRunner().invoke(app, ["sample", "cubes", "--formula", "Cu", "--output", "x.extxyz", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.mark.parametrize(
    ("texts", "targets"),
    [
        (["band_gap=1.5..2.5"], {"band_gap": (1.5, 2.5)}),
        (["band_gap = 1.5 .. "], {"band_gap": (1.5, math.inf)}),
        (["e=..-2e-1"], {"e": (-math.inf, -0.2)}),
        (["a>=1", "b<3"], {"a": (1.0, math.inf), "b": (-math.inf, 3.0)}),
        (["a>=1", "a<=3"], {"a": (1.0, 3.0)}),
        ([], {}),
    ],
)
def test_targets_are_read(texts, targets):
    assert read_targets("--target", texts) == targets


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["band_gap"], "lowest and the highest"),
        ([""], "lowest and the highest"),
        (["band_gap=2"], "lowest and the highest"),
        (["band_gap=.."], "lowest and the highest"),
        (["band_gap>=1..2"], "lowest and the highest"),
        (["band_gap=a..2"], "a number"),
        (["band_gap=nan..2"], "a number"),
        (["band_gap=2..1"], "no number is from 2 to 1"),
        (["a>=3", "a<=1"], "no number is from 3 to 1"),
    ],
)
def test_texts_that_are_no_targets_are_refused(texts, reason):
    with pytest.raises(InputError, match=reason):
        read_targets("--target", texts)


def test_samples_are_selected_by_a_predictor_and_counted():
    output = sample("--n", "6", "--target", "volume=20..", "--predictor", "volume").output
    assert "within the target" in output
    assert "6 of 6 crystals" in output
    frames = ase.io.read("x.extxyz", ":")
    assert len(frames) == 6
    assert all(20 <= frame.info["predicted_volume"] == pytest.approx(frame.get_volume()) for frame in frames)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--target", "volume=20.."],
            "'volume=20..' cannot be used: the generator cubes has not",
        ),
        (["--predictor", "volume"], "only with --target"),
        (["--target", "volume=20..", "--predictor", "volume", "--predictor", "gap"], "no target is set"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(arguments, reason):
    with pytest.raises(InputError, match=reason):
        sample(*arguments)


def test_targets_of_a_search_are_a_condition_and_its_predictors_reported_objectives():
    search = with_targets_of_search({"where": "height < 1", "objectives": ["density:max"]}, ["gap=1.5.."], ["gap"])
    assert search["where"] == "height < 1 and gap >= 1.5"
    first, second = search["objectives"]
    assert first == "density:max"
    assert second == {"objective": f"predictor:{Path.cwd() / 'gap'}", "name": "gap", "goal": "report"}


def test_a_target_of_a_search_is_one_of_its_objectives():
    assert with_targets_of_search({}, ["density=..4"], [])["where"] == "density <= 4.0"
    with pytest.raises(InputError, match=r"^--target = 'gap' cannot be used: gap is no objective .*--predictor FOLDER"):
        with_targets_of_search({}, ["gap=1.5.."], [])
