"""Training, files, uncertainties and wrong input of predictors."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from labelled_crystals import PROPERTY, crystals, labelled

from hybridcsp.datasets import augment, write_dataset
from hybridcsp.errors import InputError
from hybridcsp.generators.loading import one_thread
from hybridcsp.predictors.calibration import Calibration, crossed_coverage, raw_coverage
from hybridcsp.predictors.cgcnn import CGCNN, Architecture
from hybridcsp.predictors.ensemble import halves
from hybridcsp.predictors.equivariant import EquivariantPredictor
from hybridcsp.predictors.graphs import SmoothNeighbours
from hybridcsp.predictors.labelled import Labelled, read_labelled, split
from hybridcsp.predictors.loading import new_predictor, open_predictor
from hybridcsp.predictors.network import GraphData, batch_of
from hybridcsp.predictors.scales import Scale, composition_scale, standard_scale
from hybridcsp.training.properties import unit_of

TESTS = Path(__file__).parents[1]
KINDS = (CGCNN, EquivariantPredictor)
SMALL = Architecture(width=4, layers=1, hidden=4, gaussians=4)


def trained(kind=CGCNN, data=None, **settings):
    predictor = kind.configured("corrected")
    predictor.fit(data or labelled(), **{"epochs": 2, "batch_size": 8, "device": "cpu", **settings})
    return predictor


@pytest.fixture(scope="module")
def pair():
    return trained(members=2, epochs=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("configuration", ["published", "corrected"])
def test_one_batch_can_be_learned_by_heart(kind, configuration):
    torch.manual_seed(0)
    predictor = kind.configured(configuration)
    network, data = predictor.network(), labelled(6)
    scale = standard_scale(data.values, data.crystals, logarithmic=False)
    batch = GraphData.of(data.crystals, data.values, scale, network.neighbourhood).batch(np.arange(6), None)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.005)
    for _ in range(150):
        optimiser.zero_grad()
        network(batch)["error"].mean().backward()
        optimiser.step()
    network.train()  # the statistics of batch normalisation are those of this batch
    assert float((network.predict(batch) - batch["target"]).abs().mean()) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_saved_predictor_predicts_the_same(kind, tmp_path):
    predictor = trained(kind)
    predictor.save(tmp_path / "weights")
    loaded = open_predictor(tmp_path / "weights")
    before, after = (one.predict(crystals(5, seed=9)) for one in (predictor, loaded))
    assert np.array_equal(before.mean, after.mean)
    assert np.array_equal(before.interval_90, after.interval_90)
    assert (loaded.quantity, loaded.unit, loaded.card["configuration"]) == (PROPERTY, "GPa", "corrected")


def test_training_is_deterministic_and_depends_on_the_seed():
    first, second, other = trained(), trained(), trained(seed=1)
    new = crystals(4, seed=7)
    assert np.array_equal(first.predict(new).mean, second.predict(new).mean)
    assert not np.array_equal(first.predict(new).mean, other.predict(new).mean)


KILLED = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from test_training import train_two
torch.set_num_threads(1)
def epoch(one):
    if (one.part, one.number) == ("member 2", 2):
        print("now", flush=True)
        sys.stdin.read()
train_two({name!r}, Path("state"), epoch)
"""


