"""How often does a generator make the crystal that is known for given contents?

    python benchmarks/generators.py CRYSTALS.extxyz [MORE.extxyz ...]              # what is missing
    python benchmarks/generators.py CRYSTALS.extxyz --methods flow random --limit 32
    python benchmarks/generators.py CRYSTALS.extxyz --larger                       # cells of 21 to 52 atoms, apart
    python benchmarks/generators.py CRYSTALS.extxyz --only-table

Of the crystals, those count whose reduced formula belongs to the tenth that no model of ours learns from
(:func:`hybridcsp.generators.datasets.is_held_out`), at most ``--crystals`` of them, drawn with a fixed seed. Every
method gets the contents of the primitive cell and makes 20 samples. *match@k*: StructureMatcher (stol 0.5, ltol 0.3,
angle_tol 10) fits one of the first k; nothing is filtered before. The rows:

- ``wyckoff``, ``flow``: the shipped weights, or ``--weights NAME=FOLDER``. Their cards tell what they learned from; it
  is asserted that this is none of the crystals here.
- ``popular``: the k-th sample has the prototype (space group and Wyckoff letters) that is the k-th most frequent of
  the stoichiometry among the *other* nine tenths of the same files, in cells as large, with the coordinates of one of
  its crystals drawn at random, and the volume that :class:`hybridcsp.Problem` expects. The table of prototypes that is
  shipped has seen the formulas held out, and is not used. Finding the labels takes about 15 ms per crystal once; they
  are cached.
- ``random``: :class:`hybridcsp.sources.random.RandomSource`, random symmetric crystals.

Each group of 16 crystals is a line of results/generators_runs.jsonl when it is done, under the hash of what made it,
and is not done twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from rich.console import Console
from rich.table import Table

from hybridcsp.core.problem import plain_problem
from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.generators.loading import one_thread, open_generator
from hybridcsp.generators.metrics import Sampler, Scored, evaluate, index_of, summarise
from hybridcsp.generators.weights_io import overlap
from hybridcsp.prototypes import Template, TemplateLibrary
from hybridcsp.prototypes.building import substitute
from hybridcsp.prototypes.labels import reduced_counts
from hybridcsp.sources.base import Context
from hybridcsp.sources.random import RandomSource

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "generators_runs.jsonl"
TABLE = RESULTS / "generators.json"

KS = (1, 20)
SAMPLES = 20

#: How a model samples is part of what is measured; what is not among its settings is named here.
HOW = {"flow": "agreed first"}

#: Of the first rows measured, only to plan.
SECONDS_PER_CRYSTAL = {"wyckoff": 1.5, "flow": 1.5, "popular": 0.6, "random": 1.0}


class RandomSymmetric:
    """Random search's crystals, as answers to requests."""

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        return [self._answer(number, request, rng) for number, request in enumerate(requests)]

    @staticmethod
    def _answer(number: int, request: Request, rng: np.random.Generator) -> Sample | Reject:
        problem = plain_problem(request.contents)
        # This source looks at nothing but the random numbers.
        proposals = RandomSource(problem).propose(1, Context(problem=problem, archive=None, rng=rng))  # type: ignore[arg-type]
        if not proposals:
            return Reject(request=number, reason="no crystal within the bound of attempts")
        return Sample(atoms=proposals[0].atoms, request=number)


