"""Output of MatterGen, DiffCSP, CrystalFormer and chemeleon is read as they write it, and the templates run them."""

import argparse
import csv
import gzip
import io
import json
import runpy
import sys
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from crystals import anatase, rutile

from hybridcsp import Problem
from hybridcsp.config.settings import parse, read
from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.generators.base import Request, Sample
from hybridcsp.generators.external import Command, CommandGenerator
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.similarity.comparison import same_structure
from hybridcsp.sources.registry import SOURCES

EXAMPLES = Path(__file__).parents[2] / "examples" / "external"

#: Rutile as a row of CrystalFormer for at most six sites: a on 2a, 0.305 on 4f of group 136.
RUTILE_ROW = {
    "L": [4.6, 4.6, 2.96, 90.0, 90.0, 90.0],
    "X": [[0.0, 0.0, 0.0], [0.305, 0.305, 0.0], *[[0.0, 0.0, 0.0]] * 4],
    "A": [22, 8, 0, 0, 0, 0],
    "W": [1, 6, 0, 0, 0, 0],
    "M": [2, 4, 0, 0, 0, 0],
    "logp_w": -1.5,
    "logp": -12.25,
}


def cif(atoms):
    text = io.BytesIO()
    ase.io.write(text, atoms, format="cif")
    return text.getvalue().decode()


def write_mattergen(folder, crystals):
    """Write what MatterGen's ``save_structures`` writes, with trajectories."""
    folder.mkdir(parents=True, exist_ok=True)
    ase.io.write(folder / "generated_crystals.extxyz", crystals)
    with zipfile.ZipFile(folder / "generated_crystals_cif.zip", "w") as archive:
        for number, atoms in enumerate(crystals):
            archive.writestr(f"gen_{number}.cif", cif(atoms))
    with zipfile.ZipFile(folder / "generated_trajectories.zip", "w") as archive:
        for number, atoms in enumerate(crystals):
            text = io.StringIO()
            ase.io.write(text, [atoms] * 3, format="extxyz")
            archive.writestr(f"gen_{number}.extxyz", text.getvalue())


def write_diffcsp(folder, crystals):
    """Write what DiffCSP's ``sample.py`` writes for a formula."""
    folder.mkdir(parents=True)
    for number, atoms in enumerate(crystals, start=1):
        (folder / f"{folder.name}_{number}.cif").write_text(cif(atoms))


def write_chemeleon(folder, crystals, as_json=True):
    """Write what chemeleon-dng writes: CIFs, and all crystals as pymatgen's JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for number, atoms in enumerate(crystals):
        (folder / f"sample_{number}_{atoms.get_chemical_formula()}.cif").write_text(cif(atoms))
        described.append(as_pymatgen(atoms))
    if as_json:
        (folder / "generated_structures.json.gz").write_bytes(gzip.compress(json.dumps(described).encode()))


def as_pymatgen(atoms):
    """Return the dictionary that ``Structure.as_dict()`` returns."""
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": p, "properties": {}, "label": s}
        for s, p in zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions().tolist(), strict=True)
    ]
    lattice = {"matrix": atoms.cell.tolist(), "pbc": (True, True, True), "volume": float(atoms.get_volume())}
    named = {"@module": "pymatgen.core.structure", "@class": "Structure", "charge": 0}
    return {**named, "lattice": lattice, "properties": {}, "sites": sites}


def write_crystalformer(file, rows):
    """Write what pandas writes for CrystalFormer's samples: lists are written as Python does."""
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def read_all(path):
    found = list(read_structures(path))
    crystals = [one.atoms for one in found if isinstance(one, Frame)]
    return crystals, [one.reason for one in found if isinstance(one, ReadFailure)]


