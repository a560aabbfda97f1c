"""Symmetry of a CIF: its operations, or those of the space group that it names.

The 530 settings and their operations are spglib's. A CIF that only names its group leaves open which origin, axes or
cell it means; what the cell allows, and in the end what the sites make of it, decides that.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hybridcsp.io.cif.syntax import DataBlock
from hybridcsp.io.frames import StructureError

Floats = NDArray[np.float64]

_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_magn_operation_xyz",
)
_CENTRINGS = ("_space_group_symop_magn_centering_xyz",)
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_HERMANN_MAUGUIN = (
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_symmetry_space_group_name_h_m",
    "_symmetry_space_group_name_h-m_alt",
    "_space_group_magn_name_h-m",
)
_NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number", "_symmetry_space_group_number")

#: By how much an operation may change the metric of the cell, as a fraction of the product of two lengths.
_METRIC_TOLERANCE = 0.02

#: Translations of operations are multiples of 1/24 in space groups, of 1/120 in some supercells, whatever their digits.
_GRID = 120
_COARSE = 5  # of these are 1/24
_NEAR, _VERY_NEAR = 0.004, 0.001

_TERM = re.compile(r"([+-]?)(?:(\d+(?:\.\d*)?|\.\d+)(?:/(\d+(?:\.\d*)?))?)?(\*?[xyz])?")


@dataclass(frozen=True, eq=False, slots=True)
class Operations:
    """Operations on fractional coordinates: ``x' = rotations @ x + translations``.

    Attributes
    ----------
    name
        What they are called in messages.
    rotations, translations
        Shapes ``(n, 3, 3)`` and ``(n, 3)``; translations are from 0 to below 1.
    """

    name: str
    rotations: Floats
    translations: Floats

    def __len__(self) -> int:
        return len(self.rotations)

    def images(self, place: Floats) -> Floats:
        """Return the images of a position, shape ``(n, 3)``."""
        return self.rotations @ place + self.translations

    def keep(self, metric: Floats) -> bool:
        """Whether the operations map a lattice with this metric tensor onto itself."""
        lengths = np.sqrt(np.diag(metric))
        changed = np.einsum("nji,jk,nkl->nil", self.rotations, metric, self.rotations) - metric
        return bool((np.abs(changed) <= _METRIC_TOLERANCE * np.outer(lengths, lengths)).all())


IDENTITY = Operations("P 1", np.eye(3)[None], np.zeros((1, 3)))


def operations_of(block: DataBlock, metric: Floats) -> list[Operations]:
    """Return what the symmetry of a data block may be.

    Parameters
    ----------
    block
        The data block.
    metric
        Metric tensor of its cell, shape ``(3, 3)``.

    Returns
    -------
    list
        One, unless only a space group is named that has several origins: then one for each. The identity alone where
        the block says nothing of symmetry.

    Raises
    ------
    StructureError
        If the operations are damaged, no group, or not those of the lattice; if the group named is not known.
    """
    number = _number(block)
    symbol = block.value(*_HERMANN_MAUGUIN)
    listed = _listed(block)
    if listed is not None:
        if not listed.keep(metric):
            raise StructureError(0, "the cell does not have the symmetry of the operations listed")
        _check_completeness(listed, _named(symbol, number))
        return [listed]
    hall = block.value(*_HALL)
    settings = _by_hall().get(_spaced(hall)) if hall else None
    settings = settings or _named(symbol, number)
    if settings is None:
        if symbol or hall or number:
            raise StructureError(
                0, f"the space group {symbol or hall or number} is not known, and no operations are listed"
            )
        return [IDENTITY]
    return _fitting(settings, metric, symbol or hall or f"number {number}")


def unlisted(block: DataBlock, metric: Floats) -> list[Operations]:
    """Return the group that is named beside a list of the identity alone, in all settings that the cell allows.

    Programs that write all atoms of a cell leave it there; so do others that have lost the list.
    """
    listed = _listed(block)
    if listed is None or len(listed) > 1:
        return []
    settings = _named(block.value(*_HERMANN_MAUGUIN), _number(block)) or []
    return [group for group in map(_of_setting, settings) if len(group) > 1 and group.keep(metric)]


def _number(block: DataBlock) -> int | None:
    text = block.value(*_NUMBER)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= 230:
        raise StructureError(0, f"the space group number {text[:20]!r} is not one from 1 to 230")
    return int(text)


def _listed(block: DataBlock) -> Operations | None:
    texts = [text for text in block.column(*_OPERATIONS) or [] if text not in ("?", ".", "")]
    if not texts:
        return None
    operations = [_parsed(text) for text in texts]
    centrings = [_parsed(text) for text in block.column(*_CENTRINGS) or ["x,y,z"]]
    found = {}
    for rotation, translation in operations:
        for _, centring in centrings:
            shift = _on_grid(translation + centring)
            found[(rotation.tobytes(), shift.tobytes())] = rotation, shift / _GRID
    rotations, translations = (np.array(part) for part in zip(*found.values(), strict=True))
    result = Operations(f"the {len(found)} operations listed", rotations, translations)
    if not _is_group(result):
        raise StructureError(
            0, f"the {len(found)} symmetry operations listed are no group: some are missing or damaged"
        )
    return result


def _parsed(text: str) -> tuple[Floats, Floats]:
    """Return rotation and translation of ``-x+1/2, y, z``; a fourth part (time reversal) is left out."""
    parts = re.sub(r"\s", "", text.lower()).split(",")
    if len(parts) not in (3, 4):
        raise StructureError(0, f"{text[:40]!r} is not a symmetry operation")
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    for row, part in enumerate(parts[:3]):
        at = 0
        while at < len(part):
            term = _TERM.match(part, at)
            if term is None or term.end() == at or not (term[2] or term[4]) or (at and not term[1]):
                raise StructureError(0, f"{text[:40]!r} is not a symmetry operation")
            value = float(term[1] + (term[2] or "1")) / (float(term[3] or 1) or math.nan)
            if term[4]:
                rotation[row, "xyz".index(term[4][-1])] += value
            else:
                translation[row] += value
            at = term.end()
    if not np.isfinite(translation).all():
        raise StructureError(0, f"{text[:40]!r} is not a symmetry operation")
    if not (np.isin(rotation, (-1.0, 0.0, 1.0)).all() and round(abs(np.linalg.det(rotation)), 6) == 1):
        raise StructureError(0, f"{text[:40]!r} is not a symmetry operation of a lattice")
    return rotation, translation


def _on_grid(translation: Floats) -> Floats:
    """Return a translation in units of 1/120, from 0 to below 120."""
    fine = translation * _GRID
    coarse = np.rint(fine / _COARSE) * _COARSE
    shift = np.where(np.abs(fine - coarse) <= _NEAR * _GRID, coarse, np.rint(fine))
    if (np.abs(fine - shift)[shift != coarse] > _VERY_NEAR * _GRID).any():
        raise StructureError(
            0, f"a translation of {translation.tolist()} in a symmetry operation is no simple fraction"
        )
    return np.asarray(shift % _GRID)


def _is_group(operations: Operations) -> bool:
    """Whether products of operations are operations again."""
    rotations = np.rint(operations.rotations).astype(int)
    shifts = np.rint(operations.translations * _GRID).astype(int)
    known = set(_codes(rotations, shifts).tolist())
    if len(known) > 192:  # no space group has more in a conventional cell; supercells do, and are not checked
        return True
    products = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 3, 3)
    moved = (np.einsum("aij,bj->abi", rotations, shifts) + shifts[:, None]).reshape(-1, 3)
    return known >= set(_codes(products, moved).tolist())


def _codes(rotations: NDArray[np.int_], shifts: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return a number for each operation, shape ``(n,)``."""
    digits = (rotations.reshape(len(rotations), 9) + 2) @ (5 ** np.arange(9))
    return np.asarray(digits * _GRID**3 + (shifts % _GRID) @ (_GRID ** np.arange(3)), dtype=int)


