"""The configuration that an archive recorded, for a run directory without a file of its own."""

from __future__ import annotations

from typing import Any

from hybridcsp.archive.archive import Archive
from hybridcsp.config.errors import SET_BY_PROBLEM
from hybridcsp.config.paths import FILE
from hybridcsp.errors import ArchiveError


def recorded_tables(archive: Archive) -> dict[str, Any]:
    """Return the configuration of an archive's last session as TOML tables."""
    directory, settings = archive.directory, archive.state.settings
    if not settings:
        raise ArchiveError(
            f"{directory} holds no search that was started, and no {FILE} that describes one: start a search with "
            f"hybridcsp search"
        )
    last = settings[-1]
    if last.get("calculator") is None:
        raise ArchiveError(
            f"{directory} holds results of {archive.state.calculator or 'another code'} and no calculator to continue "
            f"with. To supply that code with more structures, use hybridcsp watch; to relax its structures in a search "
            f"of your own: hybridcsp search {archive.formula} --source seeds:{directory / 'minima.extxyz'}"
        )
    objects = [last["calculator"], last["allocation"], *last["sources"]]
    objects += [one["objective"] for one in last.get("objectives", ())]
    then = {key: value for key, value in last.get("then", {}).items() if key not in ("named", "labels")}
    if not all(isinstance(item, str) for item in objects) or not last.get("then", {}).get("named", True):
        raise ArchiveError(f"{directory} holds a search that was made in Python with objects: resume it in Python")
    relaxation = {key: value for key, value in last["relaxation"].items() if key not in SET_BY_PROBLEM}
    search = {key: last[key] for key in ("calculator", "sources", "allocation", "seed", "workers")}
    optional = ("python", "device", "precision", "batch", "objectives", "where", "keep_evaluations", "executor")
    search |= {key: last[key] for key in optional if key in last}
    search["one_shot"] = last.get("one_shot", 1)
    search |= {"references": last["references"]} if last.get("references") else {}
    raw = {"problem": last["problem"], "search": search, "relaxation": relaxation, "limits": last["limits"]}
    raw |= {"then": then} if then else {}
    return raw | {name: last[name] for name in ("retraining", "external") if last.get(name)}
