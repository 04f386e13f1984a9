"""How fast, how large and how faithful each backend and precision of the encoder is.

    python -m tests.benchmarks.bench_encoder_backends --logs FOLDER [--checkpoint CHECKPOINT]

Everything is beside torch, in one run and on one thread:

- milliseconds of a query of about 60 tokens, encoded and encoded with its route, each backend in
  turn on the same text; the reference is `SentenceTransformer.encode`;
- texts a second of a list of all queries' lengths;
- cold start (a fresh process, from nothing to the first vector) and its peak memory;
- the least cosine with `SentenceTransformer.encode` over the queries of all logs in FOLDER;
- the share of those queries on which a router decides as with torch's vectors, the worst over
  several routers and cost weights at which the critic decides; and the utility lost by the other
  decisions, as the router with torch's vectors sees it.

The exit code is 1 where the default precision of a backend misses its target.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from masrouter import Router, read_logs
from masrouter.encoder import (
    Encoder,
    ExportedEncoder,
    SentenceTransformerEncoder,
    load_encoder,
)
from masrouter.encoder.embedding_cache import EmbeddingCache, FloatArray
from masrouter.outcomes import Outcomes
from masrouter_train.config import TrainConfig
from masrouter_train.fit import fit

BACKENDS = (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "bf16"), ("openvino", "fp32"))
DEFAULTS = {"onnx fp32", "openvino bf16"}
EQUAL_DECISIONS, LOST_UTILITY, SPEED = 0.995, 0.001, 2.0
"""Targets: of each default precision the first two, of the fastest the third."""


class Table:
    """An encoder whose vectors are known."""

    def __init__(self, like: Encoder, texts: Sequence[str], vectors: FloatArray) -> None:
        self.identity, self.dimension = like.identity, like.dimension
        self._vectors = dict(zip(texts, vectors, strict=True))

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        return np.stack([self._vectors[text] for text in texts])


@dataclass(frozen=True)
class Fidelity:
    """How a backend's decisions compare with torch's, at the worst router and cost weight."""

    equal: float
    lost: float


def sample(folder: Path, number: int) -> list[str]:
    """Distinct queries of every log file in turn, drawn with a fixed seed."""
    chance = np.random.default_rng(0)
    files = []
    for path in sorted(folder.glob("*.parquet")):
        queries = Outcomes.from_logs(read_logs([str(path)])).queries
        files.append([queries[i] for i in chance.permutation(len(queries))])
    found: dict[str, None] = {}
    for rank in range(max(map(len, files))):
        for queries in files:
            if rank < len(queries) and len(found) < number:
                found[queries[rank]] = None
    return list(found)


def in_turn(works: dict[str, Callable[[str], object]], texts: Sequence[str]) -> dict[str, float]:
    """Median milliseconds of each work over the texts, one after the other on each text."""
    times: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for number, text in enumerate([*texts[:15], *texts]):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            start = time.perf_counter()
            works[name](text)
            if number >= 15:  # the first ones compile kernels and fill caches
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def fidelity(
    routers: dict[str, Router],
    texts: Sequence[str],
    reference: Table,
    others: dict[str, Table],
) -> dict[str, Fidelity]:
    """Decisions with each table of vectors against those with the reference's."""
    worst = dict.fromkeys(others, Fidelity(1.0, 0.0))
    for label, router in routers.items():
        judging = Router(router.state, reference)
        heads = [node.cost_weight for node in router.state.gate.nodes if node.head >= 0]
        default = router.state.default_cost_weight
        for weight in sorted({heads[0], heads[len(heads) // 2], heads[-1], default}):
            expected = judging.route_batch(texts, cost_weight=weight)
            counts: dict[object, int] = {}
            for decision in expected:
                counts[decision.plan] = counts.get(decision.plan, 0) + 1
            line = f"{label}, cost weight {weight:.4g}: {len(counts)} plans chosen, the most "
            line += f"frequent on {max(counts.values()) / len(texts):.0%};"
            for name, table in others.items():
                found = Router(router.state, table).route_batch(texts, cost_weight=weight)
                changed = [i for i, d in enumerate(found) if d.plan != expected[i].plan]
                lost = 0.0
                for i in changed:
                    plans = judging.explain(texts[i], cost_weight=weight).plans
                    utility = {figures.plan: figures.utility or 0.0 for figures in plans}
                    lost += utility[expected[i].plan] - utility[found[i].plan]
                equal, lost = 1 - len(changed) / len(texts), lost / len(texts)
                line += f" {name} {equal:.2%}"
                before = worst[name]
                far = lost if abs(lost) > abs(before.lost) else before.lost
                worst[name] = Fidelity(min(before.equal, equal), far)
            print(line, flush=True)
    return worst


COLD = {
    "torch": (
        "import torch; torch.set_num_threads(1)\n"
        "from sentence_transformers import SentenceTransformer\n"
        "SentenceTransformer(sys.argv[1], device='cpu').encode(['Why?'], show_progress_bar=False)\n"
    ),
    "exported": (
        "from pathlib import Path\n"
        "from masrouter.encoder.exported import ExportedEncoder\n"
        "ExportedEncoder(Path(sys.argv[1]), threads=1).encode(['Why?'])\n"
    ),
}
MEASURED = (
    "import json, re, sys, time\n"
    "start = time.perf_counter()\n"
    "{work}"
    "seconds = time.perf_counter() - start\n"
    "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
    "print(json.dumps([seconds, int(peak) / 1024, 'torch' in sys.modules]))\n"
)


def cold(kind: str, folder: Path) -> tuple[float, float, bool]:
    """Seconds to the first vector in a fresh process (the better of 3), its peak MiB, torch?"""
    found = []
    for _ in range(3):
        command = [sys.executable, "-c", MEASURED.format(work=COLD[kind]), str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    seconds, memory, with_torch = min(found)
    return seconds, memory, with_torch


def main() -> None:
    """Measure, print, and exit with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=Path, required=True, help="folder of log files")
    parser.add_argument("--checkpoint", default="checkpoints/default")
    parser.add_argument("--train", nargs="*", default=["medical_strategies", "code_strategies"],
                        help="log files of the folder to train further routers on")  # fmt: skip
    parser.add_argument("--queries", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)

    reference = SentenceTransformerEncoder(device="cpu")
    plain = SentenceTransformer(str(reference.folder), device="cpu")
    encoders: dict[str, ExportedEncoder] = {}
    for backend, precision in BACKENDS:
        made = load_encoder(backend=backend, precision=precision, threads=1)  # type: ignore[arg-type]
        assert isinstance(made, ExportedEncoder)
        if made.precision != precision:
            print(f"{backend} {precision}: this CPU has no {precision}; it ran as {made.precision}")
        encoders[f"{backend} {precision}"] = made

    routers = {"default": Router.from_pretrained(options.checkpoint, encoder=reference)}
    for name in options.train:
        logs = read_logs([str(options.logs / f"{name}.parquet")])
        cached = load_encoder(cache=EmbeddingCache())
        routers[name] = fit(logs, TrainConfig(), encoder=cached)

    texts = sample(options.logs, options.queries)
    tokens = [len(ids) for ids in plain.tokenizer(texts)["input_ids"]]
    queries = [text for text, count in zip(texts, tokens, strict=True) if 55 <= count <= 65][:100]
    print(f"{len(texts)} queries, {np.median(tokens):.0f} tokens (median); "
          f"{len(queries)} of 55 to 65 tokens are timed")  # fmt: skip

    def plain_encode(text: str) -> object:
        return plain.encode([text], show_progress_bar=False)

    works: dict[str, Callable[[str], object]] = {"SentenceTransformer.encode": plain_encode}
    works["torch"] = lambda text: reference.encode([text])
    works |= {n: partial(lambda e, text: e.encode([text]), e) for n, e in encoders.items()}
    works["route torch"] = routers["default"].route
    with tempfile.TemporaryDirectory() as folder:  # loading exports into the checkpoint's folder
        checkpoint = shutil.copytree(options.checkpoint, Path(folder) / "checkpoint")
        for backend in ("onnx", "openvino"):
            router = Router.from_pretrained(checkpoint, backend=backend)  # type: ignore[arg-type]
            for name, encoder in encoders.items():
                if name.startswith(backend):
                    works[f"route {name}"] = router.with_encoder(encoder).route
    medians = in_turn(works, queries)

    rates: dict[str, float] = {}
    vectors: dict[str, FloatArray] = {}
    start = time.perf_counter()
    expected = plain.encode(texts, show_progress_bar=False)
    rates["SentenceTransformer.encode"] = len(texts) / (time.perf_counter() - start)
    for name, encoder in (("torch", reference), *encoders.items()):
        start = time.perf_counter()
        vectors[name] = encoder.encode(texts)
        rates[name] = len(texts) / (time.perf_counter() - start)
        print(f"{name}: {len(texts)} texts encoded", flush=True)
    # SentenceTransformer.encode cuts long texts off, so the cosines are with torch's own windows.
    cosines = {
        name: float((found * vectors["torch"]).sum(1).min()) for name, found in vectors.items()
    }
    short = np.array(tokens) < 256
    cosines["SentenceTransformer.encode"] = float((expected * vectors["torch"]).sum(1)[short].min())
    tables = {name: Table(reference, texts, found) for name, found in vectors.items()}
    base = tables.pop("torch")
    worst = fidelity(routers, texts, base, tables)

    started = {"SentenceTransformer.encode": cold("torch", reference.folder)}
    started |= {name: cold("exported", encoder.folder) for name, encoder in encoders.items()}
    one = medians["SentenceTransformer.encode"]
    print(f"\n{'':<28}{'encode':>9}{'':>7}{'+ route':>9}{'':>7}{'list':>8}{'cold':>7}{'peak':>6}"
          f"{'least':>10}{'equal':>9}{'utility':>10}")  # fmt: skip
    print(f"{'':<28}{'ms':>9}{'x':>7}{'ms':>9}{'x':>7}{'texts/s':>8}{'s':>7}{'MiB':>6}"
          f"{'cosine':>10}{'choices':>9}{'lost':>10}")  # fmt: skip
    missed = []
    for name in ("SentenceTransformer.encode", "torch", *encoders):
        line = f"{name:<28}{medians[name]:>9.2f}{one / medians[name]:>7.2f}"
        routed = medians.get(f"route {name}")
        line += f"{'':>16}" if routed is None else f"{routed:>9.2f}{one / routed:>7.2f}"
        line += f"{rates[name]:>8.0f}"
        seconds, memory, _ = started.get(name, (float("nan"), float("nan"), True))
        line += f"{seconds:>7.2f}{memory:>6.0f}{cosines[name]:>10.6f}"
        if name in worst:
            line += f"{worst[name].equal:>9.2%}{worst[name].lost:>+10.5f}"
        print(line)
        if name in DEFAULTS and (
            worst[name].equal < EQUAL_DECISIONS or abs(worst[name].lost) > LOST_UTILITY
        ):
            missed.append(f"{name}: decisions")
    loaded = [name for name, found in started.items() if found[2]]
    print(f"torch was loaded by: {', '.join(loaded) or 'none'}")
    if max(one / medians[f"route {name}"] for name in DEFAULTS) < SPEED:
        missed.append(f"no default is {SPEED} times as fast as SentenceTransformer.encode")
    print("MISSED: " + "; ".join(missed) if missed else "all targets met")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