def _check_completeness(listed: Operations, settings: list[int] | None) -> None:
    """Refuse a list of operations that is only a part of the group that is named."""
    if settings is None or len(listed) == 1:
        return
    codes = _operation_codes(listed)
    for hall in settings:
        group = _of_setting(hall)
        if len(group) > len(listed) and codes < _operation_codes(group):
            raise StructureError(
                0, f"only {len(listed)} of the {len(group)} operations of the space group {group.name} are listed"
            )


def _operation_codes(operations: Operations) -> set[int]:
    shifts = np.rint(operations.translations * _GRID).astype(int)
    return set(_codes(np.rint(operations.rotations).astype(int), shifts).tolist())


def _named(symbol: str | None, number: int | None) -> list[int] | None:
    """Return Hall numbers of the settings that a symbol or else a number may mean; ``None`` for unknown ones."""
    if symbol is not None:
        found = _by_symbol().get(_simplified(symbol))
        if found is not None:
            if number is not None and all(_types()[hall].number != number for hall in found):
                raise StructureError(0, f"the space group is {symbol} and has number {number}: these are two groups")
            return found
    return None if number is None else _by_number()[number]


def _fitting(settings: list[int], metric: Floats, name: str) -> list[Operations]:
    """Return the settings that the cell allows: the usual axes where several are possible, with every origin."""
    fitting = [hall for hall in settings if _of_setting(hall).keep(metric)]
    if not fitting:
        raise StructureError(0, f"the cell does not have the symmetry of the space group {name}")
    usual = min(_rank(hall) for hall in fitting)
    return [_of_setting(hall) for hall in fitting if _rank(hall) == usual]