class PopularPrototypes:
    """The most frequent prototypes of the stoichiometry, one after the other."""

    def __init__(self, crystals: Sequence[Atoms]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "learned.extxyz"
            ase.io.write(file, list(crystals), columns=["symbols", "positions"])
            self._library = TemplateLibrary(file)

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        before: Counter[tuple[tuple[str, int], ...]] = Counter()  # a call begins anew: it can be repeated
        answers: list[Sample | Reject] = []
        for number, request in enumerate(requests):
            key = tuple(sorted(request.contents.items()))
            answers.append(self._answer(number, request, before[key], rng))
            before[key] += 1
        return answers

    def _answer(self, number: int, request: Request, rank: int, rng: np.random.Generator) -> Sample | Reject:
        problem = plain_problem(request.contents)
        counts = reduced_counts([atomic_numbers[s] for s, n in request.contents.items() for _ in range(n)])
        size = sum(request.contents.values())
        found: dict[Any, list[Template]] = {}
        for template in self._library.matching(tuple(counts.values())):
            if len(template.atoms) == size:
                found.setdefault(template.label, []).append(template)
        if not found:
            return Reject(request=number, reason="no prototype of this stoichiometry and size")
        ranked = sorted(found, key=lambda label: (-len(found[label]), str(label)))
        templates = found[ranked[rank % len(ranked)]]
        chosen = templates[int(rng.integers(len(templates)))]
        # Elements that occur equally often may stand in each other's place.
        orders = [o for o in permutations(counts) if [counts[e] for e in o] == list(counts.values())]
        order = orders[int(rng.integers(len(orders)))]
        atoms = substitute(chosen.atoms, dict(zip(chosen.elements, order, strict=True)), problem, 1)
        if atoms is None:
            return Reject(request=number, reason="no volume keeps all distances")
        return Sample(atoms=atoms, request=number)


def held_out(files: Sequence[Path], larger: bool, most: int) -> tuple[list[Atoms], list[Atoms]]:
    """Return the crystals to be found, and those of other formulas."""
    frames = [atoms for file in files for atoms in ase.io.iread(file)]
    fits = [(20 < len(atoms) <= 52) if larger else len(atoms) <= 20 for atoms in frames]
    held = [is_held_out(formula_of(atoms)) for atoms in frames]
    sought = [atoms for atoms, fit, out in zip(frames, fits, held, strict=True) if fit and out]
    order = np.random.default_rng(0).permutation(len(sought))[:most]
    return [sought[i] for i in order], [a for a, fit, out in zip(frames, fits, held, strict=True) if fit and not out]


def open_method(name: str, weights: dict[str, str], learned: Sequence[Atoms]) -> tuple[Sampler, str, dict[str, Any]]:
    """Return what samples, a hash of what it is made of, and what is told about it."""
    if name == "random":
        return RandomSymmetric(), "random", {}
    if name == "popular":
        made_of = hashlib.sha256("".join(str(a.info.get("material_id")) for a in learned).encode()).hexdigest()
        return PopularPrototypes(learned), made_of, {"counted from": f"{len(learned)} crystals of other formulas"}
    generator = open_generator(weights.get(name, name))
    card = {
        key: value for key, value in generator.card.items() if key not in ("training_formulas", "history", "before")
    }
    made_of = str(card.get("weights_sha256")) + repr(getattr(generator, "integration", "")) + HOW.get(name, "")
    return generator, made_of, card


def past(name: str, identity: str, crystals: int, runs: Path = RUNS) -> list[Scored]:
    """Scores of the groups that are done."""
    if not runs.exists():
        return []
    found: dict[int, Scored] = {}
    for line in runs.read_text().splitlines():
        row = json.loads(line)
        if row["method"] == name and row["identity"] == identity:
            found |= {one["crystal"]: Scored.of(one) for one in row["scored"]}
    done = 0
    while done in found:
        done += 1
    return [found[i] for i in range(min(done, crystals))]


def measure(
    name: str,
    generator: Sampler,
    identity: str,
    crystals: Sequence[Atoms],
    known: Any,
    console: Console,
    runs: Path = RUNS,
) -> None:
    done = past(name, identity, len(crystals), runs)
    if len(done) == len(crystals):
        return
    begin, clock = len(done), time.monotonic()

    def told(group: Sequence[Scored]) -> None:
        row = {"method": name, "identity": identity, "scored": [asdict(one) for one in group]}
        with runs.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        done.extend(one for one in group if one.crystal >= len(done))
        summary = summarise(done, KS)
        console.print(
            f"{name}: {len(done)} of {len(crystals)}, "
            + ", ".join(f"match@{k} {100 * summary[f'match rate at {k}']:.1f} %" for k in KS)
            + f", {(time.monotonic() - clock) / max(1, len(done) - begin):.2f} s per crystal"
        )

    with one_thread():
        evaluate(generator, crystals, samples=SAMPLES, known=known, first=begin, progress=told)


def row(scored: Sequence[Scored]) -> dict[str, Any]:
    sizes = {"all": scored, "1 to 12 atoms": [s for s in scored if s.atoms <= 12]}
    sizes["13 atoms and more"] = [s for s in scored if s.atoms > 12]
    return {name: summarise(part, KS) for name, part in sizes.items() if part}


def show(console: Console, rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title="Crystals of formulas held out")
    heads = (
        "method",
        "n",
        "match@1",
        "match@20",
        "RMSE@20",
        "valid",
        "unique",
        "new",
        "symmetric",
        "valid/cpu s",
        "cut",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for name, parts in rows.items():
        for size, one in parts["summary"].items():
            shares = [one[key] for key in ("match rate at 1", "match rate at 20")]
            more = [one[key] for key in ("valid", "unique", "new", "symmetric")]
            rmse, speed = one["RMSE at 20"], one["valid samples per processor second"]
            table.add_row(
                name if size == "all" else f"  {size}",
                str(one["crystals"]),
                *map(percent, shares),
                "" if rmse is None else f"{rmse:.3f}",
                *map(percent, more),
                "" if speed is None else f"{speed:.1f}",
                str(one["comparisons cut short"]),
            )
    console.print(table)


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(SECONDS_PER_CRYSTAL), choices=list(SECONDS_PER_CRYSTAL))
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--crystals", type=int, default=512)
    parser.add_argument("--limit", type=int, help="a quick look at so many of them; results are kept")
    parser.add_argument("--larger", action="store_true", help="cells of 21 to 52 atoms")
    parser.add_argument("--only-table", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=120)
    crystals, learned = held_out(arguments.files, arguments.larger, arguments.crystals)
    ids = "".join(str(atoms.info.get("material_id")) for atoms in crystals)
    crystals = crystals[: arguments.limit]
    formulas = {formula_of(atoms) for atoms in crystals}
    assert not formulas & {formula_of(atoms) for atoms in learned}
    planned = len(crystals) * sum(SECONDS_PER_CRYSTAL[name] for name in arguments.methods)
    console.print(f"{len(crystals)} crystals of {len(formulas)} formulas; at most {planned / 3600:.1f} core hours")
    known = index_of(a for a in learned if formula_of(a) in formulas)
    weights = dict(pair.split("=", 1) for pair in arguments.weights)
    kept = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    part = kept.setdefault("21 to 52 atoms" if arguments.larger else "1 to 20 atoms", {})
    rows: dict[str, Any] = {}
    for name in arguments.methods:
        generator, made_of, about = open_method(name, weights, learned)
        assert not overlap(getattr(generator, "card", {}), formulas), f"{name} has learned from the crystals sought"
        identity = hashlib.sha256((made_of + ids).encode()).hexdigest()[:16]
        if not arguments.only_table:
            measure(name, generator, identity, crystals, known, console)
        scored = past(name, identity, len(crystals))
        if scored:
            rows[name] = {"summary": row(scored), "about": about}
    show(console, rows)
    if not arguments.limit:
        part |= rows
        kept["about"] = {
            "files": [file.name for file in arguments.files],
            "seed": 0,
            "samples": SAMPLES,
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread",
            "load": round(os.getloadavg()[0], 1),
        }
        temporary = TABLE.with_suffix(".tmp")
        temporary.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        temporary.replace(TABLE)


if __name__ == "__main__":
    main()
