"""Stands in for Quantum ESPRESSO's pw.x: reads its input, answers in the format of pw.x 6.7 with a Morse potential.

It needs the standard library alone, because every step of a relaxation starts it anew.
"""

# ruff: noqa: T201 - what it prints is its output file

import itertools
import math
import sys

RYDBERG, BOHR = 13.605693, 0.52917721
DEPTH, STEEPNESS, DISTANCE, REACH = 0.5, 1.5, 2.5, 6.5  # eV, 1/Å, Å, Å


def block(lines, head, n):
    start = next(number for number, line in enumerate(lines) if line.startswith(head)) + 1
    return [line.split() for line in lines[start : start + n]]


def cross(a, b):
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def pair(distance):
    """Energy (eV) of a pair and its slope (eV/Å)."""
    decay = math.exp(-STEEPNESS * (distance - DISTANCE))
    return DEPTH * (decay**2 - 2 * decay), 2 * DEPTH * STEEPNESS * (decay - decay**2)


def morse(cell, positions):
    """Energy (eV), forces (eV/Å), derivative by strain (eV) and volume (Å³); smooth where the potential ends."""
    last_energy, last_slope = pair(REACH)
    volume = abs(dot(cell[0], cross(cell[1], cell[2])))
    repeats = []
    for axis in range(3):
        normal = cross(cell[axis - 2], cell[axis - 1])
        repeats.append(math.ceil(REACH * math.sqrt(dot(normal, normal)) / volume) + 1)
    energy, forces, virial = 0.0, [[0.0] * 3 for _ in positions], [[0.0] * 3 for _ in range(3)]
    for shift in itertools.product(*(range(-n, n + 1) for n in repeats)):
        offset = [sum(shift[k] * cell[k][x] for k in range(3)) for x in range(3)]
        for i, here in enumerate(positions):
            for there in positions:
                vector = [there[x] + offset[x] - here[x] for x in range(3)]
                distance = math.sqrt(dot(vector, vector))
                if 1e-6 < distance < REACH:
                    own, slope = pair(distance)
                    energy += 0.5 * (own - last_energy - last_slope * (distance - REACH))
                    slope -= last_slope
                    for x in range(3):
                        forces[i][x] += slope * vector[x] / distance
                        for y in range(3):
                            virial[x][y] += 0.5 * slope * vector[x] * vector[y] / distance
    return energy, forces, virial, volume


GPA = 0.006241509  # eV/Å³


def setting(lines, name, default=""):
    found = [line.split("=")[1].strip(" ,'") for line in lines if line.split("=")[0].strip() == name]
    return found[0] if found else default


def relaxed(cell, positions, pressure):
    """Cell and positions scaled to the minimum of the enthalpy, by golden sections."""

    def scaled(factor):
        return [[factor * x for x in axis] for axis in cell], [[factor * x for x in row] for row in positions]

    def enthalpy(factor):
        energy, _, _, volume = morse(*scaled(factor))
        return energy + pressure * volume

    low, high, ratio = 0.8, 1.25, (math.sqrt(5) - 1) / 2
    while high - low > 1e-5:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if enthalpy(left) < enthalpy(right) else (left, high)
    return scaled((low + high) / 2)


def report(cell, positions):
    """Print what pw.x prints of one structure."""
    energy, forces, virial, volume = morse(cell, positions)
    print(f"!    total energy              = {energy / RYDBERG:17.8f} Ry\n")
    print("     Forces acting on atoms (cartesian axes, Ry/au):\n")
    for number, force in enumerate(forces, 1):
        shown = "".join(f"{x / RYDBERG * BOHR:14.8f}" for x in force)
        print(f"     atom {number:4d} type  1   force = {shown}")
    print("\n     Computing stress (Cartesian axis) and pressure\n")
    print("          total   stress  (Ry/bohr**3)                   (kbar)     P=        0.15")
    for row in virial:
        shown = [-x / volume / RYDBERG * BOHR**3 for x in row]
        print("".join(f"{x:14.8f}" for x in shown) + "".join(f"{x * 147105.08:12.2f}" for x in shown))


print("\n     Program PWSCF v.6.7MaX starts on 23Nov2026 at  5: 5:12 \n")
if "-in" not in sys.argv:
    sys.exit("no input")
with open(sys.argv[sys.argv.index("-in") + 1]) as file:  # noqa: PTH123 - to import less
    text = [line.strip() for line in file]
if not {"tstress          = .true.", "tprnfor          = .true."} <= set(text):
    sys.exit("no forces and stress were asked for")
count = int(next(line for line in text if line.startswith("nat ")).split("=")[1])
axes = [[float(x) for x in row] for row in block(text, "CELL_PARAMETERS angstrom", 3)]
atoms = [(row[0], [float(x) for x in row[1:4]]) for row in block(text, "ATOMIC_POSITIONS angstrom", count)]
places = [position for _, position in atoms]
alat = math.sqrt(dot(axes[0], axes[0]))

print(f"     number of atoms/cell      = {count:12d}\n     number of atomic types    = {1:12d}\n")
print(f"     celldm(1)={alat / BOHR:11.6f}  celldm(2)=   0.000000  celldm(3)=   0.000000\n")
print("     crystal axes: (cart. coord. in units of alat)")
for number, axis in enumerate(axes, 1):
    print(f"               a({number}) = (" + "".join(f"{x / alat:11.6f}" for x in axis) + " )  ")
print("\n   Cartesian axes\n\n     site n.     atom                  positions (alat units)")
for number, (symbol, position) in enumerate(atoms, 1):
    shown = "".join(f"{x / alat:12.7f}" for x in position)
    print(f"{number:10d}{symbol:>13s}  tau({number:4d}) = ({shown}  )")
print("\n     number of k points=     1  Marzari-Vanderbilt smearing, width (Ry)=  0.0100")
print("                       cart. coord. in units 2pi/alat")
print("        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000\n")
print("     End of self-consistent calculation\n\n          k = 0.0000 0.0000 0.0000 (   411 PWs)   bands (ev):\n")
print("    -5.7875   6.2838   6.2838   6.2838\n\n     the Fermi energy is     6.4091 ev\n")
report(axes, places)
if setting(text, "calculation") == "vc-relax":
    axes, places = relaxed(axes, places, float(setting(text, "press", "0").replace("d", "e")) / 10 * GPA)
    print("\nCELL_PARAMETERS (angstrom)")
    for row in axes:
        print("".join(f"{x:14.9f}" for x in row))
    print("\nATOMIC_POSITIONS (angstrom)")
    for (symbol, _), row in zip(atoms, places, strict=True):
        print(symbol + "".join(f"{x:14.9f}" for x in row))
    print()
    report(axes, places)
print("\n   JOB DONE.")
