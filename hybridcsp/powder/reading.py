"""Reading of measured powder patterns from text files of two columns, with checks of what is probably a mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnreadableError, one_of
from hybridcsp.powder.pattern import LARGEST_ANGLE, SMALLEST_SPACING, PowderPattern, angle_of_spacing
from hybridcsp.utils.reading import read_text

Array = NDArray[np.float64]

#: Quantities of the first column: the angle 2θ in degrees, the momentum transfer Q = 4π sin θ / λ in Å⁻¹, or the
#: spacing of lattice planes d in Å.
TWO_THETA, Q, D = AXES = ("two-theta", "q", "d")

#: Smallest number of points of a pattern. Lists of peaks have fewer.
FEWEST_POINTS = 50

# First characters of comments.
_COMMENT = "#!%*/\\;'\"[&$<>_@"

# Largest spacing in Å at the end of a plausible pattern: with less, no structure can be recognised.
_LAST_SPACING = 2.5

# Largest momentum transfer in Å⁻¹ and spacing in Å that are plausible.
_LARGEST_Q, _LARGEST_D = 35.0, 200.0

# Negative intensities are noise around a subtracted background if they are no more than this fraction of the largest.
_NOISE = 0.1


def read_pattern(
    file: Path | str, *, wavelength: float, axis: str = TWO_THETA, key: str = "pattern", axis_key: str = "axis"
) -> PowderPattern:
    """Read a measured powder pattern.

    The file has two columns, an angle 2θ in degrees and an intensity; further columns, such as the errors of ``.xye``
    files, are ignored. Columns are separated by spaces, tabs, commas or semicolons, and decimal commas are understood.
    Lines before the first line of numbers, and lines that begin with a sign of comments (``#`` or ``!``, for example),
    are skipped. The file may be compressed.

    Parameters
    ----------
    file
        The file.
    wavelength
        Wavelength in Å. A pattern over Q or d is converted to the angles of this wavelength.
    axis
        Quantity of the first column: ``"two-theta"``, ``"q"`` or ``"d"``.
    key, axis_key
        Names of the options or parameters for the file and the axis, for error messages.

    Raises
    ------
    InputError
        If the file cannot be read or is not a pattern: fewer than two columns, text between the numbers, angles that do
        not ascend or are impossible, negative intensities, no peaks, too few points, or values that are probably of
        another axis.
    """
    file = Path(file)
    if axis not in AXES:
        raise InputError(axis_key, axis, one_of(AXES))
    try:
        text = read_text(file)
    except UnreadableError as error:
        raise InputError(key, file, reason=error.reason) from error
    x, intensity, lines = _columns(text, file, key)
    _check_ascending(x, lines, axis, file, key, axis_key)
    if axis == D and x[0] > x[-1]:
        x, intensity = x[::-1], intensity[::-1]
    _check_axis(x, axis, wavelength, file, key, axis_key)
    _check_intensities(intensity, lines, file, key)
    if axis != TWO_THETA:
        x, intensity = _over_angles(x, intensity, axis, wavelength)
    last = min(float(x[-1]), angle_of_spacing(SMALLEST_SPACING, wavelength), LARGEST_ANGLE)
    used = int(np.sum(x <= last))
    if used < FEWEST_POINTS:
        raise InputError(
            key,
            file,
            reason=f"it has {used} points at spacings of {SMALLEST_SPACING:g} Å or more, and a pattern needs at least "
            f"{FEWEST_POINTS}; a list of peaks is no pattern, give the measured profile",
        )
    if np.ptp(intensity[:used]) == 0:
        raise InputError(key, file, reason="all of its intensities are equal, so that it has no peak")
    return PowderPattern(two_theta=x, intensity=intensity, wavelength=wavelength)


def _columns(text: str, file: Path, key: str) -> tuple[Array, Array, list[int]]:
    """Return the first two columns of a table and the numbers of its lines."""
    rows: list[tuple[float, float]] = []
    lines: list[int] = []
    single = 0
    for number, fields in _rows(text):
        values = [_number(field) for field in fields[:2]]
        if len(values) == 2 and None not in values:
            rows.append((values[0] or 0.0, values[1] or 0.0))
            lines.append(number)
        elif rows:
            shown = " ".join(fields)[:60]
            what = (
                f"line {number} has one column"
                if len(values) == 1 and values[0] is not None
                else f"line {number} is not two numbers: {shown!r}"
            )
            raise InputError(key, file, reason=f"{what}; every line must have an angle and an intensity")
        else:
            single += len(values) == 1 and values[0] is not None
    if not rows:
        if single > 1:
            reason = (
                "it has one column of numbers, but two are needed: an angle and an intensity in each line. Files that "
                "list intensities after the first angle and the step must be converted"
            )
        else:
            reason = (
                "no line of it has two numbers, an angle and an intensity; export the pattern as text (.xy or .csv) "
                "with the software of the diffractometer"
            )
        raise InputError(key, file, reason=reason)
    table = np.array(rows)
    if not np.isfinite(table).all():
        line = lines[int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])]
        raise InputError(key, file, reason=f"line {line} has a value that is not a finite number")
    return table[:, 0], table[:, 1], lines


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of every line that is neither empty nor a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        fields = _fields(stripped)
        comment = stripped[:1] and stripped[0] in _COMMENT and (not fields or _number(fields[0]) is None)
        if fields and not comment:
            yield number, fields


def _fields(line: str) -> list[str]:
    """Return the fields of a line; commas are decimal if another separator is there."""
    if ";" in line:
        parts = line.split(";")
    elif "\t" in line:
        parts = line.split("\t")
    elif re.search(r",\s", line) or not re.search(r"\s", line):
        parts = line.split(",")
    else:
        parts = line.split()
    return [part for raw in parts if (part := raw.strip().strip("\"'").strip())]


def _number(text: str) -> float | None:
    """Return a number with a decimal point or comma; ``None`` for other text."""
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None


def _check_ascending(x: Array, lines: list[int], axis: str, file: Path, key: str, axis_key: str) -> None:
    """Check that the first column ascends; spacings may descend."""
    steps = np.diff(x)
    if len(x) < 2 or (steps > 0).all() or (axis == D and (steps < 0).all()):
        return
    if (steps < 0).all():
        hint = f"; if they are spacings d in Å, give {_choice(axis_key, D)}" if axis == TWO_THETA else ""
        raise InputError(key, file, reason=f"the values of its first column descend; they must ascend{hint}")
    first = int(np.flatnonzero(steps <= 0)[0])
    raise InputError(
        key,
        file,
        reason=f"the values of its first column must ascend, but {x[first + 1]:g} in line {lines[first + 1]} follows "
        f"{x[first]:g}; join scans to one and sort them",
    )


def _choice(axis_key: str, axis: str) -> str:
    """Return the option or parameter that chooses an axis, as a user writes it."""
    return f"{axis_key} {axis}" if axis_key.startswith("-") else f"{axis_key} = {axis!r}"


def _check_axis(x: Array, axis: str, wavelength: float, file: Path, key: str, axis_key: str) -> None:
    """Check that the values of the first column are possible, and plausible for their axis."""
    low, high = float(x[0]), float(x[-1])
    name = {TWO_THETA: "angle", Q: "momentum transfer", D: "spacing"}[axis]
    if low < 0 or (low == 0 and axis == D):
        raise InputError(key, file, reason=f"its first {name}, {low:g}, is not positive")
    if axis == TWO_THETA:
        if high > 180:
            raise InputError(key, file, reason=f"its last angle is {high:g}, but angles 2θ are at most 180 degrees")
        spacing = wavelength / (2 * math.sin(math.radians(max(high, 1e-6) / 2)))
        if spacing > _LAST_SPACING:
            raise InputError(
                key,
                file,
                reason=f"its last angle, {high:g} degrees at a wavelength of {wavelength:g} Å, is a spacing of "
                f"{spacing:.3g} Å, at which no structure can be recognised. The values are probably Q in Å⁻¹: give "
                f"{_choice(axis_key, Q)} (or d for spacings in Å); otherwise check the wavelength",
            )
    elif axis == Q:
        if high > _LARGEST_Q:
            raise InputError(
                key,
                file,
                reason=f"its last value, {high:g}, is too large for Q in Å⁻¹; angles 2θ in degrees need "
                f"{_choice(axis_key, TWO_THETA)}",
            )
        if 2 * math.pi / max(high, 1e-6) > _LAST_SPACING:
            raise InputError(
                key,
                file,
                reason=f"its last value, {high:g}, is too small for Q in Å⁻¹: Q = 4π sin θ / λ; values of 1/d or "
                "sin θ / λ must be multiplied by 2π or 4π, and values in nm⁻¹ by 0.1",
            )
    elif high > _LARGEST_D or low > _LAST_SPACING:
        extreme = f"the largest is {high:g}" if high > _LARGEST_D else f"the smallest is {low:g}"
        raise InputError(key, file, reason=f"its values are no spacings d in Å of a crystal: {extreme}")


def _check_intensities(intensity: Array, lines: list[int], file: Path, key: str) -> None:
    """Check that intensities are not negative, apart from noise around a subtracted background."""
    lowest, largest = int(intensity.argmin()), float(intensity.max())
    if largest <= 0:
        raise InputError(key, file, reason="none of its intensities is positive")
    if intensity[lowest] < -_NOISE * largest:
        raise InputError(
            key,
            file,
            reason=f"it has a negative intensity, {intensity[lowest]:g} near line {lines[lowest]}, that is no noise "
            "around a subtracted background; intensities must be counts or counts per second",
        )


def _over_angles(x: Array, intensity: Array, axis: str, wavelength: float) -> tuple[Array, Array]:
    """Return a pattern over Q or d as one over angles; reflections that the wavelength does not reach are left out."""
    momentum = x if axis == Q else 2 * math.pi / x[::-1]
    if axis == D:
        intensity = intensity[::-1]
    sines = momentum * wavelength / (4 * math.pi)
    reached = sines < math.sin(math.radians(LARGEST_ANGLE / 2))
    return np.degrees(2 * np.arcsin(sines[reached])), intensity[reached]
