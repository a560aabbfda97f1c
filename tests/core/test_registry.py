"""What other packages register: small distributions, as pip would leave them, with entry points in them."""

import importlib
import os
import subprocess
import sys

import ase.db
import pytest

from hybridcsp.core.problem import Problem
from hybridcsp.core.registry import Entry, Registry
from hybridcsp.errors import InputError, RegistrationError, UnknownNameError
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.io.formats import FORMATS
from hybridcsp.operators.registry import OPERATOR_REGISTRY, operators_named
from hybridcsp.relaxation.calculators.registry import CALCULATORS, build_calculator, check_calculator
from hybridcsp.search.search import Search, build_sources
from hybridcsp.sources.random import RandomSource
from hybridcsp.sources.registry import SOURCES

#: A package with one thing of each kind.
CODE = '''
from ase.build import bulk
from ase.calculators.emt import EMT

from hybridcsp import Proposal
from hybridcsp.generators import base
from hybridcsp.io import formats
from hybridcsp.operators import Operator, WeightedOperator
from hybridcsp.sources.base import BaseSource


class Copper(BaseSource):
    """Proposes copper, stretched by what it is told."""

    def __init__(self, problem, argument=None):
        self.length = float(argument or 3.6)

    def propose(self, n, context):
        atoms = bulk("Cu", a=self.length + context.rng.uniform(0, 0.5))
        return [Proposal(atoms=atoms, operator="stretch")]


def build_potential(argument):
    return EMT(), f"plugged-in potential {argument}"


class Swell(Operator):
    name = "swell"

    def __call__(self, parents, problem, rng):
        child = parents[0].copy()
        child.set_cell(child.cell.array * rng.uniform(1.05, 1.2), scale_atoms=True)
        return child


def often():
    return WeightedOperator(Swell(), prior=50.0)


class Empty:
    """Of no kind at all."""


class Generator(base.Generator):
    name = "mine"

    def fit(self, examples, **settings): ...
    def sample(self, requests, rng): ...
    def save(self, folder): ...
    @classmethod
    def load(cls, folder): ...


class Incomplete(base.Generator):
    def fit(self, examples, **settings): ...
    def sample(self, requests, rng): ...


class Format(formats.Format):
    name = "folders"

    def recognises(self, path):
        return path.suffix == ".folders"

    def read(self, path):
        return iter(())

    def write(self, records, path, settings):
        return "nothing"


class Stranger:
    name = "stranger"


class ReadOnly(formats.Format):
    name = "read-only"

    def recognises(self, path): ...
    def read(self, path): ...


def needs_three(one, two, three):
    return None


class Unasked(Copper):
    def __init__(self):
        pass


class Underived:
    """Has every method of a source, but not the base class."""

    def __init__(self, problem, argument=None): ...
    def propose(self, n, context): return []
    def proposed(self, candidates): ...
    def observe(self, outcomes): ...
'''