def train_two(name, checkpoint=None, on_epoch=None):
    predictor = new_predictor(name, "corrected")
    predictor.fit(
        labelled(24), members=2, epochs=3, batch_size=8, device="cpu", checkpoint=checkpoint, on_epoch=on_epoch
    )
    return predictor


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cgcnn", "equivariant"])
def test_killed_training_resumes_bit_for_bit(name, tmp_path):
    script = KILLED.format(tests=str(TESTS), name=name)
    paths = os.pathsep.join([str(TESTS.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout.readline() == "now\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert {file.name for file in tmp_path.iterdir()} == {"member-1-state", "member-2-state"}
    epochs = []
    with one_thread():
        resumed = train_two(name, tmp_path / "state", lambda one: epochs.append((one.part, one.number)))
        whole = train_two(name)
    assert epochs == [("member 2", 3)]
    for one, folder in ((resumed, "resumed"), (whole, "whole")):
        one.save(tmp_path / folder)
    for file in ("weights.safetensors", "card.json"):
        assert (tmp_path / "resumed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_card_states_what_was_learned_and_how_well(pair):
    card = pair.card
    assert card["property"] == PROPERTY
    assert set(card["elements"]) <= {"Li", "Na", "K", "Mg", "Ca", "Sr", "Mn", "Fe", "F", "Cl", "Br", "O", "S"}
    assert card["crystals"] + card["held_out"]["crystals"] == 40
    assert {"mae", "rmse", "r2", "mae_of_mean", "coverage", "coverage_before_calibration"} <= set(card["held_out"])
    json.dumps(card, allow_nan=False)


def test_ensemble_has_an_uncertainty_of_each_crystal(pair):
    prediction = pair.predict(crystals(12, seed=3))
    assert len(set(prediction.standard_deviation.tolist())) > 6
    assert (prediction.interval_90[:, 0] <= prediction.interval_50[:, 0]).all()
    assert (prediction.interval_50[:, 1] <= prediction.interval_90[:, 1]).all()
    assert trained().predict(crystals(2)).standard_deviation.min() > 0


def test_elements_that_were_not_learned_are_named(pair):
    unseen = crystals(1)[0]
    unseen.numbers[0] = 79
    assert pair.predict([unseen, crystals(2)[1]]).unseen == (("Au",), ())


def test_logarithm_gives_positive_predictions():
    predictor = trained(logarithmic=True)
    prediction = predictor.predict(crystals(8, seed=5))
    assert (prediction.interval_90 > 0).all()
    assert (prediction.mean < prediction.interval_90[:, 1]).all()
    assert "of_logarithm" in predictor.card["held_out"]


class TestScale:
    @pytest.mark.parametrize("make", [standard_scale, composition_scale])
    @pytest.mark.parametrize("logarithmic", [False, True])
    def test_values_return(self, make, logarithmic):
        data = labelled(20)
        scale = make(data.values, data.crystals, logarithmic=logarithmic)
        stored = Scale.from_card(json.loads(json.dumps(dataclasses.asdict(scale))))
        learned = stored.encode(data.values, data.crystals)
        assert abs(learned.mean()) < 0.1
        assert stored.back(stored.decode(learned, data.crystals)) == pytest.approx(data.values)

    def test_composition_explains_what_is_linear_in_it(self):
        made = crystals(40)
        values = np.array([crystal.numbers.mean() for crystal in made])
        learned = composition_scale(values, made, logarithmic=False)
        assert learned.spread < 0.1 * values.std()


class TestCalibration:
    rng = np.random.default_rng(1)
    spreads = rng.uniform(0.1, 1.0, 2000)
    errors = rng.normal(size=2000) * np.sqrt(0.3**2 + (2.5 * spreads) ** 2)
    folds = np.arange(2000) % 2

    def test_factor_and_constant_are_found(self):
        found = Calibration.fitted(self.errors, self.spreads)
        assert (found.constant, found.slope) == pytest.approx((0.3, 2.5), rel=0.3)
        assert found.half_widths["0.9"] == pytest.approx(1.645, rel=0.06)

    def test_coverage_is_mended(self):
        assert raw_coverage(self.errors, self.spreads)["0.9"] < 0.6
        covered = crossed_coverage(self.errors, self.spreads, self.folds)
        assert covered["0.5"] == pytest.approx(0.5, abs=0.04)
        assert covered["0.9"] == pytest.approx(0.9, abs=0.02)

    def test_one_network_has_the_spread_of_its_errors(self):
        found = Calibration.fitted(self.errors, np.zeros(2000))
        assert found.standard_deviation(np.zeros(1))[0] == pytest.approx(self.errors.std(), rel=0.01)

    @pytest.mark.parametrize("n", [2, 4, 8, 9, 20])
    def test_intervals_from_few_errors_are_wide_enough(self, n):
        rng = np.random.default_rng(n)
        inside = []
        for _ in range(400):
            found = Calibration.fitted(rng.normal(size=n), np.zeros(n))
            inside += (np.abs(rng.normal(size=20)) <= found.half_width(0.9, np.zeros(20))).tolist()
        assert np.mean(inside) > 0.87


class TestBatchNormalisation:
    metals = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Fe")
    elements = tuple(bulk(symbol, "fcc", a=4.0) for symbol in metals)

    def fitted(self, **settings):
        data = Labelled(crystals=self.elements, values=np.arange(17.0), name=PROPERTY)
        predictor = CGCNN.configured("published")
        predictor.architecture = SMALL
        predictor.fit(data, **{"epochs": 1, "device": "cpu", **settings})
        return predictor

    def test_last_batch_may_have_one_atom(self):
        learned = len(split(self.elements).learned)
        assert self.fitted(batch_size=learned - 1).card["crystals"] == learned

    def test_batches_of_one_crystal_are_refused(self):
        with pytest.raises(InputError, match="batch_size = 1 is not valid: it must be a whole number from 2"):
            self.fitted(batch_size=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [{}, {"hidden": 96}, {"layers": 1}])
def test_weights_of_any_sizes_can_be_loaded(kind, change, tmp_path):
    predictor = kind.configured("corrected")
    small = {"hidden": 4, "layers": 1, "width": 4, "gaussians": 50, "channels": 2, "radial": 9}
    names = [field.name for field in dataclasses.fields(kind.sizes)]
    predictor.architecture = kind.sizes(**{name: (small | change)[name] for name in names if name in small})
    predictor.fit(labelled(12), epochs=1, device="cpu")
    predictor.save(tmp_path)
    again = open_predictor(tmp_path)
    assert again.predict(crystals(2)).mean == pytest.approx(predictor.predict(crystals(2)).mean)
    card = json.loads((tmp_path / "card.json").read_text())
    for name in small.keys() & names:
        for wrong in (10**5, 10**12, 0):
            larger = {"architecture": card["architecture"] | {name: wrong}}
            (tmp_path / "card.json").write_text(json.dumps(card | larger))
            with pytest.raises(InputError, match="the weights are incomplete"):
                open_predictor(tmp_path)


class TestSplit:
    def test_formulas_are_not_divided(self):
        made = crystals(80)
        learned, held, of, grouped_by = split(made)
        assert (of, grouped_by) == ("formulas", "formula")
        formulas = [{crystal.get_chemical_formula() for crystal in [made[i] for i in part]} for part in (learned, held)]
        assert not formulas[0] & formulas[1]
        assert len(learned) + len(held) == 80

    def test_crystals_of_one_formula_are_divided(self):
        made = [bulk("NaCl", "rocksalt", a=5.0 + 0.2 * i) for i in range(30)]
        learned, held, *by = split(made)
        assert (len(learned), len(held), by) == (27, 3, ["crystals", "structure"])

    def test_descriptions_of_one_crystal_are_divided_if_there_is_no_other(self):
        learned, held, *by = split([bulk("Cu")] * 30)
        assert (len(learned), len(held), by) == (27, 3, ["crystals", ""])

    @pytest.mark.parametrize("marked", [True, False])
    @pytest.mark.parametrize("originals", [2, 3, 12])
    def test_copies_of_a_crystal_are_in_one_part(self, originals, marked):
        made = [bulk("NaCl", "rocksalt", a=5.0 + 0.4 * i) for i in range(originals)]
        augmented = list(augment(made, 5 * originals, np.random.default_rng(0), operations=["rotations", "supercells"]))
        numbers = np.array([crystal.info["crystal"] for crystal in augmented])
        if not marked:
            del augmented[-1].info["crystal"]
        learned, held, *by = split(augmented)
        assert by == ["crystals", "crystal" if marked else "structure"]
        assert not set(numbers[learned]) & set(numbers[held])
        assert 0 < len(held) <= len(augmented) / 2
        halved = halves([augmented[i] for i in held])
        assert (
            all(len(set(halved[numbers[held] == n])) == 1 for n in set(numbers[held])) or len(set(numbers[held])) == 1
        )

    def test_a_crystal_with_most_of_the_copies_is_learned(self):
        made = [bulk("NaCl", "rocksalt", a=5.0 + 0.4 * max(0, i - 19)) for i in range(24)]
        learned, held, *_ = split(made)
        assert len(held) < 5
        assert set(range(20)) <= set(learned.tolist())

    def test_files_keep_the_number_of_the_original(self, tmp_path):
        made = [bulk("NaCl", "rocksalt", a=5.0 + 0.2 * i) for i in range(3)]
        for i, crystal in enumerate(made):
            crystal.info = {PROPERTY: float(i)}
        write_dataset(augment(made, 12, np.random.default_rng(0)), tmp_path / "a.extxyz", "augment", settings={})
        data = read_labelled([tmp_path / "a.extxyz"], PROPERTY, max_atoms=8)
        assert split(data.crystals).grouped_by == "crystal"
        assert [crystal.info["crystal"] for crystal in data.crystals] == [0] * 4 + [1] * 4 + [2] * 4

    def test_data_without_the_usual_tenth_hold_out_another(self):
        made = crystals(200)
        held = split(made).held_out
        left = [crystal for i, crystal in enumerate(made) if i not in set(held.tolist())]
        assert split(left).of == "formulas"


def test_units_follow_from_names():
    assert unit_of("bulk_modulus_gpa") == "GPa"
    assert unit_of("thermal_conductivity_w_per_mk") == "W/(m K)"
    assert unit_of("thermal_expansion_per_k") == "1/K"
    assert unit_of("debye_temperature_k") == "K"
    assert unit_of("band_gap") == "eV"
    assert unit_of("colour") == ""


def changed(**values):
    return dataclasses.replace(labelled(), **values)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (labelled(3), {}, "3 crystals with hardness_gpa are too few"),
        (changed(values=np.full(40, 2.0)), {}, "all 40 crystals have the value 2"),
        (changed(values=np.r_[np.nan, np.ones(39)]), {}, "1 of its 40 values are not finite"),
        (changed(values=np.arange(40.0)), {"logarithmic": True}, "1 of 40 are 0 or negative"),
        (labelled(), {"members": 0}, "members = 0 is not valid: it must be a whole number from 1"),
        (labelled(), {"epoch": 3}, "did you mean 'epochs'"),
    ],
)
def test_data_and_settings_that_cannot_be_used(data, settings, message):
    with pytest.raises(InputError, match=message):
        trained(data=data, **settings)


def test_structures_that_are_no_crystals(pair):
    one = crystals(1)[0]
    for change, message in (
        (lambda atoms: atoms.set_cell([0, 0, 0]), "no cell with a volume"),
        (lambda atoms: atoms.positions.__setitem__(0, np.nan), "not finite"),
        (lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0]), "in one place"),
    ):
        broken = one.copy()
        change(broken)
        with pytest.raises(InputError, match=message):
            pair.predict([broken])


