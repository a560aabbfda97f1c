from dataclasses import replace

import numpy as np
import pytest
import torch

from hybridcsp.errors import InputError
from hybridcsp.generators import checkpoints
from hybridcsp.generators.trainer import Settings, evaluate, train

SETTINGS = Settings(epochs=6, batch_size=8, learning_rate=0.02, warm_up=4, patience=100, device="cpu")


class Line:
    """Points of a noisy line; what the noise is depends on the generator that is handed in."""

    def __init__(self, n=50, slope=3.0):
        rng = np.random.default_rng(5)
        self.x = rng.normal(size=n)
        self.slope = slope
        self.weights = rng.uniform(0.5, 2.0, n)
        self.sizes = rng.integers(1, 9, n)

    def batch(self, indices, rng):
        x = self.x[indices] + 0.01 * rng.normal(size=len(indices))
        return {
            name: torch.tensor(v, dtype=torch.float32) for name, v in (("x", x), ("y", self.slope * self.x[indices]))
        }


class Fit(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1))
        self.out = torch.nn.Linear(16, 1)

    def forward(self, batch):
        return {"square": (self.out(self.layers(batch["x"][:, None]))[:, 0] - batch["y"]) ** 2}


class Stop(Exception):
    pass


def weights_of(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_training_lowers_the_loss_and_keeps_the_best_epoch():
    model, epochs = Fit(), []
    before = sum(evaluate(model, Line(), SETTINGS).values())
    train(model, Line(), Line(20), SETTINGS, on_epoch=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    best = min(epochs, key=lambda epoch: epoch.losses["held_out"])
    assert best.best
    assert best.losses["held_out"] < before / 3
    assert sum(evaluate(model, Line(20), SETTINGS).values()) == pytest.approx(best.losses["held_out"])


@pytest.mark.parametrize("stopped_at", [3, 17])
def test_a_stopped_training_ends_bit_for_bit_as_one_that_was_not(tmp_path, stopped_at):
    whole = Fit()
    history = train(whole, Line(), Line(20), SETTINGS, seed=4)

    class Stopping(Line):
        calls = 0

        def batch(self, indices, rng):
            self.calls += 1
            if self.calls == stopped_at:
                raise KeyboardInterrupt
            return super().batch(indices, rng)

    first, checkpoint = Fit(), tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(first, Stopping(), Line(20), SETTINGS, seed=4, checkpoint=checkpoint)
    resumed, seen = Fit(), []
    again = train(resumed, Line(), Line(20), SETTINGS, seed=4, checkpoint=checkpoint, on_epoch=seen.append)
    assert seen[0].number == 1 + (stopped_at - 1) // 7
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert again == history


def test_processes_that_collate_ahead_change_nothing():
    alone, helped = Fit(), Fit()
    histories = [train(model, Line(), Line(20), SETTINGS, workers=n) for model, n in ((alone, 0), (helped, 2))]
    assert histories[0] == histories[1]
    for name, value in alone.state_dict().items():
        assert torch.equal(value, helped.state_dict()[name])


def test_checkpoints_may_be_rarer_than_epochs_but_the_last_state_is_kept(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints, "write", lambda file, state, identity: written.append(state.progress.epoch - 1))
    train(Fit(), Line(), Line(20), replace(SETTINGS, checkpoint_epochs=4), checkpoint=tmp_path / "state")
    assert written == [4, 6]


def test_a_finished_training_is_not_repeated(tmp_path):
    first, second, seen = Fit(), Fit(), []
    train(first, Line(), None, SETTINGS, checkpoint=tmp_path / "state")
    train(second, Line(), None, SETTINGS, checkpoint=tmp_path / "state", on_epoch=seen.append)
    assert not seen
    assert torch.equal(weights_of(first), weights_of(second))


def test_the_seed_decides():
    models = [Fit(), Fit(), Fit()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, Line(), None, SETTINGS, seed=seed)
    assert torch.equal(weights_of(models[0]), weights_of(models[1]))
    assert not torch.equal(weights_of(models[0]), weights_of(models[2]))


def test_training_stops_when_the_held_out_loss_no_longer_falls():
    epochs = []
    settings = Settings(epochs=200, batch_size=8, learning_rate=0.02, patience=3, device="cpu")
    train(Fit(), Line(), Line(20, slope=-3.0), settings, on_epoch=epochs.append)
    assert len(epochs) < 50
    assert not any(epoch.best for epoch in epochs[-3:])


def test_global_random_state_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model = Fit.__new__(Fit)
    with torch.random.fork_rng():
        Fit.__init__(model)
    train(model, Line(), None, SETTINGS)
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_examples_count():
    class Two(Line):
        def __init__(self, first):
            self.x, self.slope = np.ones(2), 0.0
            self.sizes, self.weights = np.ones(2, dtype=int), np.array([first, 1.0])

        def batch(self, indices, rng):
            return {"x": torch.ones(len(indices)), "y": torch.tensor([[2.0], [-1.0]])[indices, 0]}

    model = Fit()
    train(model, Two(3.0), None, Settings(epochs=400, batch_size=2, learning_rate=0.02, device="cpu", averaging=0.5))
    model.eval()
    assert model.out(model.layers(torch.ones(1, 1))).item() == pytest.approx((3 * 2.0 - 1.0) / 4, abs=0.15)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no" + raw[2:], lambda raw: b""])
def test_a_damaged_checkpoint_is_refused_in_words(tmp_path, damage):
    checkpoint = tmp_path / "state"
    train(Fit(), Line(), None, SETTINGS, checkpoint=checkpoint)
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(InputError, match="damaged"):
        train(Fit(), Line(), None, SETTINGS, checkpoint=checkpoint)


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "state"
    train(Fit(), Line(), None, SETTINGS, checkpoint=checkpoint)
    with pytest.raises(InputError, match=r"another|other"):
        train(Fit(), Line(51), None, SETTINGS, checkpoint=checkpoint)


def test_the_checkpoint_of_other_crystals_or_other_weights_to_begin_with_is_refused(tmp_path):
    checkpoint = tmp_path / "state"
    train(Fit(), Line(), Line(20), SETTINGS, checkpoint=checkpoint)
    other = Fit()
    with torch.no_grad():
        other.out.bias += 0.1
    for model, data, held in (
        (Fit(), Line(slope=3.1), Line(20)),
        (Fit(), Line(), Line(20, 3.1)),
        (other, Line(), Line(20)),
    ):
        with pytest.raises(InputError, match=r"another|other"):
            train(model, data, held, SETTINGS, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"learning_rate": -1}, "learning_rate = -1: a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"epochs": True}, "epochs = True: a whole number above 0"),
        ({"batch_size": 2.5}, "batch_size = 2.5: a whole number above 0"),
        ({"batch_size": "abc"}, "batch_size"),
        ({"anchor": -0.1}, "anchor = -0.1: a number from 0"),
        ({"averaging": 1.0}, "below 1"),
        ({"device": "foo"}, "device = 'foo': auto, cpu or cuda"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, said):
    with pytest.raises(InputError) as raised:
        Settings(**setting)
    assert said in str(raised.value)


def test_crystals_without_any_weight_are_refused():
    data = Line()
    data.weights = np.zeros(50)
    with pytest.raises(InputError, match="weight"):
        train(Fit(), data, None, SETTINGS)


def test_a_loss_that_is_no_number_is_an_error():
    class Broken(Fit):
        def forward(self, batch):
            return {"square": super().forward(batch)["square"] * float("nan")}

    with pytest.raises(InputError, match="learning_rate"):
        train(Broken(), Line(), None, SETTINGS)


def test_an_anchor_holds_weights_near_the_beginning():
    def distance(anchor):
        model = Fit()
        start = weights_of(model)
        train(model, Line(), None, replace(SETTINGS, anchor=anchor), seed=4)
        return float((weights_of(model) - start).norm())

    free, held = distance(0.0), distance(20.0)
    assert 0 < held < 0.7 * free
    assert distance(1e9) < 1e-4 * free + 1e-6
