"""Training of networks that compete."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_training import weights_of

from hybridcsp.errors import InputError
from hybridcsp.training.adversarial import AdversarialAdam, AdversarialModel, AdversarialTrainer, Turn
from hybridcsp.training.adversarial_losses import CrossEntropy, SoftplusDifference, Wasserstein
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.stability import collapse, divergence

SETTINGS = TrainingSettings(
    epochs=4, batch_size=8, learning_rate=0.01, averaging=0.0, patience=100, clip=1e3, device="cpu"
)


class Points:
    """Points around 2 on a line."""

    def __init__(self, n=32):
        self.x = np.random.default_rng(3).normal(2.0, 0.5, size=(n, 1))
        self.weights = np.ones(n)
        self.sizes = np.ones(n, dtype=int)

    def batch(self, indices, rng):
        return {"x": torch.tensor(self.x[indices] + 0.01 * rng.normal(size=(len(indices), 1)), dtype=torch.float32)}


class Competition(AdversarialModel):
    """A critic of points, and a generator that shifts and stretches noise."""

    def __init__(self, loss=None, every=2):
        super().__init__()
        torch.manual_seed(0)
        self.critic = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))
        self.generator = torch.nn.Linear(1, 1)
        self.loss, self.every = loss or Wasserstein(), every
        self.won = self.loss.won

    def score(self, x):
        return self.critic(x)[:, 0]

    def turns(self):
        return [
            Turn(name="critic", parameters=list(self.critic.parameters()), losses=self.of_critic),
            Turn(
                name="generator", parameters=list(self.generator.parameters()), losses=self.of_points, every=self.every
            ),
        ]

    def of_critic(self, batch):
        with torch.no_grad():
            fake = self.generator(torch.randn(len(batch["x"]), 1))
        return self.loss.of_critic(self.score, batch["x"], fake)

    def of_points(self, batch):
        fake = self.generator(torch.randn(len(batch["x"]), 1))
        return {"score": self.loss.of_generator(self.score(fake))}


def near(model, rng):
    """Measure how many points are near the crystals, and how spread they are."""
    x = model.generator(torch.tensor(rng.normal(size=(64, 1)), dtype=torch.float32)).detach().numpy()
    return {"validity": float((abs(x - 2) < 1).mean()), "coverage": min(1.0, float(x.std()) / 0.5)}


@pytest.mark.parametrize("loss", [Wasserstein(1.0), CrossEntropy()])
def test_generator_learns_the_distribution_of_the_data(loss):
    model, epochs = Competition(loss), []
    settings = TrainingSettings(epochs=40, batch_size=8, learning_rate=0.03, averaging=0.0, patience=100, device="cpu")
    before = near(model, np.random.default_rng(0))["validity"]
    AdversarialTrainer(model, Points(), settings, near, on_epoch=epochs.append).train()
    with torch.no_grad():
        assert before < 0.25 < 0.5 < near(model, np.random.default_rng(0))["validity"]
    best = min(epochs, key=lambda epoch: epoch.losses["held_out"])
    assert best.best
    assert set(best.losses) >= {"held_out", "critic", "generator", "validity", "coverage"}


@pytest.mark.parametrize("stopped_at", [2, 9])
def test_interrupted_and_continued_training_equals_an_uninterrupted_one(tmp_path, stopped_at):
    options = {"seed": 4, "optimisation": AdversarialAdam(factors={"critic": 2.0}, decay=0.5, epochs=2)}
    uninterrupted = Competition()
    history = AdversarialTrainer(uninterrupted, Points(), SETTINGS, near, **options).train()

    class Interrupted(Points):
        calls = 0

        def batch(self, indices, rng):
            self.calls += 1
            if self.calls == stopped_at:
                raise KeyboardInterrupt
            return super().batch(indices, rng)

    trainer = AdversarialTrainer(Competition(), Points(), SETTINGS, near, checkpoint=tmp_path / "state", **options)
    trainer._training = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    continued = Competition()
    again = AdversarialTrainer(continued, Points(), SETTINGS, near, checkpoint=tmp_path / "state", **options).train()
    assert again == history
    assert torch.equal(weights_of(continued), weights_of(uninterrupted))


def test_training_goes_on_with_the_last_weights_until_samples_are_useful():
    def useless(model, rng):
        return {"validity": 0.5, "coverage": 0.0}

    epochs, first, last = [], Competition(), Competition()
    settings = TrainingSettings(epochs=5, batch_size=8, learning_rate=0.01, averaging=0.0, patience=2, device="cpu")
    AdversarialTrainer(first, Points(), replace(settings, epochs=1), near).train()
    AdversarialTrainer(last, Points(), settings, useless, on_epoch=epochs.append).train()
    assert [epoch.best for epoch in epochs] == [True] * 5
    assert not torch.allclose(weights_of(first), weights_of(last))

    shares = iter([0.0, 0.0, 0.5, 0.0, 0.0, 0.9])

    def useful_for_a_while(model, rng):
        return {"validity": 0.5, "coverage": next(shares)}

    model, epochs = Competition(), []
    AdversarialTrainer(model, Points(), replace(settings, epochs=6), useful_for_a_while, on_epoch=epochs.append).train()
    assert [epoch.best for epoch in epochs] == [True, True, True, False, False]


def test_networks_take_their_turns():
    model, taken = Competition(every=3), []
    turns = model.turns()
    model.turns = lambda: [
        Turn(
            name=turn.name,
            parameters=turn.parameters,
            losses=lambda batch, turn=turn: taken.append(turn.name[0]) or turn.losses(batch),
            every=turn.every,
            times=turn.every - 1 or 1,
        )
        for turn in turns
    ]
    AdversarialTrainer(model, Points(), SETTINGS, near).train()
    assert "".join(taken).startswith("cggcccggccc")


def test_weights_of_the_best_epoch_are_kept_when_samples_get_worse():
    model, measured = Competition(), iter([0.2, 0.9, 0.4, 0.1])
    kept = []

    def measure(model, rng):
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"validity": next(measured), "coverage": 1.0}

    AdversarialTrainer(model, Points(), SETTINGS, measure).train()
    assert all(torch.equal(value, kept[1][name]) for name, value in model.state_dict().items())


def test_lost_steps_are_reported_and_losses_that_are_not_finite_end_a_training_that_has_none_other():
    model, epochs = Competition(), []
    of_critic = model.of_critic
    model.of_critic = lambda batch: {k: v * (np.nan if batch["x"][0] > 2 else 1) for k, v in of_critic(batch).items()}
    AdversarialTrainer(model, Points(), SETTINGS, near, on_epoch=epochs.append).train()
    assert any("steps were not finite" in epoch.warning for epoch in epochs)
    assert torch.isfinite(weights_of(model)).all()
    broken = Competition()
    broken.of_critic = broken.of_points = lambda batch: {"a": of_critic(batch)["distance"] * np.nan}
    with pytest.raises(InputError, match="smaller learning rate"):
        AdversarialTrainer(broken, Points(), SETTINGS, near).train()


def test_collapse_and_divergence_are_recognised():
    steady = [{"coverage": 0.5, "diversity": 0.8, "critic": -1.0, "generator": 0.2}] * 8
    assert not collapse(steady)
    assert not divergence(steady, ["critic", "generator"], None, 0)
    assert "almost equal" in collapse([*steady, *[{"coverage": 0.5, "diversity": 0.01}] * 5])
    assert "cover 5 % of the crystals, after 50 %" in collapse([*steady, *[{"coverage": 0.05}] * 5])
    assert "critic is 900" in divergence([*steady, {"critic": -900.0}], ["critic"], None, 0)
    assert "recognises all samples" in divergence([{"critic": 0.001}] * 5, ["critic"], 0.0, 0)


def test_penalty_of_the_gradient_vanishes_for_a_critic_of_slope_one():
    real, fake = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    terms = Wasserstein().of_critic(lambda x: x[:, 0, 0] + 4, real, fake)
    assert terms["penalty"].abs().max() < 1e-9
    assert torch.allclose(terms["distance"], fake[:, 0, 0] - real[:, 0, 0])
    steep = Wasserstein(2.0).of_critic(lambda x: 3 * x[:, 0, 0], real, fake)
    assert steep["penalty"].allclose(torch.full((5,), 8.0))


def test_difference_of_softplus_has_no_lowest_value():
    high, low = torch.full((2, 1), 100.0), torch.full((2, 1), -100.0)
    difference = SoftplusDifference().of_critic(lambda x: x[:, 0], low, high)["difference"]
    assert (difference < -99).all()
