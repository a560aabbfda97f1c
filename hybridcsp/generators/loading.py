"""From what a person writes to a generator: a registered name, or a folder of weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridcsp.core.registry import Entry
from hybridcsp.errors import InputError, UnknownNameError, UnreadableError
from hybridcsp.generators.base import Generator
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.generators.weights_io import CARD, LARGEST_CARD, shipped
from hybridcsp.utils.reading import read_json


def open_generator(text: str) -> Generator:
    """Load a generator with its weights.

    Parameters
    ----------
    text
        A registered name: its shipped weights (for those of other packages, what their class makes without arguments).
        Or a folder that ``save`` wrote; a ``/`` in it, or ``.`` before it, tells a folder from a name.

    Raises
    ------
    InputError
        If there is no such thing, or its weights cannot be used.
    """
    entry, folder = find_generator(text)
    kind = entry.load()
    if folder is None:
        if entry.package != "hybridcsp":
            return kind()  # type: ignore[no-any-return]
        folder = shipped(entry.name)
        if not (folder / CARD).exists():
            raise InputError(
                "generator",
                text,
                f"has no weights here yet; train some (hybridcsp train {text} --data PATH --output FOLDER) and name "
                "their folder instead",
            )
    return kind.load(folder)  # type: ignore[no-any-return]


def new_generator(name: str) -> Generator:
    """Make an untrained generator.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    return GENERATORS[name].load()()  # type: ignore[no-any-return]


def find_generator(text: str) -> tuple[Entry, Path | None]:
    """Return what is registered for a name or for the weights in a folder, and the folder.

    Raises
    ------
    InputError
        If there is no such thing.
    """
    folder = Path(text).expanduser()
    if text not in GENERATORS.entries() and (folder.is_dir() or "/" in text or text.startswith(".")):
        card = read_card(folder)
        if not isinstance(card.get("generator"), str):
            raise InputError("generator", str(folder / CARD), "says of which generator the weights are")
        return GENERATORS[card["generator"]], folder
    if ":" in text:
        allowed = (
            "a name or a folder of weights, without a colon (a source may end in :scratch, and nothing follows it)"
        )
        raise InputError("generator", text, allowed)
    entries = GENERATORS.entries()
    if text not in entries:
        raise UnknownNameError("generator", text, entries, "or a folder of weights")
    return entries[text], None


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a folder of weights.

    Raises
    ------
    InputError
        If there is none.
    """
    try:
        card = read_json(folder / CARD, LARGEST_CARD)
    except UnreadableError as error:
        raise InputError("generator", str(folder), f"a folder of weights with a {CARD} ({error.reason})") from error
    if not isinstance(card, dict):
        raise InputError("generator", str(folder / CARD), "a JSON object")
    return card


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, where it is loaded, use one thread: the workers have the other cores, and sums keep their order."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
