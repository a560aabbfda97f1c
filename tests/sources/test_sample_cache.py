"""Samples of a program that are kept in a run directory."""

from collections import Counter

import pytest
from crystals import rutile

from hybridcsp.errors import ArchiveError
from hybridcsp.generators.selection import SelectedSample, Selection
from hybridcsp.similarity import compute_descriptors
from hybridcsp.sources import sample_cache


def test_samples_are_read_back_and_damage_is_reported_with_advice(tmp_path):
    file = tmp_path / "samples.extxyz"
    atoms = rutile()
    chosen = SelectedSample(
        atoms=atoms, units=2, spacegroup=136, described=compute_descriptors(atoms), log_likelihood=-3.5
    )
    sample_cache.write(Selection(chosen=(chosen,), rejects=Counter({"too close": 3})), file)
    found = sample_cache.read(file)
    assert (found.chosen[0].units, found.chosen[0].spacegroup, found.chosen[0].log_likelihood) == (2, 136, -3.5)
    assert found.rejects == {"too close": 3}
    text = file.read_text()
    for damaged in ("", text[:-20], text.replace("units=", "unity="), "nonsense"):
        file.write_text(damaged)
        with pytest.raises(ArchiveError, match="delete it"):
            sample_cache.read(file)
