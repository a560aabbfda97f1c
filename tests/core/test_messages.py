"""The texts of all input errors in the source code form whole sentences."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridcsp

SOURCES = sorted(Path(hybridcsp.__file__).parent.rglob("*.py"))

# Functions that pass a description of allowed values on to an InputError, with the position of that parameter.
ALLOWED = {
    "InputError": 2,
    "whole_number": 2,
    "finite_number": 2,
    "finite_numbers": 3,
    "numbers_by_name": 2,
    "sequence": 2,
    "read_number": 2,
    "Mistake": 2,
}

# "It must be …"
NOUN_PHRASE = re.compile(
    r"(an?|the|another|each|one|two|three|four|five|six|at least|at most|either|text) |one of |\{|generative:"
)
CLAUSE_AS_NOUN = re.compile(r"(an?|the|this|these|each) \w+ (is|are|must|has|have|cannot|can|runs|needs)\b")
# "… cannot be used: …"
VERBS = (
    r"(is|are|was|were|has|have|had|must|can|cannot|does|do|needs|takes|contains|belongs|holds|runs|occurs|leaves|"
    r"exists|determines|did you mean)"
)
CLAUSE = re.compile(
    rf"(?!(is|are|must|needs?|not|allowed|cannot|no such|only|write|say|give)\b)[^A-Z].*\b{VERBS}\b|\{{"
)


def template(node: ast.expr, names: dict[str, ast.expr]) -> str | None:
    """Return a text of the source code with ``{}`` for everything that is inserted; ``None`` for other values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.Name) and node.id in names:
        return template(names[node.id], {})
    return None


def texts(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """Yield kind (``"allowed"`` or ``"reason"``), text and line of all texts of input errors."""
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.Module):
            continue
        inside = list(own_nodes(scope))
        names: dict[str, ast.expr] = {}
        for node in sorted((n for n in inside if isinstance(n, ast.Assign | ast.Call)), key=lambda n: n.lineno):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = node.value
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in ALLOWED and len(node.args) > ALLOWED[name]:
                text = template(node.args[ALLOWED[name]], names)
                if text:
                    yield "allowed", text, node.lineno
            for keyword in node.keywords:
                if name in ("InputError", "Mistake") and keyword.arg in ("allowed", "reason"):
                    text = template(keyword.value, names)
                    if text:
                        yield str(keyword.arg), text, node.lineno


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope without those of the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from own_nodes(child)


def fault(kind: str, text: str) -> str | None:
    """Return what is wrong with a text of an input error."""
    if text.endswith("."):
        return "the full stop is added to the message"
    if kind == "allowed" and (not NOUN_PHRASE.match(text) or CLAUSE_AS_NOUN.match(text)):
        return "allowed must be a noun phrase that fits after 'it must be': an article or a number comes first"
    if kind == "reason" and not CLAUSE.match(text):
        return "reason must be a clause with a subject and a verb that fits after 'cannot be used:'"
    return None


def test_every_input_error_is_a_sentence():
    found = [
        (f"{file.name}:{line}", kind, text)
        for file in SOURCES
        for kind, text, line in texts(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert len(found) > 200
    wrong = [f"{where}: {kind} = {text!r}: {why}" for where, kind, text in found if (why := fault(kind, text))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("allowed", "must be a number"),
        ("allowed", "is too thin for its atoms"),
        ("allowed", "no such file or folder"),
        ("allowed", "not allowed with a fixed cell"),
        ("allowed", "the generator is not trained"),
        ("allowed", "a number."),
        ("reason", "is too thin for its atoms"),
        ("reason", "cannot run alone; add another source"),
        ("reason", "no such file or folder"),
        ("reason", "a whole number from 1"),
        ("reason", "There is no such file"),
    ],
)
def test_other_forms_are_found(kind, text):
    assert fault(kind, text)
