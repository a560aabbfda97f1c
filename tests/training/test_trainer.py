"""The training loop."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_training import SETTINGS, Network, NoisyLine, weights_of

from hybridcsp.errors import InputError
from hybridcsp.training import checkpoints
from hybridcsp.training.losses import evaluate
from hybridcsp.training.optimisation import AdamWCosine, ConstantAdam, RMSpropSteps
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.trainer import Trainer


def train(model, training, held_out=None, settings=SETTINGS, **options):
    return Trainer(model, training, held_out, settings, **options).train()


def test_training_lowers_the_loss_and_keeps_the_weights_of_the_best_epoch():
    model, epochs = Network(), []
    before = sum(evaluate(model, NoisyLine(), 8).values())
    train(model, NoisyLine(), NoisyLine(20), on_epoch=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    best = min(epochs, key=lambda epoch: epoch.losses["held_out"])
    assert best.best
    assert best.losses["held_out"] < before / 3
    assert sum(evaluate(model, NoisyLine(20), 8).values()) == pytest.approx(best.losses["held_out"])


def test_epochs_report_the_held_out_loss_of_the_initial_weights():
    model, epochs = Network(), []
    initial = sum(evaluate(model, NoisyLine(20), 8).values())
    train(model, NoisyLine(), NoisyLine(20), on_epoch=epochs.append)
    assert {epoch.at_start for epoch in epochs} == {initial}


@pytest.mark.parametrize(
    ("stopped_at", "optimisation"),
    [(3, None), (17, None), (17, ConstantAdam(betas=(0.5, 0.9))), (17, RMSpropSteps({2: 0.2}))],
)
def test_interrupted_and_continued_training_equals_an_uninterrupted_one(tmp_path, stopped_at, optimisation):
    uninterrupted = Network()
    history = train(uninterrupted, NoisyLine(), NoisyLine(20), seed=4, optimisation=optimisation)

    class Interrupted(NoisyLine):
        calls = 0

        def batch(self, indices, rng):
            self.calls += 1
            if self.calls == stopped_at:
                raise KeyboardInterrupt
            return super().batch(indices, rng)

    state = {"checkpoint": tmp_path / "state", "optimisation": optimisation}
    trainer = Trainer(Network(), NoisyLine(), NoisyLine(20), SETTINGS, seed=4, **state)
    trainer._training = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    continued, epochs = Network(), []
    again = train(continued, NoisyLine(), NoisyLine(20), seed=4, on_epoch=epochs.append, **state)
    assert epochs[0].number == 1 + (stopped_at - 1) // 7
    assert torch.equal(weights_of(continued), weights_of(uninterrupted))
    assert again == history


def test_training_that_its_callback_ends_can_be_continued(tmp_path):
    uninterrupted = Network()
    train(uninterrupted, NoisyLine())

    def end(epoch):
        raise TimeoutError

    settings = replace(SETTINGS, checkpoint_epochs=100)
    with pytest.raises(TimeoutError):
        train(Network(), NoisyLine(), settings=settings, checkpoint=tmp_path / "state", on_epoch=end)
    continued, epochs = Network(), []
    train(continued, NoisyLine(), settings=settings, checkpoint=tmp_path / "state", on_epoch=epochs.append)
    assert [epoch.number for epoch in epochs] == [2, 3, 4, 5, 6]
    assert torch.equal(weights_of(continued), weights_of(uninterrupted))


def test_collating_in_other_processes_does_not_change_the_result():
    models = Network(), Network()
    histories = [train(model, NoisyLine(), NoisyLine(20), workers=n) for model, n in zip(models, (0, 2), strict=True)]
    assert histories[0] == histories[1]
    assert torch.equal(*map(weights_of, models))


def test_checkpoints_are_written_every_few_epochs_and_at_the_end(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints, "write", lambda file, state, identity: written.append(state.progress.epoch - 1))
    train(Network(), NoisyLine(), settings=replace(SETTINGS, checkpoint_epochs=4), checkpoint=tmp_path / "state")
    assert written == [4, 6]


def test_finished_training_is_not_repeated(tmp_path):
    first, second, epochs = Network(), Network(), []
    train(first, NoisyLine(), checkpoint=tmp_path / "state")
    train(second, NoisyLine(), checkpoint=tmp_path / "state", on_epoch=epochs.append)
    assert not epochs
    assert torch.equal(weights_of(first), weights_of(second))


def test_seed_determines_the_result():
    models = [Network(), Network(), Network()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, NoisyLine(), seed=seed)
    assert torch.equal(weights_of(models[0]), weights_of(models[1]))
    assert not torch.equal(weights_of(models[0]), weights_of(models[2]))


def test_training_stops_when_the_held_out_loss_no_longer_falls():
    epochs = []
    settings = TrainingSettings(epochs=200, batch_size=8, learning_rate=0.02, patience=3, device="cpu")
    train(Network(), NoisyLine(), NoisyLine(20, slope=-3.0), settings, on_epoch=epochs.append)
    assert len(epochs) < 50
    assert not any(epoch.best for epoch in epochs[-3:])


def test_epochs_of_the_warm_up_do_not_count_as_epochs_without_progress():
    epochs = []
    settings = TrainingSettings(epochs=200, batch_size=8, learning_rate=0.02, patience=3, warm_up=40, device="cpu")
    train(Network(), NoisyLine(), NoisyLine(20, slope=-3.0), settings, on_epoch=epochs.append)
    per_epoch = math.ceil(len(NoisyLine().x) / 8)
    assert len(epochs) >= math.ceil(40 / per_epoch) + 3
    assert max(epoch.number for epoch in epochs if epoch.best) < math.ceil(40 / per_epoch)


def test_global_random_state_is_unchanged():
    model = Network()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(model, NoisyLine())
    assert torch.equal(torch.rand(3), expected)


def test_examples_count_by_their_weights():
    class TwoPoints(NoisyLine):
        def __init__(self, first_weight):
            self.x, self.slope = np.ones(2), 0.0
            self.sizes, self.weights = np.ones(2, dtype=int), np.array([first_weight, 1.0])

        def batch(self, indices, rng):
            return {"x": torch.ones(len(indices)), "y": torch.tensor([[2.0], [-1.0]])[indices, 0]}

    model = Network()
    settings = TrainingSettings(epochs=400, batch_size=2, learning_rate=0.02, device="cpu", averaging=0.5)
    train(model, TwoPoints(3.0), settings=settings)
    model.eval()
    assert model.predict(torch.ones(1)).item() == pytest.approx((3 * 2.0 - 1.0) / 4, abs=0.15)


def test_training_set_without_any_weight_is_refused():
    data = NoisyLine()
    data.weights = np.zeros(50)
    with pytest.raises(
        InputError, match="weight = 0 cannot be used: at least one of the crystals to learn from must have a weight"
    ):
        train(Network(), data)


def test_infinite_loss_is_an_error():
    class Broken(Network):
        def forward(self, batch):
            return {"square": super().forward(batch)["square"] * float("nan")}

    with pytest.raises(
        InputError, match=r"learning_rate = 0\.02 cannot be used: the loss is not finite; try a smaller learning rate"
    ):
        train(Broken(), NoisyLine())


def test_step_with_an_infinite_gradient_is_skipped():
    class Faulty(Network):
        calls = 0

        def forward(self, batch):
            self.calls += self.training
            prediction = self.predict(batch["x"])
            loss = (prediction - batch["y"]) ** 2
            if self.training and self.calls == 3:
                loss = loss + torch.sqrt((prediction - prediction.detach()) ** 2)  # 0, with the gradient 0 / 0
            return {"square": loss}

    model = Faulty()
    history = train(model, NoisyLine())
    assert torch.isfinite(weights_of(model)).all()
    assert history[-1]["train"] < history[0]["train"]


def test_anchor_holds_the_weights_near_the_initial_ones():
    def distance(anchor):
        model = Network()
        initial = weights_of(model)
        train(model, NoisyLine(), settings=replace(SETTINGS, anchor=anchor), seed=4)
        return float((weights_of(model) - initial).norm())

    free, held = distance(0.0), distance(20.0)
    assert 0 < held < 0.7 * free
    assert distance(1e9) < 1e-4 * free + 1e-6


def test_moving_average_includes_the_initial_weights():
    settings = replace(SETTINGS, epochs=1, batch_size=50, averaging=0.999, learning_rate=0.1, warm_up=1)
    model, initial = Network(), weights_of(Network())
    trainer = Trainer(model, NoisyLine(), None, settings)
    current = []
    trainer._on_epoch = lambda _epoch: current.append(weights_of(trainer._model).clone())
    trainer.train()
    assert torch.allclose(weights_of(model), 0.1 * initial + 0.9 * current[0], atol=1e-6)


def test_rates_of_the_courses():
    settings = TrainingSettings(learning_rate=2.0, epochs=10, warm_up=0)
    steps = RMSpropSteps({5: 0.2, 8: 0.1})
    assert [steps.rate(settings, step, 40, 4) for step in (0, 19, 20, 31, 32)] == [2.0, 2.0, 0.4, 0.4, 0.2]
    assert ConstantAdam().rate(settings, 39, 40, 4) == 2.0
    assert AdamWCosine().rate(settings, 39, 40, 4) == settings.rate(39, 40)


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path):
    train(Network(), NoisyLine(), checkpoint=tmp_path / "state", optimisation=ConstantAdam())
    with pytest.raises(InputError, match="other data, settings"):
        train(Network(), NoisyLine(), checkpoint=tmp_path / "state")