class TestFolders:
    def test_each_crystal_of_mattergen_is_read_once(self, tmp_path):
        write_mattergen(tmp_path / "results", [rutile(), anatase()])
        source = SOURCES["external"].build(Problem("TiO2", formula_units=2), str(tmp_path / "results"))
        assert len(source) == 2
        assert source.unusable == []

    @pytest.mark.parametrize("left", ["generated_crystals_cif.zip", "generated_trajectories.zip"])
    def test_copies_alone_are_read(self, tmp_path, left):
        write_mattergen(tmp_path, [rutile(), anatase()])
        for file in tmp_path.iterdir():
            if file.name != left:
                file.unlink()
        crystals, failures = read_all(tmp_path)
        assert (len(crystals), failures) == (6 if "traj" in left else 2, [])

    def test_each_crystal_of_chemeleon_is_read_once(self, tmp_path):
        write_chemeleon(tmp_path, [rutile(), anatase()])
        crystals, failures = read_all(tmp_path)
        assert [same_structure(a, b) for a, b in zip(crystals, [rutile(), anatase()], strict=True)] == [True, True]
        assert failures == []

    def test_json_of_chemeleon_alone_is_read(self, tmp_path):
        write_chemeleon(tmp_path, [rutile()])
        (tmp_path / "sample_0_O4Ti2.cif").unlink()
        crystals, failures = read_all(tmp_path)
        assert len(crystals) == 1
        assert same_structure(crystals[0], rutile())
        assert failures == []

    def test_cifs_of_diffcsp_are_read(self, tmp_path):
        write_diffcsp(tmp_path / "Ti2O4", [rutile(), anatase()])
        assert len(read_all(tmp_path / "Ti2O4")[0]) == 2


class TestCrystalFormer:
    @pytest.mark.parametrize(
        ("name", "group"), [("output_136.csv", None), ("output_Ti2O4.csv", 136), ("output_225.csv", 136)]
    )
    def test_the_group_is_that_of_the_row_or_of_the_name(self, tmp_path, name, group):
        row = RUTILE_ROW if group is None else {"G": group, **RUTILE_ROW}
        write_crystalformer(tmp_path / name, [row])
        (crystal,), failures = read_all(tmp_path / name)
        assert failures == []
        assert same_structure(crystal, rutile())
        assert crystal.info == {"logp_w": -1.5, "logp": -12.25}

    def test_any_point_of_an_orbit_and_centred_cells_are_read(self, tmp_path):
        salt = {
            "L": [5.6, 5.6, 5.6, 90.0, 90.0, 90.0],
            "X": [[0.5, 0.5, 0.0], [0.0, 0.5, 0.0]],
            "A": [11, 17],
            "W": [1, 2],
            "M": [4, 4],
        }
        moved = {**RUTILE_ROW, "G": 136, "X": [[0.5, 0.5, 0.5], [0.805, 0.195, 0.5], *[[0.0, 0.0, 0.0]] * 4]}
        write_crystalformer(tmp_path / "output_225.csv", [salt])
        write_crystalformer(tmp_path / "output_all.csv", [moved])
        assert same_structure(read_all(tmp_path / "output_225.csv")[0][0], bulk("NaCl", "rocksalt", a=5.6))
        assert same_structure(read_all(tmp_path / "output_all.csv")[0][0], rutile())

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"L": [-6.1, 5.3, 3.8, 90.0, 90.0, 90.0]}, "positive lengths"),
            ({"L": [4.6, 4.6, 2.96]}, "do not have the shapes"),
            ({"L": "[nan, 1, 1, 90, 90, 90]"}, "column L does not hold a list of numbers"),
            ({"L": "__import__('os').system('false')"}, "column L does not hold a list of numbers"),
            ({"X": "[" * 300}, "column X does not hold a list of numbers"),
            ({"A": [22, 200, 0, 0, 0, 0]}, "site 2 has the atomic number 200"),
            ({"A": [0] * 6}, "no atoms"),
            ({"W": [1, 12, 0, 0, 0, 0]}, "site 2 is on Wyckoff position 12; group 136 has 1 to 11"),
            ({"X": [[0.0, 0.0, 0.0], [0.3, 0.1, 0.2], *[[0.0, 0.0, 0.0]] * 4]}, "site 2 is not on Wyckoff position f"),
            ({"G": 231}, "space group from 1 to 230"),
            ({"G": ""}, "the column G is empty"),
        ],
    )
    def test_a_wrong_row_is_a_failure_and_the_next_is_read(self, tmp_path, change, said):
        good = {"G": 136, **RUTILE_ROW}
        write_crystalformer(tmp_path / "output.csv", [{**good, **change}, good])
        crystals, (reason,) = read_all(tmp_path / "output.csv")
        assert len(crystals) == 1
        assert reason.startswith("row 1: ")
        assert said in reason

    def test_a_table_without_groups_needs_one_in_its_name(self, tmp_path):
        write_crystalformer(tmp_path / "samples.csv", [RUTILE_ROW])
        crystals, (reason,) = read_all(tmp_path / "samples.csv")
        assert crystals == []
        assert "as in output_225.csv" in reason

    def test_converted_samples_are_read_and_copies_left_out(self, tmp_path):
        converted = tmp_path / "output_136_struct.csv"
        write_crystalformer(converted, [{"cif": str(as_pymatgen(rutile()))}, {"cif": "cif"}])
        (crystal,), failures = read_all(converted)
        assert failures == []
        assert same_structure(crystal, rutile())
        write_crystalformer(tmp_path / "output_136.csv", [RUTILE_ROW])
        assert len(read_all(tmp_path)[0]) == 1

    @pytest.mark.parametrize("text", ["{'a': open('/dev/null')}", "{'sites': 1}", "{" * 400, "{1: 2"])
    def test_nothing_in_a_table_is_evaluated(self, tmp_path, text):
        write_crystalformer(tmp_path / "structures.csv", [{"cif": text}])
        assert read_all(tmp_path / "structures.csv")[1] == ["row 1: it is not the dictionary of a pymatgen structure"]


