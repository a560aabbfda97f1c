"""One way in: whatever reads structures reads the same ones, and refuses the same ones for the same reasons."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from crystals import rutile

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.generators.datasets import read_dataset
from hybridcsp.io import formats
from hybridcsp.io.construction import check_crystal
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.io.structure_files import read_structures
from hybridcsp.prototypes import TemplateLibrary
from hybridcsp.search.stopping import read_target
from hybridcsp.sources.seeds import SeedsSource
from hybridcsp.structure.validity import MIN_DISTANCE

ICE_LIKE = """\
data_heavy
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
O1 0 0 0
D1 0.24 0 0
D2 0 0.24 0
"""

HEAVY_WATER = {
    "a.cif": ICE_LIKE,
    "POSCAR": "ice\n1.0\n4 0 0\n0 4 0\n0 0 4\nO D\n1 2\nDirect\n0 0 0\n0.24 0 0\n0 0.24 0\n",
    "a.extxyz": (
        '3\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"\nO 0 0 0\nD 0.96 0 0\nD 0 0.96 0\n'
    ),
    "b.extxyz": (
        '3\nLattice="4 0 0 0 4 0 0 0 4" Properties=pos:R:3:species:S:1 pbc="T T T"\n0 0 0 O\n0.96 0 0 D\n0 0.96 0 T\n'
    ),
    "a.res": "TITL ice\nCELL 1 4 4 4 90 90 90\nLATT -1\nSFAC O D\nO 1 0 0 0\nD 2 0.24 0 0\nD 2 0 0.24 0\nEND\n",
}


def only(file):
    (found,) = read_structures(file)
    assert isinstance(found, Frame), found
    return found.atoms


@pytest.mark.parametrize("name", HEAVY_WATER)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_format_reads_deuterium_as_hydrogen_with_or_without_a_byte_order_mark(tmp_path, name, mark):
    (tmp_path / name).write_text(mark + HEAVY_WATER[name], encoding="utf-8")
    atoms = only(tmp_path / name)
    assert sorted(atoms.symbols) == ["H", "H", "O"]
    assert np.allclose(sorted(atoms.get_all_distances(mic=True)[0]), sorted([0, 0.96, 0.96])) or name == "b.extxyz"


def test_table_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f'\ufeffcif,n\n"{ICE_LIKE}",1\n', encoding="utf-8")
    assert len(only(tmp_path / "a.csv")) == 3


def overlapping(*, apart):
    return Atoms(
        "TiO2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5 + apart / 4)], cell=[4, 4, 4], pbc=True
    )


def test_all_readers_reject_a_structure_for_the_same_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "a.extxyz"
    ase.io.write(file, overlapping(apart=0.1))
    reason = "on top of each other: O (atom 2) and O (atom 3), 0.100 Å apart"
    (broken,) = read_structures(file)
    assert reason in broken.reason
    (imported,) = formats.recognise(file).read(file)
    assert imported == broken
    expected = reason.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=expected):
        SeedsSource(Problem("TiO2"), str(file))
    with pytest.raises(InputError, match=expected):
        read_target("stop_at", str(file))
    with pytest.raises(InputError, match=expected):
        read_dataset([file], max_atoms=10)
    with pytest.raises(InputError, match="on top of each other"):
        TemplateLibrary(file)


def test_column_of_occupancies_is_checked(tmp_path):
    file = tmp_path / "a.extxyz"
    whole, half = rutile(), rutile()
    whole.set_array("occupancy", np.ones(len(whole)))
    half.set_array("occupancy", np.full(len(half), 0.5))
    ase.io.write(file, [whole, half])
    first, second = read_structures(file)
    assert first.atoms.symbols.get_chemical_formula() == "O4Ti2"
    assert "partly occupied" in second.reason


def test_seeds_and_import_find_the_same_structures_in_a_folder(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [rutile(), overlapping(apart=0.2), rutile(4.7)])
    ase.io.write(tmp_path / "b.cif", rutile(4.8))
    ase.io.write(tmp_path / "c.traj", rutile(4.9))
    (tmp_path / "d.cif").write_text("data_empty\n_cell_length_a 3\n")
    (tmp_path / "notes.txt").write_text("not a structure")
    seeds = SeedsSource(Problem("TiO2", formula_units=2), str(tmp_path))
    records = list(formats.recognise(tmp_path).read(tmp_path))
    imported = [record for record in records if not isinstance(record, ReadFailure)]
    assert [p.atoms.get_volume() for p in seeds.propose(9, None)] == [r.atoms.get_volume() for r in imported]
    assert len(imported) == 4
    assert [why for _, why in seeds.unusable] == [
        record.reason for record in records if isinstance(record, ReadFailure)
    ]


@pytest.mark.parametrize("cell", [[4, 4, 4], [[4, 0, 0], [39.6, 0.9, 0], [0, 0, 4]], [0.8, 4, 4]])
def test_overlaps_with_periodic_images_are_found(cell):
    """Witness: distances computed over many images one by one."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        atoms = Atoms("Cu2", scaled_positions=rng.random((2, 3)), cell=cell, pbc=True)
        steps = (
            np.array([(i, j, k) for i in range(-12, 13) for j in range(-2, 3) for k in (-1, 0, 1)]) @ atoms.cell.array
        )
        apart = np.linalg.norm(atoms.positions[1] - atoms.positions[0] + steps, axis=1).min()
        own = np.sort(np.linalg.norm(steps, axis=1))[1]
        try:
            check_crystal(atoms)
        except StructureError as error:
            assert "on top of each other" in error.reason
            assert min(apart, own) < MIN_DISTANCE
            refused += 1
        else:
            assert min(apart, own) >= MIN_DISTANCE
    assert refused < 60


def test_overlap_among_many_atoms_is_found():
    """Above some hundred atoms only neighbours are compared."""
    atoms = rutile() * (5, 5, 5)
    check_crystal(atoms)
    atoms.positions[700] = atoms.positions[3] + atoms.cell.array[2] + (0.1, 0, 0)
    with pytest.raises(StructureError, match=r"atom 4\) and \w+ \(atom 701\), 0.100 Å"):
        check_crystal(atoms)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda atoms: atoms.set_pbc([True, True, False]), "periodic"),
        (lambda atoms: atoms.set_cell([4, 4, 0]), "periodic"),
        (lambda atoms: atoms.set_cell([[4, 0, 0], [4, 0, 0], [0, 0, 4]]), "Å³"),
        (lambda atoms: atoms.positions.__setitem__((0, 0), np.nan), "not finite"),
        (lambda atoms: atoms.numbers.__setitem__(0, 0), "does not belong to any element"),
        (lambda atoms: atoms.__delitem__(slice(None)), "no atoms"),
    ],
)
def test_invalid_crystals_are_refused(change, why):
    atoms = rutile()
    change(atoms)
    with pytest.raises(StructureError, match=why):
        check_crystal(atoms)
