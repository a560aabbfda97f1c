"""Loading of generators by registered name or by folder of weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from hybridcsp.core.registry import Entry
from hybridcsp.errors import InputError, UnknownNameError, UnreadableError
from hybridcsp.generators.base import Generator
from hybridcsp.generators.registry import GENERATORS
from hybridcsp.generators.weights_io import CARD, LARGEST_CARD, shipped
from hybridcsp.utils.paths import expanded
from hybridcsp.utils.reading import read_json

#: Shared generators in use, by class, folder and state of its files.
_loaded: WeakValueDictionary[tuple[Any, ...], Generator] = WeakValueDictionary()


def open_generator(text: str) -> Generator:
    """Load a generator with its weights.

    Parameters
    ----------
    text
        Registered name, or folder of weights; a text with a ``/`` or a leading ``.`` is a folder. A name loads the
        weights of the package; generators of other packages are constructed without arguments.

    Raises
    ------
    InputError
        If there is no such generator, or its weights cannot be used.
    """
    entry, folder = find_generator(text)
    kind = entry.load()
    if folder is None and entry.package != "hybridcsp":
        return kind()  # type: ignore[no-any-return]
    return kind.load(_folder_of(text, entry, folder))  # type: ignore[no-any-return]


def shared_generator(text: str) -> Generator:
    """Return a generator of the package that must not be changed, from memory if it is in use already.

    Sources of different compositions of a chemical system share it: sampling does not change a generator, and a copy is
    trained. Parameters and errors are those of :func:`open_generator`.
    """
    entry, folder = find_generator(text)
    kind, folder = entry.load(), _folder_of(text, entry, folder)
    files = sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in folder.iterdir())
    key = kind, folder.resolve(), tuple(files)
    loaded = _loaded.get(key)
    if loaded is None:
        loaded = _loaded[key] = kind.load(folder)
    return loaded


def _folder_of(text: str, entry: Entry, folder: Path | None) -> Path:
    """Return the folder of the weights of a generator, by default that of the package."""
    if folder is None:
        folder = shipped(entry.name)
        if not (folder / CARD).exists():
            raise InputError(
                "generator",
                text,
                reason=f"this generator has no weights in the package; train it (hybridcsp train {text} --data PATH "
                "--output FOLDER) and give that folder instead",
            )
    return folder


def new_generator(name: str, configuration: str | None = None, size: str | None = None) -> Generator:
    """Return an untrained generator.

    Parameters
    ----------
    name
        Registered name.
    configuration
        Name of the configuration; ``None`` for the default.
    size
        Name of the size; ``None`` for the default of the configuration.

    Raises
    ------
    InputError
        If no generator has this name, or it has no such configuration or size.
    """
    return GENERATORS[name].load().configured(configuration, size)  # type: ignore[no-any-return]


def find_generator(text: str) -> tuple[Entry, Path | None]:
    """Return the registry entry for a name or for a folder of weights, and the folder or ``None``.

    Raises
    ------
    InputError
        If there is no such generator.
    """
    folder = expanded(text)
    if text not in GENERATORS and (folder.is_dir() or "/" in text or text.startswith(".")):
        card = read_card(folder)
        if not isinstance(card.get("generator"), str):
            raise InputError(
                "generator", folder / CARD, reason='the card must name the generator of the weights under "generator"'
            )
        return GENERATORS[card["generator"]], folder
    if ":" in text:
        allowed = "a name or a folder of weights, without a colon (the name of a source may end in :scratch)"
        raise InputError("generator", text, allowed)
    if text not in GENERATORS:
        raise UnknownNameError("generator", text, GENERATORS.entries(), "or a folder of weights")
    return GENERATORS[text], None


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a folder of weights.

    Raises
    ------
    InputError
        If the card is missing or damaged.
    """
    try:
        card = read_json(folder / CARD, LARGEST_CARD)
    except UnreadableError as error:
        raise InputError(
            "generator", folder, reason=f"a folder of weights must hold a {CARD} ({error.reason})"
        ) from error
    if not isinstance(card, dict):
        raise InputError("generator", folder / CARD, reason="the card must be a JSON object")
    return card


@contextmanager
def one_thread() -> Iterator[None]:
    """Restrict torch, if it is loaded, to one thread, because workers use the other cores and sums would differ."""
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