class TestFilesOfPyTorch:
    @pytest.mark.parametrize("name", ["eval_gen.pt", "model.ckpt"])
    def test_they_are_never_read(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"\x80\x02cos\nsystem\n(S'touch pwned'\ntR.")
        crystals, (reason,) = read_all(tmp_path / name)
        assert crystals == []
        assert "diffcsp_to_extxyz.py" in reason

    def test_the_example_converts_results_of_diffcsp(self, tmp_path, monkeypatch):
        torch = pytest.importorskip("torch")
        crystals = [rutile(), bulk("NaCl", "rocksalt", a=5.6)]
        arrays = {
            "frac_coords": np.concatenate([atoms.get_scaled_positions() for atoms in crystals]),
            "num_atoms": np.array([len(atoms) for atoms in crystals]),
            "atom_types": np.concatenate([atoms.numbers for atoms in crystals]),
            "lengths": np.array([atoms.cell.lengths() for atoms in crystals]),
            "angles": np.array([atoms.cell.angles() for atoms in crystals]),
        }
        results = {name: torch.as_tensor(array) for name, array in arrays.items()}
        several = {name: torch.stack([tensor, tensor]) for name, tensor in results.items()}
        torch.save({"eval_setting": argparse.Namespace(label=""), **several}, tmp_path / "eval_diff.pt")
        files = [str(tmp_path / name) for name in ("eval_diff.pt", "crystals.extxyz")]
        monkeypatch.setattr(sys, "argv", ["diffcsp_to_extxyz.py", *files])
        runpy.run_path(str(EXAMPLES / "diffcsp_to_extxyz.py"), run_name="__main__")
        found, failures = read_all(tmp_path / "crystals.extxyz")
        assert failures == []
        assert [same_structure(a, b) for a, b in zip(found, crystals * 2, strict=True)] == [True] * 4


