"""Which generator, trained on substituted crystals of one chemical system, yields most low minima per relaxation?

    python benchmarks/generator_systems.py data FOLDER --system V-O --data mp20_train.extxyz mpts52_train.extxyz
    python benchmarks/generator_systems.py train FOLDER --system V-O --generators wyckoff imatgen ftcp --minutes 10
    python benchmarks/generator_systems.py measure FOLDER --system V-O
    python benchmarks/generator_systems.py search FOLDER --system V-O --relaxations 16
    python benchmarks/generator_systems.py report FOLDER --system V-O

*data*: the known crystals of the system with at most 20 atoms are what is sought. The elements of all other crystals of
the files, and of the AFLOW prototypes, are replaced by those of the system (``hybridcsp dataset substitute``, edges of
at most 10 Å); the most similar ones are relaxed with CHGNet, folded, and those that are a known crystal
(StructureMatcher) are taken out. What is left is the training set of all generators: ``FOLDER/SYSTEM/train.extxyz``.

*train*: each generator gets the same processor time. The cost of an epoch is measured first, and the number of epochs
follows from it; the weights of the epoch with the lowest held-out loss are kept. Configurations are written
NAME:CONFIGURATION, as ``ftcp:published``.

*measure*: 20 samples for the contents of each known crystal (match at 1 and 20, and METRe, the share of known crystals
that any sample of their contents matches, doi:10.48550/arXiv.2509.12178), and their validity, uniqueness, novelty and
symmetry.

*search*: each arm alone seeds searches, one for each of the compositions, with the same number of relaxations (CHGNet,
one worker, one seed). Arms: the trained generators; ``random``; ``substituted``, the unrelaxed substitutions, those
with the most similar elements first; ``tree-search``. The compositions are those of the known crystals and the most
frequent others of the training set. *Yield*: minima at most 100 meV/atom above the convex hull, each counted once, for
100 relaxations and for 1,000 force calls. The hull is that of the minima of all arms, the known crystals and the
elements.

Each result is a line of results/generator_systems_runs.jsonl; what is recorded is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from known_crystals import relaxed
from run_lines import append_line, read_lines

from hybridcsp import Search
from hybridcsp.core.hull import Hull
from hybridcsp.core.outcomes import Failed
from hybridcsp.datasets import fold, read_crystals, write_dataset
from hybridcsp.generators.base import Reject, Request
from hybridcsp.generators.datasets import read_dataset
from hybridcsp.generators.loading import new_generator, one_thread, open_generator
from hybridcsp.generators.metrics import displacement, evaluate, index_of, summarise
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import primitive

RESULTS = Path(__file__).parent / "results"
RUNS, TABLE = RESULTS / "generator_systems_runs.jsonl", RESULTS / "generator_systems.json"

#: Atoms in the primitive cells, and lengths of edges in Å, that all representations can hold.
MAX_ATOMS, MAX_EDGE = 20, 10.0

#: Compositions that each arm searches.
COMPOSITIONS = 6

#: Height above the hull in eV/atom up to which minima count.
NEAR = 0.1

SAMPLES, KS = 20, (1, 20)

#: Parts of files of weights that are not parameters of networks.
TABLES = ("positions", "memory", "means", "known")

#: Relaxations of a search for an element of which no crystal is known.
ELEMENT_RELAXATIONS = 40

#: Epochs of a short training that tell the cost of one.
PROBED = 4

#: Arms that need no training.
UNTRAINED = ("random", "substituted", "tree-search")


def contents_of(atoms: Atoms) -> dict[str, int]:
    """Return the numbers of atoms by element."""
    return dict(sorted(Counter(atoms.get_chemical_symbols()).items()))


def formula(contents: dict[str, int]) -> str:
    """Return the formula of contents, unreduced."""
    return "".join(f"{element}{number}" for element, number in contents.items())


def hull_of(elements: Sequence[str], phases: Iterable[tuple[str, float]]) -> Hull:
    """Return the convex hull of phases, given by formula and energy in eV/atom."""
    hull = Hull(elements)
    for name, energy in sorted(phases, key=lambda phase: -phase[1]):  # the last of a composition is kept
        hull.put(name, energy)
    return hull


def known_crystals(files: Iterable[Path], elements: set[str]) -> list[Atoms]:
    """Return the primitive cells of the crystals of exactly these elements."""
    found = []
    for file in files:
        for atoms in ase.io.iread(file):
            if set(atoms.get_chemical_symbols()) == elements:
                cell = primitive(atoms)
                cell.info = {"material_id": str(atoms.info.get("material_id"))}
                found.append(cell)
    return found


def make_data(folder: Path, system: str, files: Sequence[Path], count: int, workers: int) -> None:
    """Make the training set of a system, and the relaxed known crystals and elements."""
    elements = system.split("-")
    folder.mkdir(parents=True, exist_ok=True)
    known = [atoms for atoms in known_crystals(files, set(elements)) if len(atoms) <= MAX_ATOMS]
    pure = [a for element in elements for a in known_crystals(files, {element}) if len(a) <= MAX_ATOMS]
    ase.io.write(folder / "known.extxyz", known)
    substituted, relaxation = folder / "substituted.extxyz", folder / "relaxation"
    if not substituted.exists():
        libraries = [part for file in files for part in ("--library", str(file))]
        _hybridcsp(
            *("dataset", "substitute", system, *libraries, "--library", "aflow", "--exclude", folder / "known.extxyz"),
            *("--max-atoms", MAX_ATOMS, "--max-edge", MAX_EDGE, "--count", count, "--output", substituted),
        )
    _hybridcsp(*("dataset", "relax", substituted, "--output", relaxation, "--workers", workers, "--max-steps", 300))
    references: list[Atoms] = []
    settings = RelaxationSettings()
    with WorkerPool(Relaxer(calculator="chgnet", settings=settings), workers=1) as pool:
        for atoms in (*known, *pure):
            outcome = relaxed(atoms, pool)
            if isinstance(outcome, Failed):
                print(f"{atoms.info['material_id']} is left out: {outcome.detail}")
                continue
            cell = outcome.atoms.copy()
            cell.info = atoms.info | {"energy_per_atom": outcome.enthalpy_per_atom}
            references.append(cell)
    for element in elements:
        if not any(set(atoms.get_chemical_symbols()) == {element} for atoms in references):
            references.append(_element(element, folder))
    ase.io.write(folder / "references.extxyz", references)
    found = read_crystals([relaxation])
    left_out: Counter[str] = Counter()
    matcher = StructureMatcher()
    sought = [to_pymatgen(atoms) for atoms in references if set(atoms.get_chemical_symbols()) == set(elements)]
    ordered = sorted(found.atoms, key=lambda one: float(one.info["energy_per_atom"]))
    phases = [(formula(contents_of(a)), float(a.info["energy_per_atom"])) for a in (*references, *ordered)]
    hull = hull_of(elements, phases)
    kept = []
    for atoms in fold(ordered, left_out):
        structure = to_pymatgen(atoms)
        if any(matcher.fit(structure, one) for one in sought):
            left_out["a known crystal"] += 1
            continue
        height = hull.height(formula(contents_of(atoms)), float(atoms.info["energy_per_atom"]))
        atoms.info["e_above_hull"] = max(0.0, float(height or 0.0))
        kept.append(atoms)
    card = write_dataset(
        kept, folder / "train.extxyz", "convert", settings={"fold": True}, inputs=found.inputs, left_out=left_out
    )
    line = {"kind": "data", "system": system, "known": len(sought), "crystals": card["crystals"]}
    line |= {"formulas": card["formulas"], "left_out": dict(left_out), "relaxed": len(found.atoms)}
    append_line(RUNS, line)
    print(line)


def _element(element: str, folder: Path) -> Atoms:
    """Search an element of which the files have no crystal, and return its lowest minimum."""
    with Search(
        element, formula_units=(1, 8), calculator="chgnet", workers=1, directory=folder / "searches" / element
    ) as found:
        found.run(relaxations=ELEMENT_RELAXATIONS, refine=1)
        (best,) = found.minima(1)
    atoms = best.atoms.copy()
    atoms.calc = None
    atoms.info = {"material_id": f"searched-{element}", "energy_per_atom": best.enthalpy_per_atom}
    return atoms


def _hybridcsp(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "hybridcsp", *map(str, arguments)], check=True)


def train(folder: Path, system: str, name: str, minutes: float, seed: int) -> None:
    """Train a generator for a processor time."""
    output = folder / name.replace(":", "-")
    if (output / "card.json").exists():
        return
    generator, _, configuration = name.partition(":")
    examples = read_dataset([folder / "train.extxyz"], max_atoms=MAX_ATOMS).examples
    output.mkdir(parents=True, exist_ok=True)
    clock: dict[str, list[float]] = {}
    probe = new_generator(generator, configuration or None)
    with one_thread():
        probe.fit(
            examples,
            seed=seed,
            epochs=PROBED,
            on_epoch=lambda epoch: clock.setdefault(epoch.part, []).append(time.process_time()),
        )
    # Without the first epoch of each network, which has to wait for what is done once.
    seconds = sum((times[-1] - times[0]) / (len(times) - 1) for times in clock.values())
    epochs = max(1, round(60 * minutes / seconds))
    model, begun = new_generator(generator, configuration or None), time.process_time()
    print(f"{name}: {len(examples)} crystals, {seconds:.2f} s an epoch, at most {epochs} epochs", flush=True)
    with one_thread():
        model.fit(examples, seed=seed, epochs=epochs, patience=epochs, checkpoint=output / "checkpoint.safetensors")
    model.save(output)
    line = {"kind": "training", "system": system, "arm": name, "seed": seed, "examples": len(examples)}
    line |= {"epochs": epochs, "processor_minutes": round((time.process_time() - begun) / 60, 2)}
    line["parameters"] = _parameters(output)
    append_line(RUNS, line)
    print(line, flush=True)


def _parameters(folder: Path) -> int:
    """Return the number of parameters of the networks."""
    from safetensors import safe_open

    with safe_open(folder / "weights.safetensors", "np") as weights:
        names = [key for key in weights.keys() if key.partition(".")[0] not in TABLES]  # noqa: SIM118
        return sum(int(np.prod(weights.get_slice(key).get_shape())) for key in names)


def measure(folder: Path, system: str, arms: Sequence[str], seed: int) -> None:
    """Measure samples for the contents of the known crystals."""
    done = {line["arm"] for line in read_lines(RUNS) if line["kind"] == "samples" and line["system"] == system}
    known = ase.io.read(folder / "known.extxyz", ":")
    learned = index_of(read_crystals([folder / "train.extxyz"]).atoms)
    for arm in arms:
        place = folder / arm.replace(":", "-")
        if arm in done or not (place / "card.json").exists():
            continue
        generator = open_generator(str(place))
        with one_thread():
            scores = summarise(evaluate(generator, known, samples=SAMPLES, seed=seed, known=learned), KS)
            pooled = _pooled_matches(generator, known, seed)
        append_line(RUNS, {"kind": "samples", "system": system, "arm": arm, "seed": seed, "METRe": pooled} | scores)
        print(arm, scores, pooled, flush=True)


def _pooled_matches(generator: Any, known: Sequence[Atoms], seed: int) -> float:
    """Return the share of known crystals that any of the samples of their contents matches."""
    matched = 0
    by_contents: dict[str, list[Any]] = {}
    for atoms in known:
        key = formula(contents_of(atoms))
        if key not in by_contents:
            requests = [Request(contents=contents_of(atoms))] * SAMPLES
            by_contents[key] = generator.sample(requests, np.random.default_rng([seed, 1, len(by_contents)]))
        answers = (answer for answer in by_contents[key] if not isinstance(answer, Reject))
        matched += any(displacement(answer.atoms, atoms)[0] is not None for answer in answers)
    return matched / len(known)


def compositions(folder: Path) -> list[str]:
    """Return the compositions that are searched."""
    known = [formula(contents_of(atoms)) for atoms in ase.io.read(folder / "known.extxyz", ":")]
    trained = ase.io.read(folder / "train.extxyz", ":")
    frequent = Counter(formula(contents_of(atoms)) for atoms in trained if 4 <= len(atoms) <= 14)
    ranked = sorted(frequent, key=lambda one: (-frequent[one], one))
    return list(dict.fromkeys([*known, *ranked]))[:COMPOSITIONS]


def search(folder: Path, system: str, arm: str, relaxations: int, seed: int) -> None:
    """Search each composition with one source."""
    done = {
        (line["arm"], line["contents"], line["seed"], line["relaxations"])
        for line in read_lines(RUNS)
        if line["kind"] == "search" and line["system"] == system
    }
    matcher = StructureMatcher()
    references = [(a.info["material_id"], to_pymatgen(a)) for a in ase.io.read(folder / "references.extxyz", ":")]
    for contents in compositions(folder):
        if (arm, contents, seed, relaxations) in done:
            continue
        begun = time.monotonic()
        place = folder / "searches" / f"{arm.replace(':', '-')}-{contents}-{seed}"
        line: dict[str, Any] = {"kind": "search", "system": system, "arm": arm, "contents": contents, "seed": seed}
        line |= {"relaxations": relaxations, "minima": [], "force_calls": 0, "made": 0, "failed": 0, "stopped": ""}
        try:
            found = _searched(folder, arm, contents, relaxations, seed, place)
        except Exception as error:  # noqa: BLE001 - a source that can propose nothing at these contents has yielded nothing
            line["stopped"] = f"{type(error).__name__}: {str(error)[:200]}"
        else:
            state = found.archive.state
            line["made"], line["force_calls"] = state.relaxations, state.cost.force_calls
            line["failed"] = sum(isinstance(event, Failed) for event in found.archive.history())
            for minimum in found.minima():
                structure = to_pymatgen(minimum.atoms)
                names = [name for name, one in references if matcher.fit(structure, one)]
                line["minima"].append([round(minimum.enthalpy_per_atom, 5), minimum.first_relaxation, names])
            found.close()
        line["seconds"] = round(time.monotonic() - begun, 1)
        line["load"] = round(os.getloadavg()[0], 1)
        append_line(RUNS, line)
        print(arm, contents, line["made"], "relaxations,", line["force_calls"], "calls", line["stopped"], flush=True)


def _searched(folder: Path, arm: str, contents: str, relaxations: int, seed: int, place: Path) -> Search:
    sources = {
        "random": "random",
        "tree-search": "tree-search",
        "substituted": f"seeds:{folder / 'substituted.extxyz'}",
    }
    source = sources.get(arm, f"generative:{folder / arm.replace(':', '-')}")
    found = Search(
        contents, formula_units=1, sources=[source], calculator="chgnet", seed=seed, workers=1, directory=place
    )
    found.run(relaxations=relaxations, refine=0)
    return found


def report(systems: Sequence[str], references: dict[str, Path]) -> None:
    """Print the table of each system."""
    lines = read_lines(RUNS)
    console, kept = Console(width=150), json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for system in systems:
        own = [line for line in lines if line["system"] == system]
        searches = [line for line in own if line["kind"] == "search"]
        phases = ase.io.read(references[system], ":")
        energies = [(formula(contents_of(a)), float(a.info["energy_per_atom"])) for a in phases]
        energies += [(line["contents"], energy) for line in searches for energy, _, _ in line["minima"]]
        hull = hull_of(system.split("-"), energies)
        arms = list(dict.fromkeys(line["arm"] for line in searches))
        number_known = sum(len(set(atoms.get_chemical_symbols())) == len(system.split("-")) for atoms in phases)
        title = f"{system}: {number_known} known crystals"
        table = Table(title=title)
        heads = ["arm", "train min", "weights", "valid", "unique", "new", "symm.", "match@1", "@20", "METRe"]
        for head in [*heads, "relaxed", "calls", "failed", "known", "near hull", "/100 relax. (95 %)", "/1000 calls"]:
            table.add_column(head, justify="left" if head == "arm" else "right")
        rows = {}
        for arm in arms:
            rows[arm] = row = _row(arm, own, hull)
            samples = row["samples"]
            values = [samples.get(k) for k in ("valid", "unique", "new", "symmetric")]
            values += [samples.get("match rate at 1"), samples.get("match rate at 20"), samples.get("METRe")]
            low, high = row["interval"]
            table.add_row(
                arm,
                f"{row['minutes']:.1f}" if row["minutes"] else "",
                f"{row['parameters']:,}" if row["parameters"] else "",
                *("" if value is None else f"{100 * value:.0f} %" for value in values),
                str(row["made"]),
                str(row["calls"]),
                str(row["failed"]),
                str(len(row["known"])),
                str(row["near"]),
                f"{row['per 100 relaxations']:.0f} ({low:.0f}-{high:.0f})",
                f"{row['per 1000 calls']:.1f}",
            )
        console.print(table)
        kept[system] = {"known": number_known, "arms": rows}
    TABLE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _row(arm: str, lines: Sequence[dict[str, Any]], hull: Hull) -> dict[str, Any]:
    mine = [line for line in lines if line.get("arm") == arm]
    training = next((line for line in mine if line["kind"] == "training"), {})
    samples = next((line for line in mine if line["kind"] == "samples"), {})
    searches = [line for line in mine if line["kind"] == "search"]
    near, known = [], set()
    for line in searches:
        heights = [hull.height(line["contents"], energy) for energy, _, _ in line["minima"]]
        near.append(sum(height is not None and height <= NEAR for height in heights))
        known |= {name for _, _, names in line["minima"] for name in names}
    # A source that proposes too little has used its chances: what was asked for counts, not what was made.
    asked = np.array([line["relaxations"] for line in searches])
    counts = np.array(near)
    draws = np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))
    spread = 100 * counts[draws].sum(axis=1) / asked[draws].sum(axis=1)
    calls = sum(line["force_calls"] for line in searches)
    return {
        "minutes": training.get("processor_minutes"),
        "parameters": training.get("parameters"),
        "samples": {key: value for key, value in samples.items() if key not in ("kind", "system", "arm", "seed")},
        "made": sum(line["made"] for line in searches),
        "asked": int(asked.sum()),
        "calls": calls,
        "failed": sum(line["failed"] for line in searches),
        "known": sorted(known),
        "near": int(counts.sum()),
        "per 100 relaxations": 100 * float(counts.sum()) / float(asked.sum()),
        "interval": [float(value) for value in np.percentile(spread, (2.5, 97.5))],
        "per 1000 calls": 1000 * float(counts.sum()) / max(1, calls),
    }


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["data", "train", "measure", "search", "report"])
    parser.add_argument("folder", type=Path, help="folder of data, weights and searches, outside the repository")
    parser.add_argument("--system", nargs="+", default=["V-O"])
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="known crystals")
    parser.add_argument("--count", type=int, default=800, help="substituted crystals that are relaxed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--generators", nargs="+", default=["wyckoff", "imatgen", "ftcp"])
    parser.add_argument("--arms", nargs="+", help="all that are trained and all that need no training, by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="processor time of each training")
    parser.add_argument("--relaxations", type=int, default=16, help="for each composition")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.step == "report":
        report(options.system, {system: options.folder / system / "references.extxyz" for system in options.system})
        return
    for system in options.system:
        folder = options.folder / system
        arms = options.arms or [*options.generators, *UNTRAINED]
        if options.step == "data":
            make_data(folder, system, options.data, options.count, options.workers)
        elif options.step == "train":
            for name in options.generators:
                train(folder, system, name, options.minutes, options.seed)
        elif options.step == "measure":
            measure(folder, system, arms, options.seed)
        else:
            for arm in arms:
                search(folder, system, arm, options.relaxations, options.seed)


if __name__ == "__main__":
    main()
