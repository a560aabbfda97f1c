"""Train the GPU sizes of the generators within a quarter of an hour, and keep those that are better than the shipped.

    python benchmarks/on_gpu.py prepare mp20.extxyz mpts52.extxyz --cache cache.safetensors  # here, on the CPU
    python benchmarks/on_gpu.py train cache.safetensors --output trained --minutes 13        # there
    python benchmarks/on_gpu.py finish cache.safetensors trained --install                   # here again

``prepare`` reads the crystals, splits off the tenth of the formulas that is held out, and encodes all of them into one
compact file. ``train`` needs that file, this checkout, torch, numpy and safetensors, and nothing else (with scipy it
prepares batches faster): it trains ``wyckoff``'s two networks, ``flow`` and ``diffusion``, or those that ``--parts``
names, in their sizes ``gpu``, in bfloat16 on CUDA. It measures the seconds of an epoch of each first, plans as many
epochs as fit, and keeps that plan beside its checkpoints, so that it goes on where it was stopped when it is started
again: where a command may take ten minutes, start it twice. Every minute it writes the best weights so far, in half
precision. ``finish`` samples for crystals of the held-out tenth from the new and from the shipped weights in the same
run (``diffusion``, which has none, is compared with ``flow``) and installs the new ones with their card if they are
better: if the 95 % interval of the mean difference of match@1 and match@20, crystal by crystal, lies above 0, and no
file is larger than 15 MB. Groups of 16 crystals are kept in results/generators_runs.jsonl and are not sampled twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.generators.base import Epoch
    from hybridcsp.generators.joint.data import JointData
    from hybridcsp.training.batches import TrainingData
    from hybridcsp.training.settings import TrainingSettings

sys.path.insert(0, str(Path(__file__).parent))

import gpu_throughput

RESULTS = Path(__file__).parent / "results"

#: The layout of the cache; a cache of another one is refused.
FORMAT = 2

#: Largest file that may be committed.
MOST_BYTES = 15_000_000

MAX_ATOMS = {"joint": 20, "wyckoff": 52}

#: Generators of coordinates and lattice, which are trained on the same crystals.
JOINT = ("flow", "diffusion")

#: Crystals with more sites are remembered by ``wyckoff``, but its networks do not learn from them.
LONGEST = 40

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network to train.

    Attributes
    ----------
    generator
        Whose network it is.
    settings
        Of its training, apart from the number of epochs.
    share
        Of the minutes, relative to those of the other networks; what one does not need is left to those after it.
    most_epochs
        However fast it is.
    """

    generator: str
    settings: Mapping[str, Any]
    share: float
    most_epochs: int


_JOINT_SETTINGS = {"batch_size": 512, "learning_rate": 1.5e-3, "averaging": 0.9995, "patience": 10_000}

#: In the order in which they are trained.
PARTS = {
    "occupation": Part(
        generator="wyckoff",
        settings={"batch_size": 512, "learning_rate": 2e-3, "weight_decay": 0.1, "averaging": 0.998, "patience": 12},
        share=1.0,
        most_epochs=60,
    ),
    "geometry": Part(
        generator="wyckoff",
        settings={"batch_size": 512, "learning_rate": 2e-3, "weight_decay": 0.05, "averaging": 0.998, "patience": 15},
        share=3.0,
        most_epochs=150,
    ),
    "flow": Part(generator="flow", settings=_JOINT_SETTINGS, share=4.0, most_epochs=2000),
    "diffusion": Part(generator="diffusion", settings=_JOINT_SETTINGS, share=4.0, most_epochs=2000),
}

#: Sizes with which the whole job takes seconds on a CPU.
SMOKE = {
    "occupation": {"width": 16, "blocks": 1, "heads": 2},
    "geometry": {"width": 16, "blocks": 1, "heads": 2},
    "flow": {"width": 16, "message": 8, "pair": 8, "layers": 1},
    "diffusion": {"width": 16, "message": 8, "pair": 8, "layers": 1},
}
SMOKE_EPOCHS = 2


