"""What the exported backends are worth: speed, sameness of decisions, cold start and memory.

    python tests/benchmarks/bench_routing_backends.py [--checkpoint CHECKPOINT] [--logs FOLDER]

Four tables, every ratio measured in one run on one thread; the exit code is 1 where a target is
missed:

- one new query of about 60 tokens, from text to decision, against sentence-transformers' own
  `encode` of the same text, in turn;
- the same against a routing forward like that of the published MasRouter code (`PublishedRouting`);
- decisions on real queries (of the log files in --logs, skipped where there are none), each backend
  with its own embeddings: the share that is the same as torch's, and what the others cost in
  utility as torch expects it; for the checkpoint, and for a router that follows the text everywhere
  (trained here, without the gate's shrinkage);
- a fresh process: imports, loading and the first decision, and the peak of its memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.memo import MemoEncoder
from masrouter.encoder.weights import find_weights
from masrouter.exported import BACKENDS
from masrouter.loading import Backend
from masrouter.logs import read_logs
from masrouter.router import Router
from masrouter_train import GateConfig, TrainConfig, fit

ROOT = Path(__file__).parents[2]
ALL: tuple[Backend, ...] = ("torch", *BACKENDS)
DIMENSION = 384
WORDS = 52
"""Of English that all-MiniLM-L6-v2 reads as about 60 tokens."""
ROLE_WORDS = 135
"""As many tokens as a published role profile: seven of them, as JSON, have 143 in the mean."""


@dataclass(frozen=True)
class Target:
    """A measured figure and the bound that it was to keep."""

    what: str
    measured: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def __str__(self) -> str:
        sign, verdict = ("at least", "at most")[not self.at_least], ("MISSED", "ok")[self.met]
        return f"{self.what:<72}{self.measured:>10.4g}  {sign} {self.bound:g}: {verdict}"


class PublishedRouting(nn.Module):
    """What the published MasRouter code computes to route one query (no team is run).

    Source: Yue et al., ACL 2025, arXiv 2502.11133; github.com/yanweiyue/masrouter at commit
    97849a3, whose forward calls the sentence encoder (all-MiniLM-L6-v2) eight times a query: for
    the query, the 3 task descriptions, the 5 model descriptions, the 6 descriptions of
    collaboration modes, and the profiles of 30 roles in four folders. (Its first version embedded
    the roles once.) Written here from that description: candidates have about as many words as the
    published ones, networks the shapes of the first version.
    """

    def __init__(self, encoder: SentenceTransformer, words: random.Random) -> None:
        super().__init__()
        self.encoder = encoder
        self.tasks, self.models, self.modes = (
            [_prose(words, length) for _ in range(count)]
            for count, length in ((3, 40), (5, 105), (6, 22))
        )
        self.roles = [[_prose(words, ROLE_WORDS) for _ in range(count)] for count in (7, 7, 12, 4)]
        width, hidden = DIMENSION, 32
        self.task_of_query, self.task = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.seat, self.model = nn.Linear(2 * width, hidden), nn.Linear(width, hidden)
        self.difficulty = nn.Linear(hidden, 1)
        self.mode_of_team, self.mode = nn.Linear(3 * width, hidden), nn.Linear(width, hidden)
        self.role_of_seat, self.role = nn.Linear(4 * width, hidden), nn.Linear(width, hidden)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor(self.encoder.encode(list(texts), show_progress_bar=False))

    def forward(self, query: str) -> tuple[int, list[int], list[int]]:
        """A mode, and the models and roles of up to six agents, drawn from the networks."""
        roles_of = [self._embed(profiles) for profiles in self.roles]
        x, tasks = self._embed([query])[0], self._embed(self.tasks)
        models, modes = self._embed(self.models), self._embed(self.modes)
        task = int(_likeness(self.task_of_query(x), self.task(tasks)).argmax())
        state = normalize(self.seat(torch.cat([x, tasks[task]])), dim=0)
        agents = int((6 * torch.sigmoid(self.difficulty(state))).round().clamp(1, 6))
        seats = _likeness(state, self.model(models)).softmax(0).multinomial(agents, True)
        team = torch.cat([x, tasks[task], models[seats].mean(0)])
        mode = int(_likeness(self.mode_of_team(team), self.mode(modes)).softmax(0).multinomial(1))
        roles = []
        for seat in seats:
            agent = torch.cat([x, tasks[task], models[seat], modes[mode]])
            share = _likeness(self.role_of_seat(agent), self.role(roles_of[task])).softmax(0)
            roles.append(int(share.multinomial(1)))
        return mode, seats.tolist(), roles


def _likeness(one: Tensor, others: Tensor) -> Tensor:
    return normalize(others, dim=1) @ normalize(one, dim=0)


VOCABULARY = (
    "the", "a", "of", "to", "and", "in", "for", "with", "on", "by", "from", "at", "as", "is", "are",
    "was", "that", "this", "each", "every", "some", "two", "three", "number", "function", "list",
    "value", "sum", "price", "order", "team", "plan", "city", "history", "river", "light", "energy",
    "market", "doctor", "patient", "model", "data", "cost", "word", "answer", "question", "proof",
    "limit", "graph", "table", "result",
)  # fmt: skip


def _prose(words: random.Random, length: int) -> str:
    return " ".join(words.choice(VOCABULARY) for _ in range(length)) + "?"


def in_turn(works: Mapping[str, Callable[[str], object]], texts: Sequence[str]) -> dict[str, float]:
    """Median milliseconds of each on the texts, all on one text before the next."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number, text in enumerate(texts):
        for name, work in works.items():
            start = time.perf_counter()
            work(text)
            if number >= 5:  # the first few fill caches
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def single_threaded(folder: Path, backend: Backend) -> Router:
    """A router whose every part keeps to one core."""
    if backend == "torch":
        return Router.from_pretrained(folder)
    identity = json.loads((folder / "config.json").read_text())["encoder"]["identity"]
    name = json.loads((folder / "config.json").read_text())["encoder"]["name"]
    encoder = load_encoder(
        name, backend=backend, threads=1, identity=identity,
        exported=folder / "exported" / backend / "encoder",
    )  # fmt: skip
    return Router.from_pretrained(folder, backend=backend, encoder=encoder)


