import math

import pytest

from hybridcsp.errors import InputError
from hybridcsp.utils.quantities import read_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("50", "GPa", 50),
        ("50GPa", "GPa", 50),
        ("50 gpa", "GPa", 50),
        ("500 kbar", "GPa", 50),
        ("0.5 Mbar", "GPa", 50),
        ("1 eV/Å³", "GPa", 160.21766208),
        ("8h", "hours", 8),
        ("30 min", "hours", 0.5),
        ("1-12:00:00", "hours", 36),
        ("00:10:00", "seconds", 600),
        ("10min", "seconds", 600),
        ("1.7 Å", "Å", 1.7),
        ("1.7A", "Å", 1.7),
        ("20 meV/Å", "eV/Å", 0.02),
        ("4 GiB", "bytes", 4 * 1024**3),
        ("-1e-3", "", -0.001),
    ],
)
def test_numbers_with_units_are_converted(text, unit, value):
    assert math.isclose(read_quantity("key", text, unit), value)


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("high", "GPa", "a pressure in GPa"),
        ("nan", "GPa", "a pressure in GPa"),
        ("1e999", "GPa", "finite"),
        ("50 eV", "GPa", "the known units are GPa"),
        ("50 Å", "", "a number without a unit"),
        ("1,5", "GPa", "with a decimal point, such as 1.5"),
        ("1:30", "hours", "a time in hours"),
        ("1 MBAR", "GPa", "may mean Mbar or mbar"),
        ("1_", "GPa", "a pressure in GPa"),
        ("1__0", "", "a number"),
        ("", "Å", "a number"),
    ],
)
def test_other_texts_are_refused(text, unit, said):
    with pytest.raises(InputError, match=said):
        read_quantity("key", text, unit)