class TimeIsUp(Exception):
    """The minutes are used; what was reached is in the checkpoints and in the output."""


# Before


def prepare(files: Sequence[Path], cache: Path) -> None:
    """Encode the crystals of files into one compact file."""
    import torch
    from safetensors.torch import save

    from hybridcsp.generators import weights_io
    from hybridcsp.generators.datasets import read_dataset, split
    from hybridcsp.generators.flow.data import FlowData
    from hybridcsp.generators.rows import pack
    from hybridcsp.generators.wyckoff import WyckoffGenerator
    from hybridcsp.utils.files import atomic_write

    begun = time.monotonic()
    arrays: dict[str, NDArray[Any]] = {}
    dataset = read_dataset(files, max_atoms=MAX_ATOMS["joint"], progress=_counter("crystals read for flow"))
    learned, held = split(dataset.examples)
    training = FlowData.from_examples(learned)
    card = weights_io.describe_training(learned, {}, held_out=len(held)) | {"data": dataset.provenance}
    cards = dict.fromkeys(JOINT, card)
    for name, data in (("learned", training), ("held", FlowData.from_examples(held, training.scale) if held else None)):
        if data is not None:
            arrays |= {f"joint/{name}/{key}": value for key, value in data.arrays().items()}
    print(
        f"{' and '.join(JOINT)}: {len(learned)} crystals, {len(held)} held out, {time.monotonic() - begun:.0f} s",
        flush=True,
    )

    dataset = read_dataset(files, max_atoms=MAX_ATOMS["wyckoff"], progress=_counter("crystals read for wyckoff"))
    generator = WyckoffGenerator()
    encoded = generator.encode(dataset.examples, longest=LONGEST)
    cards["wyckoff"] = {**encoded.card, "longest": LONGEST, "data": dataset.provenance}
    for part, pair in (("occupation", encoded.occupation), ("geometry", encoded.geometry)):
        for name, data in zip(("learned", "held"), pair, strict=True):
            if data is not None:
                own = pack(data.rows) | {"conditions": data.conditions, "weights": data.weights}
                arrays |= {f"{part}/{name}/{key}": value for key, value in own.items()}
    arrays |= {f"wyckoff/{name}": np.asarray(array) for name, array in generator.tables().items()}
    lattice = {"mean": training.scale.mean.tolist(), "spread": training.scale.spread.tolist()}
    about = {"format": FORMAT, "cards": cards, "lattice": lattice, "prototypes": encoded.prototypes}
    tensors = {name: torch.as_tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    data = save(tensors, {"about": json.dumps(about)})
    with atomic_write(cache, "wb") as stream:
        stream.write(data)
    print(f"wyckoff: {encoded.card['crystals_learned']} crystals, {encoded.card['held_out_crystals']} held out")
    print(f"{cache}: {len(data) / 2**20:.1f} MiB, {time.monotonic() - begun:.0f} s in all", flush=True)


def _counter(what: str) -> Any:
    def told(seen: int) -> None:
        if seen % 2000 == 0:
            print(f"{seen} {what}", flush=True)

    return told


def read_cache(cache: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of a cache and what is said about them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(cache), framework="numpy") as stored:
            about = json.loads((stored.metadata() or {}).get("about", "{}"))
            arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        sys.exit(f"error: {cache} is not a cache that `on_gpu.py prepare` wrote ({error})")
    if about.get("format") != FORMAT:
        sys.exit(f"error: {cache} has format {about.get('format')}, expected {FORMAT}: prepare it again")
    return arrays, about


def below(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


# There


def data_of(part: str, arrays: Arrays, about: Mapping[str, Any]) -> tuple[TrainingData, TrainingData | None]:
    """Return the training data of a network and those held out."""
    if part in JOINT:
        from hybridcsp.generators.joint.data import Scale

        scale = Scale(**{key: np.array(values) for key, values in about["lattice"].items()})
        kind, components = joint_data(part)
        both = [below(f"joint/{name}/", arrays) for name in ("learned", "held")]
        found = [kind.from_arrays(own, scale, **components) if own else None for own in both]
    else:
        from hybridcsp.generators.rows import unpack
        from hybridcsp.generators.wyckoff.collation import GeometryData, OccupationData

        found = []
        for name in ("learned", "held"):
            own = below(f"{part}/{name}/", arrays)
            rows = unpack({key: value for key, value in own.items() if key not in ("conditions", "weights")})
            if not own:
                found.append(None)
            elif part == "occupation":
                found.append(OccupationData(rows, own["weights"].tolist(), own["conditions"]))
            else:
                found.append(GeometryData(rows, own["weights"].tolist(), own["conditions"], learning=name == "learned"))
    assert found[0] is not None
    return found[0], found[1]


def joint_data(name: str) -> tuple[type[JointData], dict[str, Any]]:
    """Return the class of the training data of ``flow`` or ``diffusion``, and its own arguments."""
    if name == "flow":
        from hybridcsp.generators.flow.data import FlowData

        return FlowData, {}
    from hybridcsp.generators.diffusion.configurations import CONFIGURATIONS
    from hybridcsp.generators.diffusion.data import DiffusionData

    chosen = CONFIGURATIONS["corrected"]
    return DiffusionData, {"coordinates": chosen.coordinates, "lattices": chosen.lattices}


def size_of(part: str) -> dict[str, Any]:
    """Return the size ``gpu`` of a network."""
    from hybridcsp.generators.joint.network import SIZES as JOINT_SIZES
    from hybridcsp.generators.wyckoff.transformer import SIZES

    return asdict(JOINT_SIZES["gpu"]["architecture"] if part in JOINT else SIZES["gpu"][part])


def network_of(part: str, size: Mapping[str, Any], arrays: Arrays, about: Mapping[str, Any], seed: int) -> Any:
    """Make an untrained network."""
    import torch

    torch.manual_seed(seed)
    if part == "flow":
        from hybridcsp.generators.flow.matching import FlowModel
        from hybridcsp.generators.joint.network import Architecture

        return FlowModel(Architecture(**size))
    if part == "diffusion":
        from hybridcsp.generators.diffusion.configurations import CONFIGURATIONS
        from hybridcsp.generators.joint.network import Architecture

        chosen = CONFIGURATIONS["corrected"]
        return chosen.model(Architecture(**size), chosen.lattices)
    from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork
    from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
    from hybridcsp.generators.wyckoff.tables import WyckoffTables
    from hybridcsp.generators.wyckoff.transformer import Size

    positions = WyckoffTables.from_arrays(**below("wyckoff/positions.", arrays))
    if part == "occupation":
        return OccupationNetwork(positions, Size(**size))
    return GeometryNetwork(positions, Size(**size), about["prototypes"])


def train_all(
    cache: Path, output: Path, parts: Sequence[str], minutes: float, workers: int, seed: int, smoke: bool
) -> None:
    """Train networks within the minutes; go on from checkpoints that are there."""
    import torch

    deadline = time.monotonic() + 60 * minutes
    arrays, about = read_cache(cache)
    output.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    identity = hashlib.sha256(cache.read_bytes()).hexdigest()[:16]
    print(f"{device}, torch {torch.__version__}, {workers} processes collate; {minutes:g} minutes", flush=True)
    try:
        for number, part in enumerate(parts):
            plan, size = PARTS[part], SMOKE[part] if smoke else size_of(part)
            share = plan.share / sum(PARTS[later].share for later in parts[number:])
            left = deadline - time.monotonic()
            file = output / f"{part}.plan.json"
            if file.exists():
                planned = json.loads(file.read_text(encoding="utf-8"))
                if (planned["cache"], planned["seed"]) != (identity, seed):
                    sys.exit(f"error: {output} holds a training on another cache or with another seed: choose another")
            else:
                seconds = _seconds_per_epoch(part, size, plan, arrays, about, seed, workers)
                epochs = max(
                    1, min(SMOKE_EPOCHS if smoke else plan.most_epochs, math.floor(0.9 * share * left / seconds))
                )
                planned = {"cache": identity, "seed": seed, "epochs": epochs, "size": size, "device": device}
                _write(file, json.dumps(planned).encode())
                print(f"{part}: {seconds:.2f} s an epoch, {epochs} epochs planned", flush=True)
            _train_one(part, planned, plan, arrays, about, output, deadline, workers)
    except TimeIsUp:
        print("the minutes are used; what was reached so far is in the output", flush=True)


def _settings(plan: Part, epochs: int, examples: int) -> TrainingSettings:
    from hybridcsp.training.settings import TrainingSettings

    chosen = TrainingSettings(epochs=epochs, checkpoint_minutes=1.0, checkpoint_epochs=10**6, **plan.settings)
    # A few crystals still make more than one step.
    return replace(chosen, batch_size=min(chosen.batch_size, max(1, examples // 4)))


def _seconds_per_epoch(
    part: str, size: Mapping[str, Any], plan: Part, arrays: Arrays, about: Mapping[str, Any], seed: int, workers: int
) -> float:
    """Train a network for two epochs that is thrown away; the first warms up."""
    from hybridcsp.training.trainer import Trainer

    learned, held = data_of(part, arrays, about)
    ends: list[float] = []
    Trainer(
        network_of(part, size, arrays, about, seed),
        learned,
        held,
        _settings(plan, 2, len(learned.weights)),
        seed=seed,
        on_epoch=lambda epoch: ends.append(epoch.seconds),
        workers=workers,
    ).train()
    return max(ends[-1] - ends[0], 1e-3)


def _train_one(
    part: str,
    planned: Mapping[str, Any],
    plan: Part,
    arrays: Arrays,
    about: Mapping[str, Any],
    output: Path,
    deadline: float,
    workers: int,
) -> None:
    from hybridcsp.training.trainer import Trainer

    learned, held = data_of(part, arrays, about)
    checkpoint = output / f"{part}.checkpoint"
    exported = 0.0
    shown = -math.inf

    def after(epoch: Epoch) -> None:
        nonlocal exported, shown
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            losses = ", ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
            print(f"{part}: epoch {epoch.number}/{planned['epochs']}, {epoch.seconds:.0f} s, {losses}", flush=True)
        if checkpoint.exists() and checkpoint.stat().st_mtime > exported:
            exported = checkpoint.stat().st_mtime
            _export(part, planned, checkpoint, output)
        if time.monotonic() > deadline:
            raise TimeIsUp

    try:
        Trainer(
            network_of(part, planned["size"], arrays, about, planned["seed"]),
            learned,
            held,
            _settings(plan, planned["epochs"], len(learned.weights)),
            seed=planned["seed"],
            checkpoint=checkpoint,
            on_epoch=after,
            workers=workers,
        ).train()
    finally:
        if checkpoint.exists():
            _export(part, planned, checkpoint, output)
    print(f"{part}: done", flush=True)


def _export(part: str, planned: Mapping[str, Any], checkpoint: Path, output: Path) -> None:
    """Write the best weights of a checkpoint, in half precision, with the history of the training."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(str(checkpoint), framework="pt") as stored:
        progress = json.loads((stored.metadata() or {})["progress"])
        names = [key for key in stored.keys() if key.startswith("best/")]  # noqa: SIM118  # not a mapping
        tensors = {key.removeprefix("best/"): stored.get_tensor(key) for key in names}
    halved = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    about = {**planned, "history": progress["history"], "best_epoch": progress["best_epoch"]}
    about |= {"seconds": round(progress["seconds"]), "finished": progress["finished"]}
    _write(output / f"{part}.safetensors", save(halved, {"about": json.dumps(about)}))


def _write(file: Path, data: bytes) -> None:
    from hybridcsp.utils.files import atomic_write

    with atomic_write(file, "wb") as stream:
        stream.write(data)


# After


def finish(cache: Path, trained: Path, crystals: int, results: Path, install: bool) -> None:
    """Compare the trained networks with the shipped ones, and install them if they are better."""
    from hybridcsp.generators.weights_io import shipped

    arrays, about = read_cache(cache)
    sought = held_out_crystals(arrays, about, crystals)
    if not sought:
        sys.exit("error: --crystals 0: at least one crystal is needed to compare on")
    print(f"{len(sought)} crystals of the held-out tenth; about {len(sought) * 8 / 3600:.1f} core-hours", flush=True)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(plan.generator for plan in PARTS.values()):
            parts = [part for part, plan in PARTS.items() if plan.generator == name]
            missing = [part for part in parts if not (trained / f"{part}.safetensors").exists()]
            if missing:
                print(f"{name}: not trained ({', '.join(missing)} missing in {trained})", flush=True)
                continue
            candidate = Path(folder) / name
            assemble(name, parts, trained, arrays, about, candidate)
            size = (candidate / "weights.safetensors").stat().st_size
            rival = name if shipped(name).exists() else "flow"
            row = {"bytes": size, "rival": rival, **compare(name, candidate, rival, sought, results)}
            low, high = row["difference"]["interval"]
            row["better"] = low > 0
            print(
                f"{name}: new minus shipped {rival} {row['difference']['mean']:+.3f} ({low:+.3f} to {high:+.3f})",
                flush=True,
            )
            if size > MOST_BYTES:
                print(f"{name}: not installed: {size / 1e6:.1f} MB, allowed {MOST_BYTES / 1e6:g} MB", flush=True)
            elif not row["better"]:
                print(f"{name}: not installed: the interval does not lie above 0", flush=True)
            elif install:
                shipped(name).mkdir(exist_ok=True)
                for file in ("weights.safetensors", "card.json"):
                    _write(shipped(name) / file, (candidate / file).read_bytes())
                print(f"{name}: installed in {shipped(name)}", flush=True)
            else:
                print(f"{name}: better; --install puts it into {shipped(name)}", flush=True)
            report[name] = row
    _write(results / "on_gpu.json", (json.dumps(report, indent=1) + "\n").encode())


def held_out_crystals(arrays: Arrays, about: Mapping[str, Any], most: int) -> list[Atoms]:
    """Return crystals of the held-out tenth, at most 20 atoms, drawn with a fixed seed."""
    from hybridcsp.structure.lattice import decode_lattice_point

    _, held = data_of(JOINT[0], arrays, about)
    if held is None:
        sys.exit("error: the cache holds no crystals of held-out formulas")
    points = held.points  # type: ignore[attr-defined]  # data_of returns FlowData for "flow"
    order = np.random.default_rng(0).permutation(len(points))[:most]
    return [decode_lattice_point(points[i]) for i in order]


def assemble(
    name: str, parts: Sequence[str], trained: Path, arrays: Arrays, about: Mapping[str, Any], folder: Path
) -> None:
    """Write weights and card of a generator from its trained networks."""
    import torch
    from safetensors import safe_open

    from hybridcsp.generators import weights_io

    tensors: dict[str, torch.Tensor] = {}
    trainings: dict[str, Any] = {}
    for part in parts:
        with safe_open(str(trained / f"{part}.safetensors"), framework="pt") as stored:
            trainings[part] = json.loads((stored.metadata() or {})["about"])
            prefix = "" if name in JOINT else f"{part}."
            tensors |= {f"{prefix}{key}": stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    first = trainings[parts[0]]
    card = {
        **about["cards"][name],
        "seed": first["seed"],
        "settings": {part: dict(PARTS[part].settings) | {"epochs": trainings[part]["epochs"]} for part in parts},
        "device": first["device"],
        "command": "benchmarks/on_gpu.py",
        "licence": "data: Materials Project, CC BY 4.0",
    }
    if name in JOINT:
        from hybridcsp.generators.joint.network import Architecture
        from hybridcsp.generators.loading import new_generator

        architecture = Architecture(**first["size"])
        generator = new_generator(name).__class__(architecture=architecture)
        card |= {"history": first["history"], **generator.about(), "lattice": about["lattice"]}
    else:
        from hybridcsp.generators.wyckoff.transformer import Size

        tensors |= {key: torch.as_tensor(array) for key, array in below("wyckoff/", arrays).items()}
        card |= {
            "sizes": {part: asdict(Size(**trainings[part]["size"])) for part in parts},
            "metrics": {
                part: min(own["history"], key=lambda epoch: epoch["held_out"]) | {"epochs": len(own["history"])}
                for part, own in trainings.items()
            },
        }
    weights_io.save(folder, name, tensors, card)


def compare(name: str, new: Path, rival: str, sought: Sequence[Atoms], results: Path) -> dict[str, Any]:
    """Sample for crystals from new weights and from shipped ones of a generator; return match rates and difference.

    The difference has its 95 % interval.
    """
    from generators import KS, measure, past
    from rich.console import Console

    from hybridcsp.generators.loading import open_generator
    from hybridcsp.generators.metrics import summarise

    ids = hashlib.sha256("".join(str(atoms.positions.round(3).tolist()) for atoms in sought).encode()).hexdigest()
    runs = results / "generators_runs.jsonl"
    scores: dict[str, NDArray[np.float64]] = {}
    found: dict[str, Any] = {}
    for which, own, weights in (("new", name, str(new)), ("shipped", rival, rival)):
        generator = open_generator(weights)
        identity = hashlib.sha256(f"{generator.card.get('weights_sha256')}{ids}".encode()).hexdigest()[:16]
        label = f"{own}, {which}"
        measure(label, generator, identity, sought, None, Console(width=120), runs)
        scored = past(label, identity, len(sought), runs)
        found[which] = summarise(scored, KS)
        scores[which] = np.array(
            [np.mean([any(d is not None for d in one.displacements[:k]) for k in KS]) for one in scored]
        )
    difference = scores["new"] - scores["shipped"]
    draws = np.random.default_rng(0).integers(len(difference), size=(10_000, len(difference)))
    interval = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
    return found | {"difference": {"mean": float(difference.mean()), "interval": interval.tolist()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    before = steps.add_parser("prepare", help="encode crystals (on the CPU, needs the whole package)")
    before.add_argument("files", nargs="+", type=Path)
    before.add_argument("--cache", type=Path, required=True)
    there = steps.add_parser("train", help="train all networks (needs torch, numpy and safetensors)")
    there.add_argument("cache", type=Path)
    there.add_argument("--output", type=Path, required=True, help="weights, checkpoints and plans")
    there.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="networks to train")
    there.add_argument("--minutes", type=float, default=13.0)
    there.add_argument("--workers", type=int, default=max(0, min(14, (os.cpu_count() or 1) - 2)))
    there.add_argument("--seed", type=int, default=0)
    there.add_argument("--smoke", action="store_true", help="tiny networks: only to see that it runs")
    after = steps.add_parser("finish", help="evaluate on the held-out tenth, and install what is better")
    after.add_argument("cache", type=Path)
    after.add_argument("trained", type=Path)
    after.add_argument("--crystals", type=int, default=512)
    after.add_argument("--results", type=Path, default=RESULTS, help="folder of the scores and the report")
    after.add_argument("--install", action="store_true")
    gpu_throughput.add_arguments(
        steps.add_parser("relax", help="measure batched relaxation (needs the whole package with CHGNet)")
    )
    given = parser.parse_args()
    if given.step == "relax":
        gpu_throughput.run(given)
    elif given.step == "prepare":
        prepare(given.files, given.cache)
    elif given.step == "train":
        train_all(given.cache, given.output, given.parts, given.minutes, given.workers, given.seed, given.smoke)
    else:
        finish(given.cache, given.trained, given.crystals, given.results, given.install)


if __name__ == "__main__":
    main()