#: Programs with the options of the real ones, which copy crystals from a folder beside them instead of sampling.
IMITATION = """
import argparse, json, os, shutil, sys
from pathlib import Path
here = Path(sys.argv[0]).parent
parser = argparse.ArgumentParser()
name = {name!r}
if name == "mattergen":
    parser.add_argument("output_path")
    for option in ("model_path", "sampling_config_name", "record_trajectories"):
        parser.add_argument("--" + option)
    parser.add_argument("--target_compositions", type=json.loads, required=True)
    for option in ("batch_size", "num_batches", "seed"):
        parser.add_argument("--" + option, type=int, required=True)
    given = parser.parse_args()
    assert given.target_compositions == [{{"Ti": 2, "O": 4}}], given
    os.makedirs(given.output_path)
    target = Path(given.output_path)
elif name == "diffcsp":
    for option in ("model_path", "save_path", "formula"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--num_evals", type=int, required=True)
    given = parser.parse_args()
    target = Path(given.save_path) / given.formula
    os.makedirs(target)
elif name == "crystalformer":
    for option in ("optimizer", "restore_path", "formula", "save_path"):
        parser.add_argument("--" + option, required=True)
    for option in ("K", "num_samples", "batchsize", "seed"):
        parser.add_argument("--" + option, type=int, required=True)
    given = parser.parse_args()
    assert given.formula == "Ti2O4", given
    target = Path(os.path.dirname(given.save_path))
else:
    for option in ("task", "formulas", "output_dir", "save_json", "device"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--num_samples", type=int, required=True)
    given = parser.parse_args()
    assert (given.task, given.formulas) == ("csp", "Ti2O4"), given
    target = Path(given.output_dir)
    target.mkdir(parents=True, exist_ok=True)
for file in (here / "made").iterdir():
    shutil.copy(file, target)
"""


def write_made(name, folder):
    """Write the crystals that an imitated program copies."""
    if name == "mattergen":
        write_mattergen(folder, [rutile(), bulk("Cu")])
    elif name == "diffcsp":
        write_diffcsp(folder, [rutile()])
    elif name == "crystalformer":
        folder.mkdir()
        write_crystalformer(folder / "output_Ti2O4.csv", [{"G": 136, **RUTILE_ROW}])
    else:
        write_chemeleon(folder, [rutile()], as_json=False)


@pytest.mark.parametrize("name", ["mattergen", "diffcsp", "crystalformer", "chemeleon"])
def test_the_template_runs_a_program_and_reads_its_output(tmp_path, name):
    template = EXAMPLES / f"{name}.toml"
    configuration = parse(read(template), template.name)
    assert f"external:{name}" in configuration.search.sources
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable} -IS\n{IMITATION.format(name=name)}")
    program.chmod(0o755)
    write_made(name, tmp_path / "made")
    command = read(template)["external"][name]
    places = {"python": sys.executable}
    command["command"] = [
        places.get(Path(part).name, str(program)) if part.startswith("/opt/") else part for part in command["command"]
    ]
    generator = CommandGenerator(name, Command(**command))
    answers = generator.sample([Request(contents={"Ti": 2, "O": 4})] * 2, np.random.default_rng(0))
    sample = next(answer for answer in answers if isinstance(answer, Sample))
    assert same_structure(sample.atoms, rutile())


class TestCommands:
    @pytest.mark.parametrize("path", ["/etc", "../other", "a/../../b"])
    def test_structures_are_within_the_output(self, path):
        with pytest.raises(InputError, match="within the folder"):
            Command(("program", "{output}"), suffix="", structures=path)

    def test_structures_need_a_folder(self):
        with pytest.raises(InputError, match='suffix must be ""'):
            Command(("program", "{output}"), structures="crystals.extxyz")

    def test_an_unknown_placeholder_of_structures_is_an_error(self):
        with pytest.raises(InputError, match=r"\{output\}"):
            Command(("program", "{output}"), suffix="", structures="{output}")

    def test_elements_are_those_of_all_requests(self, tmp_path):
        copy = "import sys; open(sys.argv[2], 'w').write(sys.argv[1])"
        generator = CommandGenerator("echo", Command((sys.executable, "-c", copy, "{elements}", "{output}")))
        with pytest.raises(GeneratorError, match="no crystal"):
            generator.sample([Request(contents={"Ti": 1, "O": 2})], np.random.default_rng(0))
        assert generator.command.filled(elements="O-Ti", output="there")[-2:] == ["O-Ti", "there"]

    def test_missing_structures_are_an_error_that_names_them(self, tmp_path):
        make = "import os, sys; os.mkdir(sys.argv[1])"
        command = Command((sys.executable, "-c", make, "{output}"), suffix="", structures="all.extxyz")
        with pytest.raises(GeneratorError, match=r"wrote no output/all\.extxyz"):
            CommandGenerator("silent", command).sample([Request(contents={"Cu": 1})], np.random.default_rng(0))
