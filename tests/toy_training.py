"""A small model and training data, with which tests of training loops take milliseconds."""

from __future__ import annotations

import numpy as np
import torch

from hybridcsp.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=6, batch_size=8, learning_rate=0.02, warm_up=4, patience=100, device="cpu")


class NoisyLine:
    """Points on a line; the noise in x is drawn from the random number generator of the batch."""

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


class Network(torch.nn.Module):
    """Two layers with dropout; the loss is the squared error."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1))
        self.out = torch.nn.Linear(16, 1)

    def predict(self, x):
        return self.out(self.layers(x[:, None]))[:, 0]

    def forward(self, batch):
        return {"square": (self.predict(batch["x"]) - batch["y"]) ** 2}


def weights_of(model):
    """Return all weights of a model as one vector."""
    return torch.cat([value.flatten() for value in model.state_dict().values()])
