"""Stands in for VASP: an isotropic crystal whose energy depends on its volume, in the format of VASP 6.4.2.

It needs the standard library alone. ``vasprun.xml`` and ``OUTCAR`` hold no more than what ASE reads.
"""

# ruff: noqa: PTH123, SIM115, T201 - to import less

import re
import sys

BULK, BEST, DEPTH, KBAR = 0.6, 20.0, -5.0, 6.241509e-4  # eV/Å³, Å³ per atom, eV per atom, eV/Å³

incar = {}
for line in open("INCAR"):
    if "=" in line:
        key, value = line.split("=")
        incar[key.strip().lower()] = value.strip()
lines = open("POSCAR").read().split("\n")
cell = [[float(lines[1]) * float(x) for x in lines[row].split()] for row in (2, 3, 4)]
symbols, counts = lines[5].split(), [int(word) for word in lines[6].split()]
species = [symbol for symbol, count in zip(symbols, counts) for _ in range(count)]  # noqa: B905
places = [[float(x) for x in lines[8 + n].split()[:3]] for n in range(len(species))]


def volume(axes):
    (a, b, c), (d, e, f), (g, h, i) = axes
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


def fractional(place):
    """Return the coordinates of a place in the cell."""
    return [volume([*cell[:k], place, *cell[k + 1 :]]) * sign(k, place) / volume(cell) for k in range(3)]


def sign(k, place):
    """Return the sign of a coordinate."""
    a, b = cell[k - 2], cell[k - 1]
    normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    inside, outside = (sum(x * y for x, y in zip(normal, v)) for v in (cell[k], place))  # noqa: B905
    return 1 if inside * outside >= 0 else -1


def model(axes):
    """Return energy in eV and stress in VASP's sign in kbar."""
    best = BEST * len(species)
    strain = volume(axes) / best - 1
    return DEPTH * len(species) + BULK / 2 * best * strain**2, -BULK * strain / KBAR


def vectors(name, rows):
    return f'<varray name="{name}">' + "".join("<v>" + " ".join(map(str, row)) + "</v>" for row in rows) + "</varray>"


def structure(axes, name=""):
    label = f' name="{name}"' if name else ""
    return f"<structure{label}><crystal>{vectors('basis', axes)}</crystal>{vectors('positions', places)}</structure>"


def calculation(axes):
    energy, stress = model(axes)
    enthalpy = energy + float(incar.get("pstress", 0)) * KBAR * volume(axes)
    values = '<i name="e_fr_energy">%r</i><i name="e_wo_entrp">%r</i><i name="e_0_energy">%r</i>'
    forces = [[0.01 * number, 0.0, 0.0] for number in range(len(species))]
    tensor = [[stress * (i == j) for j in range(3)] for i in range(3)]
    return (
        f"<calculation><scstep><energy>{values % (energy, energy, energy + 0.5)}</energy></scstep>{structure(axes)}"
        f"{vectors('forces', forces)}{vectors('stress', tensor)}<energy>{values % (enthalpy, enthalpy, 0.0)}</energy>"
        '<dos><i name="efermi">1.0</i></dos></calculation>'
    )


if not re.match(r"[A-Z]", open("POTCAR").read()):
    sys.exit("ERROR: the POTCAR is empty")
if not lines[7].lower().startswith("d"):
    places = [fractional(place) for place in places]
start, end = cell, cell
steps = [calculation(start)]
if int(incar.get("nsw", 0)) > 0:
    wanted = BEST * len(species) * (1 - float(incar.get("pstress", 0)) * KBAR / BULK)
    factor = (wanted / volume(cell)) ** (1 / 3) if incar["isif"] == "3" else 1.0
    end = [[factor * x for x in axis] for axis in cell]
    steps.append(calculation(end))
with open("CONTCAR", "w") as file:
    rows = [" ".join(map(repr, axis)) for axis in end]
    file.write(
        "\n".join([lines[0], "1.0", *rows, *lines[5:7], "Direct", *(" ".join(map(repr, row)) for row in places)]) + "\n"
    )
atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in species)
with open("vasprun.xml", "w") as file:
    file.write(
        f'<modeling><kpoints>{vectors("kpointlist", [[0, 0, 0]])}<varray name="weights"><v>1.0</v></varray></kpoints>'
        f'<parameters><i name="PSTRESS">{incar.get("pstress", 0)}</i></parameters>'
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
        f"{structure(start, 'initialpos')}{''.join(steps)}</modeling>"
    )
with open("OUTCAR", "w") as file:
    file.write(
        " vasp.6.4.2 20Jul23 complex\n   k-points           NKPTS =      1   number of bands    NBANDS=      8\n"
    )
    file.write("------------------------ aborting loop because EDIFF is reached ----------------\n")
    file.write(" reached required accuracy - stopping structural energy minimisation\n")
print(" running    1 mpi-ranks, on    1 nodes")
