"""Build the documentation with Sphinx: ``sphinx-build -W -b html docs docs/_build``."""

from functools import cache
from types import GenericAlias
from typing import Any

import numpydoc.docscrape_sphinx
from jinja2.sandbox import SandboxedEnvironment

from hybridcsp import __version__

project = "hybridcsp"
author = "the hybridcsp developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "numpydoc",
]
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["options.css"]
html_show_copyright = False
html_title = f"hybridcsp {release}"

myst_enable_extensions = ["attrs_block", "attrs_inline", "deflist"]
myst_heading_anchors = 3

# The API reference: one page for each package, made from the docstrings.
apidoc_modules = [
    {
        "path": "../hybridcsp",
        "destination": "reference/generated",
        "separate_modules": False,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
        "exclude_patterns": ["**/__main__.py", "**/cli/**", "**/cli"],
    }
]
autodoc_default_options = {"ignore-module-all": True}  # names that a package re-exports are documented once
autodoc_mock_imports = ["sevenn", "e3nn"]  # live in an environment of their own
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
numpydoc_show_class_members = False


@cache
def template_environments() -> list[SandboxedEnvironment]:
    """Return the list of the only environment of numpydoc's template, empty before the first docstring."""
    return []


def one_environment(loader: Any) -> SandboxedEnvironment:
    """Return the same environment each time; numpydoc would compile its template again for each docstring."""
    made = template_environments()
    if not made:
        made.append(SandboxedEnvironment(loader=loader))
    return made[0]


numpydoc.docscrape_sphinx.SandboxedEnvironment = one_environment


def skip_aliases(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool:
    """Leave out names of types, which autodoc takes for classes."""
    return skip or isinstance(obj, GenericAlias)


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    app.connect("autodoc-skip-member", skip_aliases)
