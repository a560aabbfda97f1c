"""What is lost when crystals are encoded and decoded again, by representations and by generators with an encoder."""

import csv
import json

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk
from toys import Toy
from typer.testing import CliRunner

from hybridcsp.cli import fidelity as command
from hybridcsp.cli.app import app
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.fidelity import (
    REPRESENTATIONS,
    Result,
    combined,
    spread_of_models,
    summary,
    through_model,
    through_representation,
    worst,
)
from hybridcsp.structure.representations.base import BeyondLimitsError, DecodingError

RUTILE = Atoms(
    "Ti2O4",
    scaled_positions=[[0, 0, 0], [0.5] * 3, [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]],
    cell=[4.6, 4.6, 2.96],
    pbc=True,
)
CRYSTALS = [bulk("NaCl", "rocksalt", 5.6), RUTILE, bulk("ZnS", "wurtzite", 3.8, c=6.2), bulk("LiF", "rocksalt", 14.0)]


class Displacing(Toy):
    """A generator whose reconstructions are displaced, fail, or are other crystals."""

    reconstructs = True

    def reconstruct(self, crystals):
        found = []
        for number, crystal in enumerate(crystals):
            back = crystal.copy()
            if number == 1:
                back.positions[2] += [0, 0, self.noise]
            elif number == 2:
                back = DecodingError("no site is occupied")
            elif number == 4:
                back = BeyondLimitsError("it has 3 elements, more than 2")
            elif number == 3:
                back.symbols[0] = "Na"
            found.append(back)
        return found


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_crystals_within_the_limits_come_back(name):
    found = list(through_representation(name, CRYSTALS[:3]))
    assert [one.result for one in found] == [Result.CLOSE] * 3
    assert max(one.rms for one in found) < 0.02
    assert max(one.strain for one in found) < 0.01


def test_crystals_outside_the_limits_are_counted_with_their_reason():
    wide = bulk("LiF", "rocksalt", 20.0)
    found = list(through_representation("voxels", [CRYSTALS[0], wide]))
    assert found[1].result is Result.OUTSIDE
    row = summary(found)
    assert (row["crystals"], row["outside"], row["failed"], row["matched"]) == (2, 1, 0, 1.0)
    assert "longer than" in next(iter(row["reasons"]))


def test_unknown_representation_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'voxels'"):
        list(through_representation("voxel", CRYSTALS))


def test_reconstructions_of_a_model_are_compared():
    found = list(through_model("toy", Displacing(noise=0.5), [*CRYSTALS, CRYSTALS[0]], together=5))
    results = [Result.CLOSE, Result.MATCHED, Result.FAILED, Result.OTHER, Result.OUTSIDE]
    assert [one.result for one in found] == results
    assert found[1].largest == pytest.approx(0.5 * 5 / 6, rel=0.1)
    assert [one.reason for one in found[2:4]] == ["no site is occupied", "other contents"]
    row = summary(found)
    assert (row["matched"], row["close"], row["failed"], row["outside"]) == (0.5, 0.25, 1, 1)
    assert [one.crystal for one in worst(found, 3)] == [2, 3, 1]


def test_several_models_have_a_spread():
    results = [list(through_model("toy", Displacing(noise=noise), CRYSTALS)) for noise in (0.2, 0.5)]
    found = combined("toy, 2 models", results)
    assert [one.matched_by for one in found] == [1, 1, 0, 0]
    assert found[1].rms == pytest.approx((results[0][1].rms + results[1][1].rms) / 2)
    assert found[1].rms_spread > 0.05
    assert found[0].rms_spread == pytest.approx(0, abs=1e-6)
    spreads = spread_of_models([summary(one) for one in results])
    assert spreads["matched_spread"] == 0
    assert spreads["rms_spread"] > 0


class TestCommand:
    @pytest.fixture
    def data(self, tmp_path):
        ase.io.write(tmp_path / "data.extxyz", CRYSTALS[:3])
        return tmp_path / "data.extxyz"

    def run(self, *arguments):
        done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    def test_table_plot_and_csv_of_every_crystal(self, data, tmp_path):
        options = ("--representation", "ftcp", "--representation", "log-lattice", "--output", tmp_path / "all.csv")
        done = self.run("--fidelity", "--data", data, *options, "--plot", tmp_path / "plot.png", "--json")
        about = json.loads(done.stdout)
        assert [row["representation"] for row in about["table"]] == ["ftcp", "log-lattice"]
        assert about["crystals"] == 3
        rows = list(csv.DictReader((tmp_path / "all.csv").open()))
        assert len(rows) == 6
        assert {row["result"] for row in rows} == {"close"}
        assert (tmp_path / "plot.png").stat().st_size > 1000

    def test_models_are_compared_with_their_spread(self, data, monkeypatch):
        monkeypatch.setattr(command, "_with_encoder", lambda text: Displacing(noise=float(text)))
        done = self.run("--fidelity", "0.2", "0.5", "--data", data)
        shown = " ".join(done.stdout.split())
        assert "toy, 2 models" in shown
        assert "±" in shown
        assert "no site is occupied" in shown

    def test_model_without_an_encoder_is_refused(self, data, monkeypatch):
        monkeypatch.setattr("hybridcsp.generators.loading.open_generator", lambda text: Toy())
        with pytest.raises(InputError, match="toy has no encoder"):
            self.run("--fidelity", "toy", "--data", data)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--fidelity", "--samples", "3"), "--samples = 3 cannot be used: it is for samples"),
            (("wyckoff", "--worst", "3"), "belongs to --fidelity"),
            (("wyckoff", "flow"), "one generator; several can be given with --fidelity"),
            ((), "one generator"),
            (("--fidelity", "--representation", "voxel"), "did you mean 'voxels'"),
            (("--fidelity", "--output", "all.txt"), "ends in .csv or .json"),
            (("--fidelity", "--plot", "plot.txt"), "ends in"),
        ],
    )
    def test_wrong_choices(self, data, arguments, message):
        with pytest.raises(InputError, match=message):
            self.run(*arguments, "--data", data)
