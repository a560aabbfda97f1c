import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example
from hybridcsp.generators.datasets import HELD_OUT, formula_of, is_held_out, read_dataset, split


def salt(a, metal="Na", **info):
    atoms = bulk(f"{metal}Cl", "rocksalt", a)
    atoms.info.update(info)
    return atoms


def test_examples_are_primitive_cells_in_the_order_of_the_file(tmp_path):
    write(tmp_path / "a.extxyz", [bulk("Cu", cubic=True), salt(5.6) * (1, 2, 1)])
    data = read_dataset([tmp_path / "a.extxyz"], max_atoms=10)
    assert [len(example.atoms) for example in data.examples] == [1, 2]
    assert [example.energy_quantile for example in data.examples] == [None, None]
    assert data.files[0]["frames"] == 2
    assert len(data.files[0]["sha256"]) == 64


def test_quantile_is_the_fraction_of_lower_energies_above_the_hull(tmp_path):
    energies = {"Na": 0.0, "K": 0.0, "Rb": 0.1, "Cs": 0.3}
    frames = [salt(5.6, metal, e_above_hull=energy) for metal, energy in energies.items()] + [bulk("Cu")]
    write(tmp_path / "a.extxyz", frames)
    examples = read_dataset([tmp_path / "a.extxyz"], max_atoms=10).examples
    assert [example.energy_quantile for example in examples] == [0.0, 0.0, 0.5, 0.75, None]


def test_duplicate_of_lowest_energy_is_kept(tmp_path):
    turned = salt(5.61, e_above_hull=0.0)
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    write(tmp_path / "a.extxyz", [salt(5.6, e_above_hull=0.2), turned * (1, 1, 2), salt(4.5, e_above_hull=0.1)])
    data = read_dataset([tmp_path / "a.extxyz"], max_atoms=10)
    volumes = [example.atoms.get_volume() for example in data.examples]
    assert volumes == pytest.approx([5.61**3 / 4, 4.5**3 / 4])
    assert data.skipped == {"duplicates": 1}


def test_crystals_at_different_pressures_are_different(tmp_path):
    frames = [bulk("NaCl", "rocksalt", a) for a in (5.64, 5.62, 5.64)]
    for atoms, pressure in zip(frames, (0.0, 1.0, 0.0), strict=True):
        atoms.info["pressure_gpa"] = pressure
    write(tmp_path / "salt.extxyz", frames)
    dataset = read_dataset([tmp_path / "salt.extxyz"], max_atoms=10)
    assert [example.pressure_gpa for example in dataset.examples] == [0.0, 1.0]
    assert dataset.skipped == {"duplicates": 1}


@pytest.mark.parametrize("pressures", [(None, 0.0), (0.0, None)])
def test_a_crystal_without_a_pressure_equals_that_at_zero_pressure(tmp_path, pressures):
    given = [{} if pressure is None else {"pressure_gpa": pressure} for pressure in pressures]
    write(tmp_path / "salt.extxyz", [salt(5.64, **given[0]), salt(5.64, **given[1]), salt(5.64, pressure_gpa=5.0)])
    dataset = read_dataset([tmp_path / "salt.extxyz"], max_atoms=10)
    assert [example.pressure_gpa for example in dataset.examples] == [0.0, 5.0]


@pytest.mark.parametrize("first", [{}, {"e_above_hull": 0.1}])
def test_the_known_energy_of_equal_crystals_is_kept(tmp_path, first):
    second = {} if first else {"e_above_hull": 0.1}
    write(tmp_path / "a.extxyz", [salt(5.6, **first), salt(4.5, e_above_hull=0.0), salt(5.6, **second)])
    dataset = read_dataset([tmp_path / "a.extxyz"], max_atoms=10)
    assert [example.energy_quantile for example in dataset.examples] == [0.5, 0.0]


def test_skipped_frames_are_counted(tmp_path):
    molecule = Atoms("H2", positions=[(0, 0, 0), (0, 0, 0.7)], cell=[9, 9, 9])
    write(tmp_path / "a.extxyz", [molecule, salt(5.6), bulk("Cu"), bulk("C", "diamond", 3.6)])
    data = read_dataset([tmp_path / "a.extxyz"], max_atoms=1)
    assert len(data.examples) == 1
    assert data.skipped["more than 1 atoms"] == 2
    assert sum(data.skipped.values()) == 3


