"""Provide the queue that turns the batches of one version of a generator into proposals."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.outcomes import Outcome
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import GeneratorError
from hybridcsp.generators.selection import SelectedSample, Selection
from hybridcsp.similarity import StructureIndex, compute_descriptors
from hybridcsp.sources.base import Context
from hybridcsp.sources.batch_sampler import Batch, BatchSampler
from hybridcsp.sources.height_posterior import HeightPosterior, structure_features
from hybridcsp.sources.preselection import Alternative, Leftovers, alternatives_of, make_proposal

Floats = NDArray[np.float64]

#: Fraction of a batch that is proposed before the next one is sampled, unless energies select among its samples.
PROPOSED_FRACTION = 1 / 3

#: Number of first proposals that are single samples even if jobs of several are allowed: the most likely samples of a
#: model are right so often that energies of others would be wasted.
FIRST_CHOICES = 3


class BatchQueue:
    """Propose the samples of one version of a generator, batch after batch.

    Its state changes in :meth:`proposed` and :meth:`observe` only.

    Parameters
    ----------
    sampler
        Source of the batches.
    version, name
        Version and name of the generator.
    known
        Index of the crystals that any version has proposed; shared by all queues.
    samples_per_job
        Largest number of samples of which one job relaxes the most promising.
    posterior
        Posterior of the heights in which samples end, by which they are put in order; ``None`` for the order of the
        selection.
    """

    def __init__(
        self,
        sampler: BatchSampler,
        version: int,
        name: str,
        known: StructureIndex,
        samples_per_job: int,
        posterior: HeightPosterior | None,
    ) -> None:
        self._sampler = sampler
        self._version = version
        self._name = name
        self._known = known
        self._samples_per_job = samples_per_job
        self._posterior = posterior
        self._features: dict[tuple[int, int], Floats] = {}  # of samples by batch and position
        self._batch: Batch | None = None
        self._leftovers = Leftovers(lambda tag: (tag["version"], tag["batch"], tag["position"]))

    @property
    def has_leftover(self) -> bool:
        """Whether a sample of an earlier job is to be relaxed next, which needs no new batch."""
        return self._leftovers.next is not None

    def propose(self, context: Context) -> Proposal:
        """Return the next proposal.

        Raises
        ------
        BatchPendingError
            If the next batch is being sampled in the background.
        GeneratorError
            If the generator raises or makes nothing that can be used.
        """
        start = time.perf_counter()
        if self._leftovers.next is not None:
            leftover = self._ranked_leftovers(context.rng)[0]
            return make_proposal(self._name, [leftover], {"estimate": leftover.estimate}, time.perf_counter() - start)
        directory = context.archive.directory
        batch, positions = self._batch, []
        if batch is not None:
            positions = self._next_positions(self._sampler.select(self._version, batch, directory), batch, context.rng)
        is_new = batch is None or not positions
        if batch is None or is_new:
            batch = self._sampler.new_batch(context.rng, first=batch is None)
            positions = self._next_positions(self._sampler.select(self._version, batch, directory), batch, context.rng)
        selection = self._sampler.select(self._version, batch, directory)
        ranked = self._ranked_leftovers(context.rng)
        if not positions and not ranked:
            raise GeneratorError(f"{self._name} made nothing that can be used: {_reasons(selection)}")
        if not positions:
            extra = {"estimate": ranked[0].estimate}
            return make_proposal(self._name, ranked[:1], extra, time.perf_counter() - start)
        chosen = [self._alternative(batch, position, selection.chosen[position]) for position in positions]
        best = [leftover for leftover in ranked if len(leftover.atoms) == len(chosen[0].atoms)][:1]
        if best:
            chosen = [*chosen[: self._samples_per_job - 1], *best]
        about_batch = {"samples": batch.samples, "rejects": dict(selection.rejects)} if is_new else {}
        return make_proposal(self._name, chosen, about_batch, time.perf_counter() - start)

    def proposed(self, candidate: Candidate) -> None:
        """Record which samples a candidate was made from."""
        alternatives = alternatives_of(candidate)
        new = [one for one in alternatives if one.tag not in self._leftovers]
        self._leftovers.proposed(candidate.id, alternatives)
        if not new:
            return
        tag = candidate.proposal.tag
        if self._batch is None or self._batch.seed != tag["batch"]:
            self._batch = Batch(seed=int(tag["batch"]), samples=int(tag["samples"]))
        self._batch.proposed.update(int(one.tag["position"]) for one in new)
        for one in new:
            self._known.add(len(self._known), compute_descriptors(one.atoms))

    def observe(self, outcome: Outcome) -> None:
        """Record the energies of the samples of a job."""
        self._leftovers.observe(outcome)

    @property
    def _energies_select(self) -> bool:
        return self._samples_per_job > 1 and len(self._known) >= FIRST_CHOICES

    def _next_positions(self, selection: Selection, batch: Batch, rng: np.random.Generator) -> list[int]:
        """Return the positions of the samples of the next job; none if the next batch is due."""
        limit = len(selection.chosen) if self._energies_select else max(1, round(PROPOSED_FRACTION * batch.samples))
        if len(batch.proposed) >= limit:
            return []
        found: list[int] = []
        for position in self._in_order(selection, batch, rng):
            sample = selection.chosen[position]
            same_contents = not found or sample.units == selection.chosen[found[0]].units
            if same_contents and self._known.find(sample.described) is None:
                found.append(position)
                if len(found) == (self._samples_per_job if self._energies_select else 1):
                    break
        return found

    def _in_order(self, selection: Selection, batch: Batch, rng: np.random.Generator) -> list[int]:
        """Return the positions that were not proposed, those that promise the lowest heights first.

        Samples that are estimated not to meet the condition of the search come last.
        """
        left = [position for position in range(len(selection.chosen)) if position not in batch.proposed]
        if self._posterior is not None and left:
            features = [self._features_of(batch.seed, position, selection.chosen[position].atoms) for position in left]
            heights = self._posterior.draw(features, rng)
            left = left if heights is None else [left[rank] for rank in np.argsort(heights, kind="stable").tolist()]
        return sorted(left, key=lambda position: selection.chosen[position].disfavoured)

    def _ranked_leftovers(self, rng: np.random.Generator) -> list[Alternative]:
        """Return the samples of earlier jobs that were not relaxed, those that promise the lowest heights first."""
        ranked = self._leftovers.ranked()
        if self._posterior is None or not ranked:
            return ranked
        features = [self._features_of(one.tag["batch"], one.tag["position"], one.atoms) for one in ranked]
        estimates = [one.estimate for one in ranked if one.estimate is not None]
        heights = self._posterior.draw(features, rng, estimates)
        return ranked if heights is None else [ranked[rank] for rank in np.argsort(heights, kind="stable").tolist()]

    def _features_of(self, batch: int, position: int, atoms: Atoms) -> Floats:
        key = batch, position
        if key not in self._features:
            self._features[key] = structure_features(atoms)
        return self._features[key]

    def _alternative(self, batch: Batch, position: int, sample: SelectedSample) -> Alternative:
        tag: dict[str, Any] = {"version": self._version, "batch": batch.seed, "position": position}
        if sample.log_likelihood is not None:
            tag["log_likelihood"] = sample.log_likelihood
        return Alternative(sample.atoms, tag)


def _reasons(selection: Selection) -> str:
    """Return the reasons for which the samples of a batch cannot be proposed."""
    reasons = [", ".join(f"{count} {reason}" for reason, count in selection.rejects.most_common())]
    if selection.chosen:
        reasons.append(f"{len(selection.chosen)} proposed before")
    return "; ".join(filter(None, reasons))
