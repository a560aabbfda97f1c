import pytest
from wyckoff_examples import CRYSTALS, TINY, polar

from hybridcsp.generators.base import Example
from hybridcsp.generators.wyckoff import WyckoffGenerator
from hybridcsp.generators.wyckoff.tables import WyckoffTables


@pytest.fixture(scope="session")
def positions():
    return WyckoffTables.tabulate()


@pytest.fixture(scope="session")
def untrained(positions):
    """Random weights that remember some crystals."""
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit([Example(atoms=atoms) for atoms in CRYSTALS], epochs=1, batch_size=4, device="cpu")
    return generator


@pytest.fixture(scope="session")
def overfitted():
    generator = WyckoffGenerator(TINY, TINY)
    generator.fit(
        [Example(atoms=polar(), weight=1.0)],
        epochs=250,
        batch_size=1,
        learning_rate=0.01,
        warm_up=5,
        patience=1000,
        averaging=0.9,
        device="cpu",
    )
    return generator
