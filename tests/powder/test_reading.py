"""Tests of the reading of measured patterns."""

import gzip

import numpy as np
import pytest

from hybridcsp.errors import InputError
from hybridcsp.powder import read_pattern

CU = 1.54184
X = np.arange(10, 80, 0.05)
Y = 10 + 500 * np.exp(-(((X - 30) / 0.2) ** 2)) + 300 * np.exp(-(((X - 45) / 0.2) ** 2))


def write(folder, x, y, name="pattern.xy", line="{:.3f} {:.2f}", head=""):
    file = folder / name
    file.write_text(head + "".join(line.format(a, b) + "\n" for a, b in zip(x, y, strict=True)))
    return file


@pytest.mark.parametrize(
    ("line", "head"),
    [
        ("{:.3f} {:.2f}", ""),
        ("  {:.3f}\t{:.2f}", "# sample 3\n! Cu\n"),
        ("{:.3f},{:.2f}", "Angle,Intensity\n"),
        ("{:.3f}, {:.2f}", "[Measurement conditions]\nSample,12\n\n[Scan points]\nAngle, Intensity\n"),
        ("{:.3f};{:.2f}", '\'Id: "x" Comment: "y"\n'),
        ("{:.3f} {:.2f} 3.1", "/* sample */\n"),
        ('"{:.3f}","{:.2f}"', '"2theta","I"\n'),
        ("{:.6e}   {:.3e}", "\ufeff"),
    ],
)
def test_separators_headers_and_further_columns_are_understood(tmp_path, line, head):
    pattern = read_pattern(write(tmp_path, X, Y, line=line, head=head), wavelength=CU)
    assert np.allclose(pattern.two_theta, X, atol=1e-3)
    assert np.allclose(pattern.intensity, Y, rtol=1e-3, atol=0.01)
    assert pattern.wavelength == CU


@pytest.mark.parametrize("separator", [";", "\t", "  "])
def test_decimal_commas_are_understood(tmp_path, separator):
    file = tmp_path / "pattern.csv"
    rows = [f"{a:.3f}{separator}{b:.2f}".replace(".", ",") for a, b in zip(X, Y, strict=True)]
    file.write_text("\n".join(["Winkel;Zähler", *rows]))
    pattern = read_pattern(file, wavelength=CU)
    assert np.allclose(pattern.two_theta, X, atol=1e-3)
    assert np.allclose(pattern.intensity, Y, atol=0.01)


def test_compressed_files_are_read(tmp_path):
    plain = write(tmp_path, X, Y)
    packed = tmp_path / "pattern.xy.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(read_pattern(packed, wavelength=CU).intensity, read_pattern(plain, wavelength=CU).intensity)


def test_momentum_transfer_and_spacing_become_the_same_angles(tmp_path):
    momentum = 4 * np.pi * np.sin(np.radians(X / 2)) / CU
    over_q = read_pattern(write(tmp_path, momentum, Y, line="{:.8f} {:.2f}"), wavelength=CU, axis="q")
    spacing = 2 * np.pi / momentum
    ascending = write(tmp_path, spacing[::-1], Y[::-1], name="d.xy", line="{:.8f} {:.2f}")
    descending = write(tmp_path, spacing, Y, name="e.xy", line="{:.8f} {:.2f}")
    for pattern in (over_q, *(read_pattern(file, wavelength=CU, axis="d") for file in (ascending, descending))):
        assert np.allclose(pattern.two_theta, X, atol=1e-4)
        assert np.allclose(pattern.intensity, Y, atol=0.01)


def test_momentum_transfer_beyond_the_reach_of_the_wavelength_is_left_out(tmp_path):
    momentum = np.linspace(0.5, 20, 2000)
    file = write(tmp_path, momentum, 1 + np.exp(-((momentum - 3) ** 2) * 100))
    pattern = read_pattern(file, wavelength=CU, axis="q")
    assert pattern.two_theta[-1] < 161


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("".join(f"{y:.2f}\n" for y in Y), "one column of numbers, but two are needed"),
        ("10 90 0.05 title\n" + "".join(f"{y:.2f}\n" for y in Y), "one column"),
        ("angle\n", "no line of it has two numbers"),
        ("", "no line of it has two numbers"),
        ("10 5\n10.1 6\nmissing 7\n", "line 3 is not two numbers: 'missing 7'"),
        ("10 5\n10.1 6\n10.2\n", "line 3 has one column"),
        ("10 5\n10.1 nan\n", "line 2 has a value that is not a finite number"),
        ("# two\n10 5\n10.2 6\n10.1 7\n10.3 7\n", "10.1 in line 4 follows 10.2"),
        ("10 5\n10.1 6\n10.1 7\n", "10.1 in line 3 follows 10.1"),
        ("30 5\n20 6\n10 7\n", "give axis = 'd'"),
        ("-5 5\n10 6\n20 7\n", "first angle, -5, is not positive"),
        ("10 5\n100 6\n200 7\n", "at most 180 degrees"),
        ("10 5\n40 -60\n60 100\n", "negative intensity, -60 near line 2"),
        ("10 0\n40 0\n60 0\n", "none of its intensities is positive"),
        ("20.1 100\n30.5 40\n45.2 80\n", "it has 3 points"),
    ],
)
def test_files_that_are_no_pattern_are_refused_with_the_reason(tmp_path, content, message):
    file = tmp_path / "pattern.xy"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_pattern(file, wavelength=CU)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("x", "axis", "message"),
    [
        (np.linspace(0.8, 7.5, 500), "two-theta", "probably Q in Å⁻¹: give --xrd-axis q"),
        (np.linspace(0.02, 0.9, 500), "two-theta", "probably Q in Å⁻¹"),
        (np.linspace(10, 90, 500), "q", "angles 2θ in degrees need --xrd-axis two-theta"),
        (np.linspace(0.05, 0.9, 500), "q", "must be multiplied by 2π or 4π"),
        (np.linspace(10, 90, 500), "d", "no spacings d in Å of a crystal: the smallest is 10"),
    ],
)
def test_values_of_another_axis_are_recognised(tmp_path, x, axis, message):
    file = write(tmp_path, x, 1 + np.exp(-((x - x.mean()) ** 2)))
    with pytest.raises(InputError) as caught:
        read_pattern(file, wavelength=CU, axis=axis, key="--xrd", axis_key="--xrd-axis")
    assert message in str(caught.value)
    assert str(caught.value).startswith("--xrd = ")


def test_long_spacings_at_large_wavelength_are_angles_of_a_synchrotron(tmp_path):
    """The same angles are impossible for copper and plausible for a short wavelength."""
    x = np.linspace(0.5, 12, 1000)
    file = write(tmp_path, x, 1 + np.exp(-((x - 5) ** 2) * 100), line="{:.5f} {:.4f}")
    with pytest.raises(InputError):
        read_pattern(file, wavelength=CU)
    assert read_pattern(file, wavelength=0.4).two_theta[-1] == 12


def test_noise_around_a_subtracted_background_is_kept(tmp_path):
    file = write(tmp_path, X, Y - 12)
    assert read_pattern(file, wavelength=CU).intensity.min() < 0


@pytest.mark.parametrize("name", ["nothing.xy", "."])
def test_missing_files_and_folders_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="pattern = "):
        read_pattern(tmp_path / name, wavelength=CU)


def test_unknown_axes_are_refused(tmp_path):
    with pytest.raises(InputError, match="one of two-theta, q, d"):
        read_pattern(tmp_path / "pattern.xy", wavelength=CU, axis="2theta")