def speed(routers: Mapping[str, Router], queries: int) -> list[Target]:
    """Tables one and two."""
    words = random.Random(0)
    texts = [_prose(words, WORDS) for _ in range(queries)]
    weights = find_weights("all-MiniLM-L6-v2")
    model = SentenceTransformer(str(weights.folder), device="cpu").eval()
    tokens = statistics.mean(len(model.tokenizer(text)["input_ids"]) for text in texts)
    with torch.inference_mode():
        published = PublishedRouting(model, words)
        alone: dict[str, Callable[[str], object]] = {
            "sentence-transformers encode": lambda t: model.encode([t], show_progress_bar=False)
        }
        every = alone | {f"route, {name}": router.route for name, router in routers.items()}
        every["published routing forward"] = published.forward
        new = in_turn(every, texts)
        again = {
            name: router.with_encoder(MemoEncoder(router.encoder))
            for name, router in routers.items()
        }
        for router in again.values():
            router.route_batch(texts)
        known = in_turn({f"route, {name}": router.route for name, router in again.items()}, texts)
    print(f"\none query of {tokens:.0f} tokens, median of {queries} texts, one thread")
    print(f"{'':<34}{'new text, ms':>14}{'known text, ms':>16}{'x encode':>10}{'x published':>13}")
    encode, forward = new["sentence-transformers encode"], new["published routing forward"]
    for name, ms in new.items():
        remembered = f"{known[name]:.3f}" if name in known else ""
        print(f"{name:<34}{ms:>14.2f}{remembered:>16}{encode / ms:>10.2f}{forward / ms:>13.1f}")
    fastest = min(new[f"route, {name}"] for name in routers)
    decided = min(known.values())
    return [
        Target("route of a new text, times faster than encode alone", encode / fastest, 2.0),
        Target(
            "route of a new text, times faster than the published forward", forward / fastest, 100.0
        ),
        Target("route of a known text, times faster than it", forward / decided, 100.0),
    ]


def real_queries(folder: Path, count: int) -> list[str]:
    """Distinct queries of all log files, drawn from each file in turn."""
    chance = random.Random(0)
    pools = []
    for file in sorted(folder.glob("*.parquet")):
        texts = sorted(set(read_logs(file).table.column("query").to_pylist()))
        chance.shuffle(texts)
        pools.append(texts)
    turns = itertools.zip_longest(*pools)
    found = dict.fromkeys(text for turn in turns for text in turn if text is not None)
    return list(found)[:count]


@dataclass
class Embedded:
    """An encoder that has read certain texts already."""

    identity: str
    dimension: int
    vectors: dict[str, Any]

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Any:
        return np.stack([self.vectors[text] for text in texts])

    @classmethod
    def of(cls, encoder: Encoder, texts: Sequence[str]) -> Embedded:
        vectors = dict(zip(texts, encoder.encode(texts), strict=True))
        return cls(encoder.identity, encoder.dimension, vectors)