def _rank(hall: int) -> tuple[int, str]:
    """Return a rank that orders settings by axes and cell, the standard of International Tables first."""
    axes = re.sub(r"^[12](?=$|[a-z-])", "", _types()[hall].choice)  # without the choice of origin
    order = ["", "b", "b1", "H", "R", "c", "c1", "a", "a1"]
    return (order.index(axes), "") if axes in order else (len(order), axes)


@lru_cache(maxsize=64)
def _of_setting(hall: int) -> Operations:
    import spglib

    found = spglib.get_symmetry_from_database(hall)
    kind = _types()[hall]
    name = kind.international.split(" = ")[-1] + (f":{kind.choice}" if kind.choice else "")
    translations = np.rint(found["translations"] * _GRID) % _GRID / _GRID
    return Operations(name, found["rotations"].astype(float), translations)


@lru_cache(maxsize=1)
def _types() -> dict[int, _Type]:
    import spglib

    found = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        found[hall] = _Type(kind.number, kind.international, kind.international_full, kind.hall_symbol, kind.choice)
    return found


@dataclass(frozen=True, slots=True)
class _Type:
    number: int
    international: str
    full: str
    hall: str
    choice: str


@lru_cache(maxsize=1)
def _by_hall() -> dict[str, list[int]]:
    return {_spaced(kind.hall): [hall] for hall, kind in _types().items()}


@lru_cache(maxsize=1)
def _by_number() -> dict[int, list[int]]:
    found = defaultdict(list)
    for hall, kind in _types().items():
        found[kind.number].append(hall)
    return found


@lru_cache(maxsize=1)
def _by_symbol() -> dict[str, list[int]]:
    """Return settings by all symbols that are in use for them."""
    found: dict[str, list[int]] = {}
    for names in (_symbols, _older_symbols):
        added: dict[str, list[int]] = defaultdict(list)
        for hall, kind in _types().items():
            for name in names(kind):
                if _simplified(name) not in found and hall not in added[_simplified(name)]:
                    added[_simplified(name)].append(hall)
        found |= added
    return found


def _symbols(kind: _Type) -> Iterator[str]:
    """Yield short and full symbols of today, and those that name the origin or the axes."""
    *_, own = kind.international.split(" = ")
    plain = [kind.full, own]
    if 3 <= kind.number <= 15:  # monoclinic: P 1 21/c 1 is P 21/c for short
        plain.append(" ".join(part for part in own.split() if part != "1"))
    for name in plain:
        yield name
        if kind.choice:
            yield f"{name} :{kind.choice}"
        if kind.choice in ("H", "R"):
            yield f"{name} {kind.choice}"
        elif kind.choice[:1] in ("1", "2"):
            yield f"{name} :{kind.choice[0]}"
            yield f"{name} {'SZ'[int(kind.choice[0]) - 1]}"  # ICSD: origin at the highest symmetry, or at the centre


#: The letters that stood in the place of e until 1992, per setting in spglib's order.
_GLIDES = {
    39: ("Abm2", "Bma2", "B2cm", "C2mb", "Cm2a", "Ac2m"),
    41: ("Aba2", "Bba2", "B2cb", "C2cb", "Cc2a", "Ac2a"),
    64: ("Cmca", "Ccmb", "Abma", "Acam", "Bbcm", "Bmab"),
    67: ("Cmma", "Cmmb", "Abmm", "Acmm", "Bmcm", "Bmam"),
    68: ("Ccca", "Ccca", "Cccb", "Cccb", "Abaa", "Abaa", "Acaa", "Acaa", "Bbcb", "Bbcb", "Bbab", "Bbab"),
}


def _older_symbols(kind: _Type) -> Iterator[str]:
    if kind.number in _GLIDES:
        hall = _by_hall()[_spaced(kind.hall)][0]
        name = _GLIDES[kind.number][hall - _by_number()[kind.number][0]]
        yield name
        if kind.choice[:1] in ("1", "2"):
            yield f"{name} :{kind.choice[0]}"
    if kind.number >= 195:  # cubic: F d 3 m was F d -3 m
        for name in _symbols(kind):
            if "-3" in name:
                yield name.replace("-3", "3")


def _simplified(symbol: str) -> str:
    # SHELX writes the index of a screw axis in parentheses: P2(1)/c.
    return re.sub(r"[\s_]", "", re.sub(r"\((\d)\)", r"\1", symbol)).casefold()


def _spaced(symbol: str) -> str:
    """Return a Hall symbol with single spaces, which matter there: P 32 is not P 3 2."""
    return " ".join(symbol.replace("_", " ").split()).casefold()