def install(folder, entry_points, code=CODE, name="plugin", summary="Things to plug in"):
    """Lay down a package as pip does: the module, and metadata beside it."""
    (folder / f"{name}_code.py").write_text(code)
    metadata = folder / f"{name}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\nSummary: {summary}\n")
    lines = []
    for group, points in entry_points.items():
        lines += [f"[hybridcsp.{group}]", *(f"{key} = {target}" for key, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A function that installs a package for the length of a test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def plug_in(code=CODE, **entry_points):
        install(tmp_path, entry_points, code)
        importlib.invalidate_caches()

    yield plug_in
    sys.modules.pop("plugin_code", None)


class TestPickingUp:
    @pytest.mark.parametrize(
        ("group", "registry", "attribute"),
        [
            ("sources", SOURCES, "Copper"),
            ("generators", GENERATORS, "Generator"),
            ("calculators", CALCULATORS, "build_potential"),
            ("formats", FORMATS, "Format"),
            ("operators", OPERATOR_REGISTRY, "Swell"),
        ],
    )
    def test_every_registry_lists_and_loads_what_others_register(self, plug_in, group, registry, attribute):
        assert "mine" not in registry.entries()
        plug_in(**{group: {"mine": f"plugin_code:{attribute}"}})
        entry = registry["mine"]
        assert (entry.package, entry.summary) == ("plugin", "Things to plug in")
        assert "plugin_code" not in sys.modules  # listing imports nothing
        assert entry.load().__name__ == attribute

    def test_other_packages_cannot_replace_built_in_entries(self, plug_in):
        plug_in(sources={"random": "plugin_code:Copper"})
        assert SOURCES["random"].package == "hybridcsp"

    def test_a_source_is_built_with_its_argument(self, plug_in):
        plug_in(sources={"copper": "plugin_code:Copper"})
        built = build_sources(["copper", "copper:3.9"], Problem("Cu"))
        assert {name: source.length for name, source in built.items()} == {"copper": 3.6, "copper-2": 3.9}

    def test_a_calculator_is_built_with_its_argument_and_label(self, plug_in):
        plug_in(calculators={"potential": "plugin_code:build_potential"})
        check_calculator("potential:7")
        calculator, label = build_calculator("potential:7")
        assert (type(calculator).__name__, label) == ("EMT", "plugged-in potential 7")

    def test_registered_operator_may_have_a_prior(self, plug_in):
        plug_in(operators={"swell": "plugin_code:Swell", "swell-often": "plugin_code:often"})
        assert [offer.prior for offer in operators_named("swell")] == [1.0]
        assert [offer.prior for offer in operators_named("swell-often")] == [50.0]

    def test_attributes_inside_attributes_and_extras_are_understood(self, plug_in):
        plug_in(sources={"nested": "plugin_code:Copper.propose [extra]"})
        assert SOURCES.entries()["nested"].target == "plugin_code:Copper.propose [extra]"
        entry = Entry(name="nested", target="plugin_code:Copper.propose [extra]", summary="", package="plugin")
        assert entry.load().__name__ == "propose"


class TestBroken:
    def test_a_module_that_does_not_import(self, plug_in):
        plug_in("import no_such_library", sources={"mine": "plugin_code:Copper"})
        words = r"'mine', which the package plugin registers as plugin_code:Copper.*no_such_library"
        with pytest.raises(RegistrationError, match=words):
            SOURCES["mine"].load()

    def test_a_module_that_raises_anything(self, plug_in):
        plug_in("raise RuntimeError('no licence found')", operators={"mine": "plugin_code:Copper"})
        with pytest.raises(RegistrationError, match="RuntimeError: no licence found"):
            operators_named("mine")

    @pytest.mark.parametrize("target", ["no_such_module:Thing", "plugin_code:Nothing", "plugin_code"])
    def test_a_name_that_leads_nowhere(self, plug_in, target):
        plug_in(sources={"mine": target})
        with pytest.raises(RegistrationError, match="'mine', which the package plugin registers"):
            build_sources(["mine"], Problem("Cu"))

    @pytest.mark.parametrize(
        ("registry", "group", "first"),
        [(FORMATS, "formats", "name")],
    )
    def test_something_of_another_kind(self, plug_in, registry, group, first):
        plug_in(**{group: {"mine": "plugin_code:Empty"}})
        with pytest.raises(RegistrationError, match=rf"gives Empty, which lacks .*\b{first}\b"):
            registry["mine"].load()

    @pytest.mark.parametrize(
        ("attribute", "words"),
        [
            ("Empty", "is Empty, which must be a subclass of hybridcsp.generators.base.Generator"),
            ("build_potential", "is <function .*, which must be a subclass of"),
            ("Incomplete", "is Incomplete, which must implement load, save"),
        ],
    )
    def test_generator_must_implement_the_abstract_base_class(self, plug_in, attribute, words):
        plug_in(generators={"mine": f"plugin_code:{attribute}"})
        with pytest.raises(RegistrationError, match=rf"registers as plugin_code:{attribute}, {words}"):
            GENERATORS["mine"].load()

    @pytest.mark.parametrize(
        ("attribute", "words"),
        [
            ("Stranger", "is Stranger, which must be a subclass of hybridcsp.io.formats.base.Format"),
            ("ReadOnly", "is ReadOnly, which must implement write"),
        ],
    )
    def test_format_must_implement_the_abstract_base_class(self, plug_in, attribute, words):
        plug_in(formats={"mine": f"plugin_code:{attribute}"})
        with pytest.raises(RegistrationError, match=rf"registers as plugin_code:{attribute}, {words}"):
            FORMATS["mine"].load()

    def test_registered_operator_must_subclass_operator(self, plug_in):
        plug_in(operators={"mine": "plugin_code:Empty"})
        with pytest.raises(RegistrationError, match=r"gives Empty, which is not a subclass of .*\.Operator"):
            operators_named("mine")

    def test_a_source_that_takes_other_arguments(self, plug_in):
        plug_in(sources={"mine": "plugin_code:Unasked"})
        with pytest.raises(RegistrationError, match="cannot be called with 2 arguments: too many"):
            build_sources(["mine"], Problem("Cu"))

    def test_what_cannot_be_called_at_all(self, plug_in):
        plug_in("NUMBER = 42", operators={"mine": "plugin_code:NUMBER"})
        with pytest.raises(RegistrationError, match="cannot be called with no arguments: 42 is not a callable"):
            operators_named("mine")

    def test_registered_source_without_base_class_is_refused(self, plug_in):
        plug_in(sources={"mine": "plugin_code:Underived"})
        words = r"'mine'.*plugin.*is Underived, which must be a subclass of hybridcsp.sources.base.BaseSource"
        with pytest.raises(RegistrationError, match=words):
            build_sources(["mine"], Problem("Cu"))

    def test_object_without_base_class_is_refused(self):
        with pytest.raises(InputError, match=r"object is not a source; make the class a subclass of .*BaseSource"):
            build_sources(["random", object()], Problem("Cu"))

    def test_class_in_place_of_source_object_is_refused(self):
        with pytest.raises(InputError, match=r"this is a class; give an object of it, RandomSource\(\.\.\.\)"):
            build_sources([RandomSource], Problem("Cu"))

    @pytest.mark.parametrize(
        ("attribute", "words"),
        [("needs_three", "1 argument: missing a required"), ("Empty", "1 argument: too many")],
    )
    def test_a_calculator_that_cannot_be_called(self, plug_in, attribute, words):
        plug_in(calculators={"mine": f"plugin_code:{attribute}"})
        with pytest.raises(RegistrationError, match=words):
            build_calculator("mine")

    def test_a_calculator_without_a_label(self, plug_in):
        plug_in(CODE + "\ndef bare(argument): return EMT()", calculators={"mine": "plugin_code:bare"})
        with pytest.raises(RegistrationError, match=r"returns <ase.*EMT.*instead of an ASE calculator and a label"):
            build_calculator("mine")

    def test_a_calculator_whose_module_is_gone_is_found_before_anything_starts(self, plug_in, tmp_path):
        plug_in(calculators={"mine": "no_such_module:build"})
        with pytest.raises(RegistrationError, match="there is no such module"):
            Search("Cu", calculator="mine", directory=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_the_others_are_listed_all_the_same(self, plug_in):
        plug_in(sources={"mine": "no_such_module:Thing", "copper": "plugin_code:Copper"})
        assert {"mine", "copper", "random"} <= set(SOURCES.entries())
        with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
            SOURCES["mini"]


def test_a_registry_without_entry_points_holds_the_built_in_entries():
    entry = Entry(name="one", target="math:pi", summary="a number")
    registry = Registry("number", (entry,))
    assert registry.entries() == {"one": entry}
    assert 3 < registry["one"].load() < 4


class TestCommandLine:
    @pytest.fixture
    def run(self, tmp_path):
        install(
            tmp_path,
            {
                "sources": {"copper": "plugin_code:Copper", "broken": "no_such_module:Thing"},
                "calculators": {"potential": "plugin_code:build_potential"},
                "operators": {"swell-often": "plugin_code:often"},
                "formats": {"folders": "plugin_code:Format"},
            },
        )

        def run(*arguments):
            environment = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "150"}
            command = [sys.executable, "-m", "hybridcsp", *arguments]
            return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

        return run

    @pytest.mark.parametrize(
        ("command", "names"),
        [
            ("sources", ("copper", "broken")),
            ("calculators", ("potential",)),
            ("operators", ("swell-often",)),
            ("formats", ("folders",)),
        ],
    )
    def test_lists_show_them_with_their_package(self, run, command, names):
        lines = run(command).stdout.splitlines()
        for name in names:
            (line,) = (line for line in lines if line.split()[:1] == [name])
            assert line.split()[1:] == ["Things", "to", "plug", "in", "(from", "plugin)"]

    @pytest.mark.slow
    def test_a_search_uses_a_source_an_operator_and_a_calculator(self, run, tmp_path):
        done = run(
            *("search", "Cu", "--source", "copper:3.5", "--source", "evolution:swell-often"),
            *("--calculator", "potential:7", "--relaxations", "5", "--workers", "1", "--refine", "0"),
        )
        assert done.returncode == 0, done.stderr
        rows = list(ase.db.connect(tmp_path / "Cu" / "search.db").select(event="relaxed"))
        assert "copper" in {row.source for row in rows}

    def test_a_broken_one_is_an_error_in_one_line(self, run, tmp_path):
        done = run("search", "Cu", "--source", "broken", "--calculator", "emt")
        assert done.returncode == 1
        assert "'broken', which the package plugin registers as no_such_module:Thing" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "Cu").exists()
