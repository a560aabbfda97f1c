"""Graph of a crystal."""

import numpy as np
import torch


class AtomGraphData(dict):
    @staticmethod
    def from_numpy_dict(arrays):
        kinds = {"f": torch.float32, "i": torch.int64}
        return AtomGraphData(
            {
                key: torch.from_numpy(np.asarray(value)).to(kinds[np.asarray(value).dtype.kind])
                for key, value in arrays.items()
            }
        )

    def to(self, device):
        self.update({key: value.to(device) for key, value in self.items() if isinstance(value, torch.Tensor)})
        return self
