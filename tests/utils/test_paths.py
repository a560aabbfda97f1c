"""Paths that begin with ``~``."""

import pytest
from ase.calculators.emt import EMT

from hybridcsp import Problem
from hybridcsp.errors import HybridCSPError
from hybridcsp.generators.loading import open_generator
from hybridcsp.prototypes.templates import TemplateLibrary
from hybridcsp.relaxation.calculators.server.identity import describe
from hybridcsp.retraining import Retraining
from hybridcsp.sources.seeds import SeedsSource

UNKNOWN = "~no_such_user/file"


@pytest.mark.parametrize(
    "read",
    [
        lambda: SeedsSource(Problem("Cu"), UNKNOWN),
        lambda: TemplateLibrary(UNKNOWN),
        lambda: Retraining(replay_data=UNKNOWN),
        lambda: open_generator(UNKNOWN),
    ],
)
def test_the_home_of_an_unknown_user_is_a_folder_that_is_not_there(read):
    with pytest.raises(HybridCSPError):
        read()


def test_parameters_of_a_calculator_may_look_like_paths_of_an_unknown_user():
    calculator = EMT()
    calculator.parameters = {"file": UNKNOWN, "folder": "~no_such_user"}
    assert f"file={UNKNOWN}" in describe(calculator)
