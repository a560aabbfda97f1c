"""The abstract base class of generators and its defaults."""

import pytest
from toys import Toy

from hybridcsp.errors import GeneratorError
from hybridcsp.generators.base import Generator, Request, equal_requests


def test_methods_without_defaults_must_be_implemented():
    class Incomplete(Generator):
        name = "incomplete"

    with pytest.raises(TypeError, match="abstract method"):
        Incomplete()


def test_traits_have_defaults():
    class Minimal(Toy):
        batch_size = Generator.batch_size

    generator = Minimal()
    assert (generator.batch_size, generator.best_first, generator.caches_samples) == (48, False, False)
    assert (generator.effort, dict(generator.fine_tuning), generator.learns) == (1.0, {}, True)


def test_class_without_from_scratch_cannot_start_untrained():
    with pytest.raises(GeneratorError, match=r"Toy cannot start untrained, .* define from_scratch\(\)"):
        Toy.from_scratch()


def test_generator_without_an_encoder_cannot_reconstruct():
    assert not Toy.reconstructs
    with pytest.raises(GeneratorError, match=r"Toy cannot reconstruct crystals, .* define reconstruct\(\)"):
        Toy().reconstruct([])


def test_equal_requests_are_grouped_in_the_order_of_their_first_occurrence():
    requests = [Request(contents={"Cu": n}, spacegroup=group) for n, group in ((2, 1), (1, None), (2, 1), (2, 2))]
    assert equal_requests(requests) == [[0, 2], [1], [3]]
