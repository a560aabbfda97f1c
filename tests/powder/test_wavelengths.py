"""Tests of the wavelengths of X-rays."""

import pytest

from hybridcsp.errors import InputError
from hybridcsp.powder import read_wavelength


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CuKa", 1.54184),
        ("cuka", 1.54184),
        ("Cu", 1.54184),
        ("Cu Kα", 1.54184),
        ("Cu K-alpha", 1.54184),
        ("CuKa1", 1.54056),
        ("Cu Kα1", 1.54056),
        ("CuKb1", 1.39222),
        ("MoKa", 0.71073),
        ("1.5406", 1.5406),
        ("0.154 nm", 1.54),
        ("0.4121 Å", 0.4121),
    ],
)
def test_names_and_numbers_are_wavelengths_in_angstrom(text, expected):
    assert read_wavelength(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CuKq", "did you mean"),
        ("", "MoKa"),
        ("W", "CuKa"),
        ("0", "a wavelength from 0.1 to 3 Å"),
        ("-1.54", "a wavelength from 0.1 to 3 Å"),
        ("15.4", "a wavelength from 0.1 to 3 Å"),
        ("1.54 eV", "eV"),
    ],
)
def test_others_are_refused(text, message):
    with pytest.raises(InputError, match="--wavelength") as caught:
        read_wavelength(text, "--wavelength")
    assert message in str(caught.value)
