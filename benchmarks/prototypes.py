"""Count the prototypes of crystals, fit how chemistry ranks them, and measure the ranking on formulas held out.

    python benchmarks/prototypes.py TRAIN.extxyz [MORE.extxyz ...] [--labels LABELS.json] [--fit]
        [--results benchmarks/results/prototypes.json] [--write hybridcsp/data/prototype_counts.json]

A tenth of the reduced formulas is held out; the table is counted anew without them, and for each crystal held out the
known prototypes of its stoichiometry are ranked, once by how often they occur and once by
:func:`hybridcsp.prototypes.ranking.placements`. Reported is the share of *all* crystals held out, also of those whose
prototype the table does not know, whose own prototype (space group and Wyckoff letters) is among the first k. Where
ranks are equal they are shared. ``--fit`` fits the weights of the elements' properties and of popularity on the other
nine tenths, each crystal predicted from those of other formulas (torch, minutes), and prints them. ``--write`` writes
the table counted from everything. Finding the labels takes about 15 ms per crystal; ``--labels`` keeps them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase.data import chemical_symbols

from hybridcsp.prototypes import CountTable, Label, identify
from hybridcsp.prototypes.labels import slot_orders
from hybridcsp.prototypes.ranking import POPULARITY, placements, probability_by_label
from hybridcsp.prototypes.table import encode_counts, reduced_hill_formula
from hybridcsp.structure.elements import KERNEL_EXPONENT, PROPERTY_WEIGHTS, properties
from hybridcsp.structure.symmetry import SYMPREC_LOOSE

KS = (1, 5, 10, 20, 50)

Crystal = tuple[Label, tuple[int, ...]]


def labels_of(files: Sequence[Path], kept: Path | None) -> list[Crystal]:
    if kept and kept.exists():
        raw = json.loads(kept.read_text())
    else:
        raw, unknown = [], 0
        for path in files:
            for atoms in ase.io.iread(path):
                found = identify(atoms)
                if found is None:
                    unknown += 1
                    continue
                label, elements = found
                raw.append((label.stoichiometry, label.spacegroup, label.letters, elements))
        print(f"{unknown} crystals without consistent symmetry at {SYMPREC_LOOSE} Å")
        if kept:
            kept.write_text(json.dumps(raw))
    return [(Label(tuple(s), number, tuple(letters)), tuple(elements)) for s, number, letters, elements in raw]


def formula_of(crystal: Crystal) -> str:
    label, elements = crystal
    return reduced_hill_formula({chemical_symbols[z]: n for z, n in zip(elements, label.stoichiometry, strict=True)})


def counted(crystals: Sequence[Crystal], data: str) -> dict[str, object]:
    prototypes = encode_counts(crystals)
    card = {
        "what": "how often a prototype occurs and with which elements in its slots; no coordinates, no cells",
        "data": data,
        "crystals": len(crystals),
        "prototypes": sum(map(len, prototypes.values())),
        "labels": f"hybridcsp.prototypes.identify at {SYMPREC_LOOSE} Å",
        "reduced_formulas": "those of the stoichiometry and the elements of each entry: CountTable.formulas",
        "date": time.strftime("%Y-%m-%d"),
        "script": "benchmarks/prototypes.py",
    }
    return {"card": card, "prototypes": prototypes}


def shares(ranks: Sequence[float]) -> dict[str, float]:
    return {f"top {k}": round(float(np.mean(np.array(ranks) <= k)), 4) for k in KS}


def rank_of(scores: dict[object, float], wanted: object) -> float:
    """Place from 1; equals share the middle of their places."""
    if wanted not in scores:
        return np.inf
    values = np.array(list(scores.values()))
    own = scores[wanted]
    return float((values > own).sum() + ((values == own).sum() + 1) / 2)


def measure(table: CountTable, crystals: Sequence[Crystal]) -> dict[str, object]:
    kinds = ("popularity", "chemistry", "popularity, units known", "chemistry, units known", "chemistry and sites")
    ranks: dict[str, list[float]] = {kind: [] for kind in kinds}
    seconds = []
    for label, elements in crystals:
        start = time.perf_counter()
        known = table.matching(label.stoichiometry)
        ranked = placements(elements, known)
        seconds.append(time.perf_counter() - start)
        popularity = dict(zip(known.labels, np.bincount(known.which, known.counts, len(known.labels)), strict=True))
        chemistry = dict(probability_by_label(ranked))
        own = {tuple(elements[slot] for slot in symmetry) for symmetry in label.symmetries}
        sites = {(p.label, p.elements): p.probability for p in ranked}
        ranks["popularity"].append(rank_of(popularity, label))
        ranks["chemistry"].append(rank_of(chemistry, label))
        for name, scores in (("popularity", popularity), ("chemistry", chemistry)):
            fitting = {other: score for other, score in scores.items() if other.units == label.units}
            ranks[f"{name}, units known"].append(rank_of(fitting, label))
        ranks["chemistry and sites"].append(rank_of(sites, (label, min(own))))
    return {
        "crystals": len(crystals),
        "known prototypes": round(float(np.mean(np.isfinite(ranks["chemistry"]))), 4),
        "share with the right prototype": {kind: shares(found) for kind, found in ranks.items()},
        "milliseconds per query": {
            "median": round(1e3 * float(np.median(seconds)), 2),
            "99 %": round(1e3 * float(np.quantile(seconds, 0.99)), 2),
            "first": round(1e3 * seconds[0], 2),
        },
    }


def fit(crystals: Sequence[Crystal], steps: int, seed: int) -> dict[str, float]:
    """Maximise the likelihood of the prototypes of crystals, each predicted from those of all other formulas."""
    import torch

    torch.set_num_threads(1)
    generator = np.random.default_rng(seed)
    raw = torch.tensor(properties())
    spread = raw[1:100].std(0)
    log_weights = torch.log(torch.tensor(list(PROPERTY_WEIGHTS.values())) * spread).requires_grad_(True)
    log_popularity = torch.tensor(np.log(POPULARITY)).requires_grad_(True)
    log_tail = torch.tensor(np.log(KERNEL_EXPONENT)).requires_grad_(True)
    optimiser = torch.optim.Adam([log_weights, log_popularity, log_tail], lr=0.05)
    shelves: dict[tuple[int, ...], list[int]] = {}
    for i, (label, _) in enumerate(crystals):
        shelves.setdefault(label.stoichiometry, []).append(i)
    formulas = np.unique([formula_of(crystal) for crystal in crystals], return_inverse=True)[1]
    for step in range(steps):
        optimiser.zero_grad()
        scaled = raw / spread * torch.exp(log_weights)
        squares = ((scaled[:, None] - scaled[None]) ** 2).sum(-1)
        tail = torch.exp(log_tail)
        loss, n = torch.zeros((), dtype=torch.float64), 0
        chosen = set(generator.choice(len(crystals), min(1500, len(crystals)), replace=False).tolist())
        for stoichiometry, members in shelves.items():
            queries = [i for i in members if i in chosen]
            if not queries:
                continue
            names, which = np.unique([hash(crystals[i][0]) for i in members], return_inverse=True)
            elements = torch.tensor([crystals[i][1] for i in members])
            asked = torch.tensor([crystals[i][1] for i in queries])
            others = torch.tensor(formulas[queries][:, None] != formulas[members][None], dtype=torch.float64)
            weight = torch.zeros_like(others)
            for order in slot_orders(stoichiometry):
                apart = sum(squares[asked[:, o]][:, elements[:, k]] for k, o in enumerate(order))
                weight = weight + (1 + apart / (2 * tail)) ** -tail
            to = torch.tensor(which)
            shape = torch.zeros(len(queries), len(names), dtype=torch.float64)
            found = shape.index_add(1, to, weight * others)
            popular = shape.index_add(1, to, others)
            popular = popular / popular.sum(1, keepdim=True).clamp(min=1)
            share = torch.exp(log_popularity)
            chance = (found + share * popular) / (found.sum(1, keepdim=True) + share)
            own = to[[members.index(i) for i in queries]]
            rows = torch.arange(len(queries))
            seen = popular[rows, own] > 0
            loss = loss - torch.log(chance[rows, own][seen]).sum()
            n += int(seen.sum())
        (loss / n).backward()
        optimiser.step()
        if step % 10 == 0:
            print(f"  step {step}: {float(loss.detach()) / n:.4f} nats per crystal", flush=True)
    weights = (torch.exp(log_weights) / spread).detach().tolist()
    fitted = {"KERNEL_EXPONENT": log_tail, "POPULARITY": log_popularity}
    return {
        **dict(zip(PROPERTY_WEIGHTS, weights, strict=True)),
        **{name: float(torch.exp(value.detach())) for name, value in fitted.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=Path, help="JSON file in which labels are kept between runs")
    parser.add_argument("--fit", type=int, nargs="?", const=100, help="fit the weights, in so many steps")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()

    crystals = labels_of(arguments.files, arguments.labels)
    formulas = [formula_of(crystal) for crystal in crystals]
    distinct = sorted(set(formulas))
    generator = np.random.default_rng(arguments.seed)
    held = set(generator.choice(distinct, len(distinct) // 10, replace=False).tolist())
    kept = [crystal for crystal, formula in zip(crystals, formulas, strict=True) if formula not in held]
    tested = [crystal for crystal, formula in zip(crystals, formulas, strict=True) if formula in held]
    print(f"{len(crystals)} crystals of {len(distinct)} formulas; {len(tested)} of {len(held)} formulas held out")
    if arguments.fit:
        print(json.dumps(fit(kept, arguments.fit, arguments.seed), indent=1))

    data = f"Materials Project crystals ({', '.join(path.name for path in arguments.files)}), CC BY 4.0"
    results = {
        "data": data,
        "seed": arguments.seed,
        "formulas held out": len(held),
        "crystals counted": len(kept),
        "load": round(os.getloadavg()[0], 1),
        "weights": PROPERTY_WEIGHTS,
        "KERNEL_EXPONENT": KERNEL_EXPONENT,
        "POPULARITY": POPULARITY,
        **measure(CountTable(counted(kept, data)), tested),
    }
    print(json.dumps(results, indent=1, ensure_ascii=False))
    if arguments.results:
        write(arguments.results, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if arguments.write:
        write(arguments.write, json.dumps(counted(crystals, data), ensure_ascii=False).replace('}, "', '},\n"') + "\n")


def write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main()
