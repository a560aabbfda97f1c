"""Network of the occupied Wyckoff positions: given contents, it predicts the space group and then site after site.

It follows WyckoffTransformer (doi:10.48550/arXiv.2503.02407), with retrieved prototypes as additional evidence
(:mod:`hybridcsp.generators.wyckoff.retrieval`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hybridcsp.generators.wyckoff.tables import N_CHANNELS, N_GROUPS, WyckoffTables
from hybridcsp.generators.wyckoff.transformer import N_CONDITIONS, Batch, Size, Transformer

# Number of components of the summary of the retrieved prototypes.
_SUMMARY = 2 * N_CHANNELS + 1


class OccupationNetwork(Transformer):
    """Network of the probabilities of space groups and Wyckoff positions.

    Parameters
    ----------
    positions
        Tables of the Wyckoff positions.
    size
        Size of the blocks.
    """

    def __init__(self, positions: WyckoffTables, size: Size) -> None:
        super().__init__(positions, size, told=_SUMMARY + N_CONDITIONS, kinds=4)
        width = size.width
        self.following = nn.Linear(width, width)
        self.progress = nn.Linear(3, width)
        self.to_group, self.trust_group = nn.Linear(width, N_GROUPS), nn.Linear(width, N_CHANNELS)
        self.to_letter, self.trust_letter = nn.Linear(width, width), nn.Linear(width, N_CHANNELS)
        self.initialise()
        for trust in (self.trust_group, self.trust_letter):
            # The initial prediction is the evidence of crystals of similar elements.
            nn.init.normal_(trust.weight, std=1e-3)
            trust.bias.data = torch.eye(N_CHANNELS)[0]

    def beginning(self, batch: Batch) -> Tensor:
        """Return the tokens of the contents, shape ``(batch, n_elements + 1, width)``."""
        return self.contents(batch, torch.cat([batch["summary"], batch["conditions"]], dim=1))

    def group_tokens(self, group: Tensor, following: Tensor) -> Tensor:
        """Return the tokens of the space groups, shape ``(batch, 1, width)``; ``following`` is the next element."""
        return self.groups(group) + self.following(self.elements(following))[:, None]

    def sites(self, identities: Tensor, place: Tensor, following: Tensor, progress: Tensor) -> Tensor:
        """Return the tokens of occupied positions, shape ``(batch, n_sites, width)``."""
        context = self.following(self.elements(following)) + self.progress(progress)
        return identities + context + self.placed(place) + self.kind.weight[3]

    def group_logits(self, hidden: Tensor, evidence: Tensor, allowed: Tensor) -> Tensor:
        """Return the log-probabilities of the space groups, shape ``(batch, 231)``."""
        logits = self.to_group(hidden) + (evidence @ self.trust_group(hidden)[..., None])[..., 0]
        return logits.float().masked_fill(~allowed, -math.inf).log_softmax(-1)

    def letter_logits(self, hidden: Tensor, letters: Tensor, evidence: Tensor, allowed: Tensor) -> Tensor:
        """Return the log-probabilities of the letters at sites, shape ``(batch, n_sites, 27)``."""
        logits = self.to_letter(hidden) @ letters.transpose(1, 2) / math.sqrt(hidden.shape[-1])
        logits = logits + (evidence @ self.trust_letter(hidden)[..., None])[..., 0]
        return logits.float().masked_fill(~allowed, -math.inf).log_softmax(-1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the negative log-likelihoods (nats) of space group and letters, each of shape ``(batch,)``."""
        contents = self.beginning(batch)
        letters = self.letters(batch["group"])
        element = batch["elements"].gather(1, batch["slots"])
        site_valid = batch["letters"] >= 0
        identities = self.identities(letters, batch["letters"].clamp(min=0), element)
        place = torch.arange(element.shape[1], device=element.device).expand_as(element)
        following = torch.cat([element[:, 1:], torch.zeros_like(element[:, :1])], dim=1)
        sites = self.sites(identities, place, following, batch["progress"])

        tokens = torch.cat([contents, self.group_tokens(batch["group"], element[:, 0]), sites], dim=1)
        here = torch.ones_like(site_valid[:, :1])
        valid = torch.cat([batch["counts"] > 0, here, here, site_valid], dim=1)
        prefix, length = contents.shape[1], tokens.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask[:prefix, :prefix] = True
        hidden, _ = self.run(tokens, mask & valid[:, None])

        groups = self.group_logits(hidden[:, prefix - 1], batch["group_evidence"], batch["group_allowed"])
        allowed = batch["letter_allowed"] | ~site_valid[..., None]
        at = self.letter_logits(hidden[:, prefix:-1], letters, batch["letter_evidence"], allowed)
        chosen = at.gather(2, batch["letters"].clamp(min=0)[..., None])[..., 0]
        return {
            "group": -groups.gather(1, batch["group"][:, None])[:, 0],
            "letters": -torch.where(site_valid, chosen, 0.0).sum(1),
        }