def sameness(
    names: Mapping[str, Path], texts: Sequence[str], encoders: Mapping[str, Encoder]
) -> list[Target]:
    """Table three."""
    read = {name: Embedded.of(encoder, texts) for name, encoder in encoders.items()}
    print(f"\ndecisions on {len(texts)} real queries, each backend with its own embeddings")
    print(f"{'router':<12}{'backend':<10}{'cost weight':>12}{'plans':>7}{'same':>9}{'utility':>12}")
    targets = []
    for name, folder in names.items():
        reference = Router.from_pretrained(folder, encoder=read["torch"])
        nodes = sorted(node.cost_weight for node in reference.state.gate.nodes)
        weights = sorted({0.0, reference.state.default_cost_weight, nodes[len(nodes) // 2]})
        position = {plan: i for i, plan in enumerate(reference.plans)}
        for backend in BACKENDS:
            other = Router.from_pretrained(folder, backend=backend, encoder=read[backend])
            share, lost = [], []
            for weight in weights:
                one, two = (
                    [position[d.plan] for d in r.route_batch(texts, cost_weight=weight, k=0)]
                    for r in (reference, other)
                )
                expected = reference.expect(*reference.read(texts), weight)
                worth = expected.score - (weight * expected.cost if weight else 0.0)
                rows = np.arange(len(texts))
                share.append(float(np.mean(np.array(one) == two)))
                lost.append(float((worth[rows, two] - worth[rows, one]).mean()))
                print(
                    f"{name:<12}{backend:<10}{weight:>12.4g}{len(set(one)):>7}{share[-1]:>9.2%}"
                    f"{lost[-1]:>+12.2e}"
                )
            targets.append(Target(f"{name}, {backend}: least share of equal decisions",
                                  min(share), 0.995))  # fmt: skip
            targets.append(Target(f"{name}, {backend}: largest change of utility",
                                  max(map(abs, lost)), 0.001, at_least=False))  # fmt: skip
    return targets


CHILD = """
import re, sys, time
from pathlib import Path
from masrouter import Router
router = Router.from_pretrained(sys.argv[1], backend=sys.argv[2])
loaded = time.time()
router.route("Write a function that merges two sorted lists, and say how long it takes.")
done = time.time()
# Not getrusage: its peak is the parent's where that was larger.
status = Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
print(loaded, done, peak, "torch" in sys.modules)
"""


def cold_start(folder: Path, repeats: int) -> list[Target]:
    """Table four."""
    print(f"\na fresh process, median of {repeats}")
    print(f"{'backend':<12}{'loaded, s':>11}{'first decision, s':>19}{'peak memory, MB':>17}")
    first: dict[str, float] = {}
    for backend in ALL:
        runs = []
        for _ in range(repeats):
            start = time.time()
            command = [sys.executable, "-c", CHILD, str(folder), backend]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            loaded, done, peak, torch_there = out.split()
            assert (torch_there == "True") == (backend == "torch")
            runs.append((float(loaded) - start, float(done) - start, float(peak)))
        load, first[backend], memory = (statistics.median(part) for part in zip(*runs, strict=True))
        print(f"{backend:<12}{load:>11.2f}{first[backend]:>19.2f}{memory:>17.0f}")
    print("import masrouter alone:", end=" ")
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import masrouter"], check=True)
    print(f"{time.perf_counter() - start:.2f} s with the interpreter's own start")
    return [Target("cold start, torch over onnx", first["torch"] / first["onnx"], 1.0)]


def main() -> None:
    """Measure and print the tables; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/default")
    parser.add_argument("--logs", type=Path, default=ROOT.parent / "shared/logs")
    parser.add_argument("--queries", type=int, default=2000, help="real queries to decide")
    parser.add_argument("--timed", type=int, default=60, help="texts of the timed loops")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        shutil.copytree(options.checkpoint, folder, ignore=shutil.ignore_patterns("exported"))
        for backend in BACKENDS:
            report = Router.from_pretrained(folder).export(backend=backend)
            print(
                f"exported for {backend} in {report.seconds:.0f} s, "
                f"{report.size_bytes / 1e6:.0f} MB; predictions differ by at most "
                f"{report.largest_difference:.1e}"
            )
        routers = {name: single_threaded(folder, name) for name in ALL}
        targets = speed(routers, options.timed)
        if options.logs.is_dir():
            texts = real_queries(options.logs, options.queries)
            names = {"checkpoint": folder}
            encoder = routers["torch"].encoder
            logs = read_logs(options.logs / "code_strategies.parquet")
            follows = TrainConfig(gate=GateConfig(shrink=False))
            second = fit(logs, follows, encoder=encoder)
            second.save_pretrained(Path(temporary) / "text")
            names["by text"] = Path(temporary) / "text"
            for backend in BACKENDS:
                Router.from_pretrained(names["by text"]).export(backend=backend)
            targets += sameness(names, texts, {n: r.encoder for n, r in routers.items()})
        else:
            print(f"\nno real queries: {options.logs} is not there")
        targets += cold_start(folder, 3)
    print()
    for target in targets:
        print(target)
    raise SystemExit(0 if all(target.met for target in targets) else 1)


if __name__ == "__main__":
    main()