def test_files_that_cannot_be_used(pair, tmp_path):
    with pytest.raises(InputError, match="a folder with the weights of a predictor"):
        open_predictor(tmp_path)
    with pytest.raises(InputError, match="each predicts one property"):
        open_predictor("cgcnn")
    with pytest.raises(InputError, match="did you mean 'cgcnn'"):
        new_predictor("cgcn", "corrected")
    with pytest.raises(InputError, match="one of corrected, published"):
        new_predictor("cgcnn", "other")
    pair.save(tmp_path / "good")
    card = json.loads((tmp_path / "good" / "card.json").read_text())
    wrong = {
        "members": 3,
        "architecture": {"width": 1},
        "scale": {"spread": 0},
        "elements": [1],
        "configuration": "new",
    }
    for key, value in wrong.items():
        (tmp_path / "good" / "card.json").write_text(json.dumps(card | {key: value}))
        with pytest.raises(InputError, match=r"weights = .*good"):
            open_predictor(tmp_path / "good")
    del card["elements"]
    (tmp_path / "good" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="must be one of this predictor: the entry 'elements' is missing"):
        open_predictor(tmp_path / "good")


def test_graph_of_any_cell_has_all_edges():
    one = crystals(1)[0]
    graph = SmoothNeighbours().graph(one)
    batch = batch_of([graph, graph])
    assert len(batch["centre"]) == 2 * len(graph.centre)
    assert batch["centre"].max() == 3
    assert (np.diff(graph.centre) >= 0).all()