def test_all_files_of_a_folder_are_read(tmp_path):
    write(tmp_path / "a.extxyz", bulk("Cu"))
    write(tmp_path / "b.cif", salt(5.6))
    assert len(read_dataset([tmp_path], max_atoms=10).examples) == 2


@pytest.mark.parametrize("name", ["missing.extxyz", "broken.extxyz", "a.pkl"])
def test_unreadable_files_are_named(tmp_path, name):
    (tmp_path / "broken.extxyz").write_text("2\nLattice=what\nCu 0\n")
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(InputError, match=name.replace(".", "[.]")):
        read_dataset([tmp_path / name], max_atoms=10)


@pytest.mark.parametrize(
    "info",
    [{"e_above_hull": "low"}, {"weight": -1.0}, {"weight": np.inf}, {"pressure_gpa": "none"}, {"pressure_gpa": np.nan}],
)
def test_invalid_numbers_are_named_with_their_frame(tmp_path, info):
    write(tmp_path / "a.extxyz", [salt(5.6), salt(5.0, "K", **info)])
    with pytest.raises(InputError, match=f"frame 1.*{next(iter(info))}"):
        read_dataset([tmp_path / "a.extxyz"], max_atoms=10)


def test_nothing_usable_is_an_error(tmp_path):
    write(tmp_path / "a.extxyz", salt(5.6))
    with pytest.raises(InputError, match="more than 1 atoms"):
        read_dataset([tmp_path / "a.extxyz"], max_atoms=1)


def test_a_tenth_of_the_formulas_is_held_out_whatever_the_data():
    symbols = ["Li", "Na", "K", "Ti", "Fe", "Al", "O", "S", "F", "Cl"]
    formulas = [f"{a}{n}{b}{m}" for a in symbols for b in symbols for n in "234" for m in "57" if a < b]
    share = np.mean([is_held_out(formula) for formula in formulas])
    assert share == pytest.approx(1 / HELD_OUT, abs=0.04)
    assert is_held_out("O2Ti") == is_held_out(formula_of(bulk("TiO2", "fluorite", 4.8) * (2, 1, 1)))


def test_a_split_keeps_formulas_whole():
    metals = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Cd", "Ag", "V"]
    examples = [Example(atoms=salt(a, metal)) for metal in metals for a in (5.0, 6.0)]
    learned, held = split(examples)
    assert len(learned) + len(held) == len(examples)
    assert not {formula_of(e.atoms) for e in learned} & {formula_of(e.atoms) for e in held}


def test_nothing_is_held_out_if_everything_would_be():
    symbols = ["Li", "Na", "K", "Ti", "Fe", "Al", "Mg", "Ca"]
    crystals = [bulk(f"{a}{b}", "cesiumchloride", 3.0) for a in symbols for b in ("O", "S", "F", "Cl")]
    held = next(atoms for atoms in crystals if is_held_out(formula_of(atoms)))
    examples = [Example(atoms=held), Example(atoms=held * (2, 1, 1))]
    assert split(examples) == (examples, [])


def test_properties_are_read_where_frames_have_them_and_kept_of_equal_crystals(tmp_path):
    with_gap, without, stable = bulk("Si"), bulk("Ge"), bulk("Si")
    with_gap.info.update(band_gap=1.1, e_above_hull=0.1, density=2.3)
    stable.info.update(e_above_hull=0.0, density=math.nan)
    without.info.update(band_gap=math.inf)
    write(tmp_path / "a.extxyz", [with_gap, without, stable])
    silicon, germanium = read_dataset(
        [tmp_path / "a.extxyz"], max_atoms=10, properties=("band_gap", "density")
    ).examples
    assert silicon.energy_quantile == 0
    assert dict(silicon.properties) == {"band_gap": 1.1, "density": 2.3}
    assert not germanium.properties


def test_a_property_of_no_crystal_is_refused_with_the_names_of_those_there_are(tmp_path):
    atoms = bulk("Si")
    atoms.info["band_gap"] = 1.1
    write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(
        InputError, match=r"no crystal of the data has this property.*; did you mean 'band_gap'\? Properties of"
    ):
        read_dataset([tmp_path / "a.extxyz"], max_atoms=10, properties=("bandgap",))
