import sys

import pytest

from hybridcsp.utils.modules import locate


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Lay out packages that raise when they are imported."""
    for file in ("loud/__init__.py", "loud/inner.py", "plain/deep/deeper/module.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("raise SystemError('was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["loud", "loud.inner", "plain.deep.deeper.module"])
def test_modules_are_found_without_being_imported(packages, name):
    before = set(sys.modules)
    found = locate(name)
    assert found is not None
    assert found.origin.startswith(str(packages))
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["loud.outer", "loud.inner.more", "plain.none", "nowhere.at_all", "a..b", "", ".a"])
def test_missing_modules_are_not_found(packages, name):
    assert locate(name) is None


@pytest.mark.parametrize("name", ["os.path", "itertools", "xml.etree.ElementTree", "ase.calculators.emt", "hybridcsp"])
def test_modules_of_every_kind_are_found(name):
    assert locate(name) is not None
