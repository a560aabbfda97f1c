"""A person's own structures as templates: read once, kept in a cache, answered from an index."""

import os
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from crystals import rutile

from hybridcsp.errors import InputError
from hybridcsp.prototypes import TemplateLibrary, identify
from hybridcsp.prototypes import templates as module


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hybridcsp"


def test_structures_are_indexed_by_stoichiometry_and_label(tmp_path):
    write(
        tmp_path / "a.extxyz", [bulk("NaCl", "rocksalt", a=5.6, cubic=True), rutile(), bulk("MgO", "rocksalt", a=4.2)]
    )
    library = TemplateLibrary(tmp_path / "a.extxyz")
    assert len(library) == 3
    assert [template.name for template in library.matching((1, 1))] == ["a.extxyz, frame 0", "a.extxyz, frame 2"]
    (found,) = library.matching((1, 2))
    assert (found.label, found.elements) == identify(rutile())
    assert found.kind == "template"
    assert identify(found.atoms) == identify(rutile())
    assert found.atoms.get_volume() == pytest.approx(rutile().get_volume())
    # as primitive cells
    assert [len(template.atoms) for template in library.matching((1, 1))] == [2, 2]
    assert len(library.with_label(library.matching((1, 1))[0].label)) == 2
    assert library.with_label(found.label)[0].name == found.name
    assert library.matching((3, 5)) == []


def test_unusable_structures_are_counted_by_reason(tmp_path):
    molecule = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]])
    coincident = Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)
    write(tmp_path / "a.extxyz", [rutile(), molecule, molecule, coincident])
    (tmp_path / "b.cif").write_text("this is no crystal\n")
    library = TemplateLibrary(tmp_path)
    assert len(library) == 1
    reasons = sorted((count, reason.split(":")[0]) for reason, count in library.skipped.items())
    assert reasons == [
        (1, "atoms on top of each other"), (1, "not a CIF"), (2, "it has no cell that is periodic in three directions")
    ]  # fmt: skip


def test_index_is_cached(tmp_path, cache, monkeypatch):
    write(tmp_path / "a.extxyz", [rutile(), bulk("MgO", "rocksalt", a=4.2)])
    first = TemplateLibrary(tmp_path / "a.extxyz")
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(module, "_index", None)  # must not be needed again
    second = TemplateLibrary(tmp_path / "a.extxyz")
    for stoichiometry in ((1, 1), (1, 2)):
        for one, other in zip(first.matching(stoichiometry), second.matching(stoichiometry), strict=True):
            assert (one.label, one.elements, one.name, one.atoms) == (
                other.label,
                other.elements,
                other.name,
                other.atoms,
            )


def test_cache_depends_on_the_contents_of_the_file(tmp_path, cache):
    for atoms in (rutile(), bulk("MgO", "rocksalt", a=4.2)):
        write(tmp_path / "a.extxyz", atoms)
        library = TemplateLibrary(tmp_path / "a.extxyz")
        assert library.matching(identify(atoms)[0].stoichiometry)
    assert len(list(cache.iterdir())) == 2


def test_damaged_cache_is_rebuilt(tmp_path, cache):
    write(tmp_path / "a.extxyz", rutile())
    TemplateLibrary(tmp_path / "a.extxyz")
    (index,) = cache.iterdir()
    for rubbish in (b"", b"rubbish", index.read_bytes()[:200]):
        index.write_bytes(rubbish)
        assert len(TemplateLibrary(tmp_path / "a.extxyz")) == 1
        assert list(cache.iterdir()) == [index]
    np.savez(index, about=np.array([{"a": 1}], dtype=object))
    assert len(TemplateLibrary(tmp_path / "a.extxyz")) == 1


def test_unwritable_cache_is_not_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    write(tmp_path / "a.extxyz", rutile())
    assert len(TemplateLibrary(tmp_path / "a.extxyz")) == 1


@pytest.mark.parametrize(("content", "why"), [(None, "no such file"), ("", "no usable structure")])
def test_a_path_without_structures_is_an_error(tmp_path, content, why):
    path = tmp_path / "a.extxyz"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=why):
        TemplateLibrary(path)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.cif")
    with pytest.raises(InputError, match="a named pipe, not a file"):
        TemplateLibrary(tmp_path / "a.cif")


@pytest.mark.slow
def test_thousands_of_structures_are_indexed_once_and_answer_in_milliseconds(tmp_path):
    metals = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Fe", "Co", "Ni", "Mn", "Ti", "V", "Cr"]
    structures = []
    for i in range(2000):
        metal, size = metals[i % len(metals)], 3.0 + i / 1000
        if i % 2:
            structures.append(bulk(f"{metal}O", "wurtzite", a=size, c=1.6 * size))
        else:
            structures.append(rutile(a=1.5 * size, c=size))
            structures[-1].numbers[:2] = bulk(metal, "fcc", a=4).numbers
    write(tmp_path / "a.extxyz", structures)
    start = time.process_time()
    assert len(TemplateLibrary(tmp_path / "a.extxyz")) == 2000
    first = time.process_time() - start
    start = time.process_time()
    library = TemplateLibrary(tmp_path / "a.extxyz")
    assert time.process_time() - start < 0.2 * first
    assert len(library.with_label(identify(structures[0])[0])) == 1000
    start = time.process_time()
    assert len(library.matching((1, 2, 7))) == 0
    assert len(library.matching((1, 2))) == 1000
    assert (time.process_time() - start) / 1000 < 1e-3
