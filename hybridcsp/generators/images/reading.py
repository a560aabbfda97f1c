"""Reading of crystals of wanted contents from decoded images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.voxel_grid import VoxelGrid
from hybridcsp.structure.representations.voxel_peaks import find_peaks
from hybridcsp.structure.representations.voxels import (
    AxisReading,
    CellDecoder,
    MetricFit,
    VoxelDecoder,
    VoxelImages,
    assemble,
)

# Reasons for rejection are recorded in event logs and must not change.
OTHER_CONTENTS = "the decoded images show other numbers of atoms"


class Reading(ABC):
    """Abstract base class of ways to read a crystal from images."""

    @abstractmethod
    def read(self, images: VoxelImages, grid: VoxelGrid, contents: Mapping[int, int] | None) -> Atoms:
        """Return the crystal in images.

        Parameters
        ----------
        images
            Images of the cell and of the wanted elements.
        grid
            Their sizes.
        contents
            Number of atoms of each wanted element by atomic number; ``None`` for whatever contents the images show.

        Raises
        ------
        DecodingError
            If the images show no crystal, or one of other contents.
        """


@dataclass(frozen=True)
class FixedThreshold(Reading):
    """Peaks above a fixed height are atoms, as published; crystals of other contents are rejected.

    Attributes
    ----------
    decoder
        How images are read.
    """

    decoder: VoxelDecoder = field(default_factory=lambda: VoxelDecoder(cell=AxisReading()))

    def read(self, images: VoxelImages, grid: VoxelGrid, contents: Mapping[int, int] | None) -> Atoms:
        """Return the crystal in images if it has the wanted contents."""
        atoms = self.decoder.decode(images, grid)
        if contents and any((atoms.numbers == number).sum() != n for number, n in contents.items()):
            raise DecodingError(OTHER_CONTENTS)
        return atoms


@dataclass(frozen=True)
class WantedPeaks(Reading):
    """The highest peaks are atoms, as many as are wanted of each element.

    Decoded peaks are lower and broader than drawn ones, where the network is unsure. The wanted number of atoms decides
    where the threshold lies, between two limits: no atom is invented where an image has no peak, and no clear peak is
    passed over.

    Attributes
    ----------
    cell
        Reading of the cell.
    lowest
        Atoms have peaks of at least this height.
    highest
        Peaks above this height must be atoms.
    """

    cell: CellDecoder = field(default_factory=MetricFit)
    lowest: float = 0.1
    highest: float = 0.5

    def read(self, images: VoxelImages, grid: VoxelGrid, contents: Mapping[int, int] | None) -> Atoms:
        """Return the crystal of the wanted contents; if any are wanted, one with an atom at every clear peak."""
        if contents is None:
            return VoxelDecoder(cell=self.cell, lowest_peak=self.highest).decode(images, grid)
        positions = {}
        for number, n in contents.items():
            peaks = find_peaks(images.sites[number], self.lowest, grid)
            order = np.argsort(-peaks.heights, kind="stable")
            if len(order) < n or (len(order) > n and peaks.heights[order[n]] > self.highest):
                raise DecodingError(OTHER_CONTENTS)
            positions[number] = peaks.positions[order[:n]]
        return assemble(self.cell.metric(images.cell, grid.width), positions, grid)
