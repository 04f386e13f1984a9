"""Makes a checkpoint's networks and encoder into what runs without torch, and proves it the same.

The graphs are made by torch from the very modules that torch routes with (`scorer_torch`). Before
they are put in place, made-up queries are routed by both at several cost weights: given the same
embeddings every prediction must agree and no decision may differ but between plans that are
expected to be worth the same.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from masrouter.checkpoint import CheckpointPlace
from masrouter.encoder import (
    Encoder,
    ExportedEncoder,
    SentenceTransformerEncoder,
    load_encoder,
)
from masrouter.encoder.embedding_cache import FloatArray
from masrouter.encoder.export import missing_to_export, quiet_export
from masrouter.encoder.export_files import Precision
from masrouter.errors import CheckpointError, EncoderError
from masrouter.exported import (
    ENCODER,
    ExportBackend,
    ExportFiles,
    drop_folder,
    new_folder,
    place_for_export,
    put_export,
    read_export,
    write_export,
)
from masrouter.features import STATISTICS
from masrouter.gate import FIXED
from masrouter.router_state import RouterState
from masrouter.scorer_exported import ExportedScorer
from masrouter.selection import Expected

if TYPE_CHECKING:
    import torch

    from masrouter.router import Router

TOLERANCE = 1e-4
"""Of predictions, given the same embeddings; of costs and tokens relative to them."""
TIE = 1e-5
"""Utility within which two plans count as worth the same."""
COST_WEIGHTS = 4
TIMED = 30
_OPSET = 18


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compares with torch."""

    folder: Path
    backend: ExportBackend
    checkpoint: str
    queries: int
    """Made-up texts that both routed, at each of the cost weights."""
    cost_weights: tuple[float, ...]
    largest_difference: float
    """Of any prediction, given the same embeddings."""
    same_plans: float
    """Share of decisions with the same plan, each with its own embeddings."""
    torch_ms: float
    """Median wall clock of `Router.route`, both measured in turn on this machine, now."""
    exported_ms: float
    size_bytes: int
    seconds: float


def export_router(
    router: Router,
    place: CheckpointPlace,
    *,
    backend: ExportBackend,
    precision: Precision | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Export a router that torch runs; an older export of the checkpoint is replaced.

    Args:
        precision: of the encoder; see `load_encoder`.
        say: is told what is being done.

    Raises:
        CheckpointError: a package is missing, the folder cannot be written, or the export does not
            decide as torch does.
        EncoderError: the encoder cannot be exported.
    """
    if missing := missing_to_export():
        raise CheckpointError(
            f"exporting needs {', '.join(missing)}: pip install 'masrouter[export]'"
        )
    started = time.monotonic()
    target = place_for_export(place, backend)
    made = new_folder(target)
    try:
        say("exporting the networks")
        files = ExportFiles(
            place.id, backend, *_graphs(router.state), checked={}, versions=_versions()
        )
        write_export(made, files)
        encoder = router.encoder
        if _comes_with_its_name(router):
            say("exporting the encoder")
            encoder = _export_encoder(router, made / ENCODER, backend, precision)
        scorer = ExportedScorer(files, router.state, encoder.dimension, str(target))
        say("comparing with torch")
        texts = made_up_queries()
        weights = _weights(router.state)
        known = router.with_encoder(_known(router.encoder, texts))
        largest = max(_compare(known, scorer, texts, weight, str(target)) for weight in weights)
        read_by_both = known.run_by(scorer, _known(encoder, texts))
        same = _same_plans(known, read_by_both, texts, weights)
        other = router.run_by(scorer, encoder)
        torch_ms, exported_ms = _time(router, other, texts[:TIMED])
        checked = {
            "queries": len(texts),
            "cost_weights": list(weights),
            "largest_difference": largest,
            "same_plans": same,
        }
        write_export(made, replace(files, checked=checked))
        read_export(made, place.id, backend)
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        put_export(made, target)
    finally:
        drop_folder(made)
    return ExportReport(
        target, backend, place.id, len(texts), weights, largest, same, torch_ms, exported_ms,
        size, time.monotonic() - started,
    )  # fmt: skip


def made_up_queries() -> list[str]:
    """A few hundred texts of several kinds and lengths, always the same."""
    things = (
        "a binary search tree", "the French Revolution", "a quadratic equation", "photosynthesis",
        "two trains that meet", "an SQL query that joins three tables", "compound interest",
        "the rules of chess", "a memory leak in C++", "the capital of Mongolia", "a haiku",
        "the sum of the first 100 odd numbers", "die Relativitätstheorie", "东京的天气",
    )  # fmt: skip
    tasks = (
        "What is {}?", "Explain {} to a child.", "Write a Python function about {}.",
        "Prove a fact about {} and check every step.", "Summarise what is known of {} in 3 lines.",
        "Compare {} with something similar. Which is better, and why?", "{}",
        "Find the mistake: 'Everybody knows {} since 1985.'", "Translate into English: {}.",
        "Give me 5 questions about {}, with answers.\n\nA) short ones\nB) hard ones",
        "I have 12 apples and {}. If I give away 5 apples a day, how many are left after 2 days?",
    )  # fmt: skip
    queries = [task.format(thing) for task, thing in itertools.product(tasks, things)]
    long = [" ".join(queries[i : i + 12]) for i in range(0, len(queries), 12)]
    numbers = [f"Compute {17 * i} * {i + 3} - {i}." for i in range(40)]
    code = [f"```\ndef f{i}(x):\n    return x ** {i}\n```\nWhat does f{i}(2) give?"
            for i in range(40)]  # fmt: skip
    return [*queries, *long, *numbers, *code]


def _versions() -> dict[str, str]:
    packages = ("masrouter", "torch", "onnx", "onnxscript")
    return {package: importlib.metadata.version(package) for package in packages}


def _weights(state: RouterState) -> tuple[float, ...]:
    """Cost weights to compare at: the default, 0, and some at which the gate took verdicts."""
    nodes = sorted(node.cost_weight for node in state.gate.nodes)
    spread = [nodes[i] for i in np.linspace(0, len(nodes) - 1, COST_WEIGHTS).round().astype(int)]
    return tuple(sorted({0.0, state.default_cost_weight, *spread}))


def _graphs(state: RouterState) -> tuple[int, Mapping[str, bytes]]:
    """Queries that may be scored at once, and the networks as ONNX files."""
    import torch

    from masrouter.scorer_torch import TorchScorer

    scorer = TorchScorer(state)
    gate, names = state.gate, state.networks.names
    features = state.critic.query_features
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(torch.ones(3, features.dimension), dim=1)
        counts = torch.ones(3, len(STATISTICS))
        weight = torch.tensor([0.0, 1.0, 2.0])
        read = dict(zip(scorer.reading.outputs, scorer.reading(embeddings, counts, weight),
                        strict=True))  # fmt: skip
        inputs = {"embeddings": embeddings, "statistics": counts, "cost_weight": weight}
        graphs = {"read": _graph(scorer.reading, inputs, scorer.reading.outputs, scorer.rows)}
        heads = {gate.precise, *(node.head for node in gate.nodes if node.head != FIXED)}
        for head in sorted(heads):
            module, inputs = scorer.heads[head], {"phi": read["phi"]}
            graphs[f"score_{head}"] = _graph(module, inputs, ("score", "error"), scorer.rows)
        if scorer.depths:
            steps = torch.zeros(3, names.stages, dtype=torch.int64)
            inputs = {"state": read["state"], "steps": steps}
            outputs = tuple(f"depth_{depth}" for depth in scorer.depths)
            graphs["paths"] = _graph(scorer.paths, inputs, outputs, scorer.rows)
    return scorer.rows, graphs


def _graph(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    rows: int,
) -> bytes:
    """One module as an ONNX file whose first axis may be any number of rows up to `rows`."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=rows)
    with quiet_export():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # Notes of the exporter name files of this machine.
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input,
                 *proto.graph.output, *proto.graph.initializer):  # fmt: skip
        part.doc_string = ""
        del part.metadata_props[:]
    del proto.metadata_props[:]
    content: bytes = proto.SerializeToString()
    return content


def _comes_with_its_name(router: Router) -> bool:
    """Whether the encoder is a model that loading finds by name; hashing needs no export, and one
    that was given has to be given again."""
    try:
        found = load_encoder(router.state.encoder_name)
    except EncoderError:
        return False
    same = found.identity == router.encoder.identity
    return same and isinstance(found, SentenceTransformerEncoder)


def _export_encoder(
    router: Router, folder: Path, backend: ExportBackend, precision: Precision | None
) -> Encoder:
    """Into `folder`, by way of the user's cache: the next checkpoint has the same encoder."""
    name, identity = router.state.encoder_name, router.encoder.identity
    cached = load_encoder(name, backend=backend, precision=precision, identity=identity)
    assert isinstance(cached, ExportedEncoder)
    shutil.copytree(cached.folder, folder)
    return load_encoder(name, backend=backend, exported=folder, identity=identity)


@dataclass
class _Known:
    """An encoder that has read certain texts already."""

    identity: str
    dimension: int
    vectors: Mapping[str, FloatArray]  # (E,) each

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> FloatArray:
        return np.stack([self.vectors[text] for text in texts])


def _known(encoder: Encoder, texts: Sequence[str]) -> _Known:
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    return _Known(encoder.identity, encoder.dimension, vectors)


def _compare(
    router: Router, scorer: ExportedScorer, texts: Sequence[str], weight: float, where: str
) -> float:
    """The largest difference of a prediction, given the same embeddings."""
    read = router.read(texts)
    other = router.run_by(scorer, router.encoder)
    expected, found = (r.expect(*read, weight) for r in (router, other))
    largest = 0.0
    for name in ("score", "score_error", "cost", "cost_factor", "prompt_tokens",
                 "completion_tokens"):  # fmt: skip
        a, b = getattr(expected, name), getattr(found, name)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            raise CheckpointError(f"{where}: {name}: torch and the export know different plans")
        relative = name not in ("score", "score_error")
        scale = np.maximum(np.abs(a), 1e-12) if relative else np.ones_like(a)
        largest = max(largest, float(np.nanmax(np.abs(a - b) / scale, initial=0.0)))
    if not largest <= TOLERANCE:
        raise CheckpointError(
            f"{where}: predictions differ from torch's by {largest:.2g}, at most {TOLERANCE:g} is "
            "allowed; not kept"
        )
    _same_choices(expected, found, weight, where)
    return largest


def _same_choices(expected: Expected, found: Expected, weight: float, where: str) -> None:
    a, b = (np.nan_to_num(e.utility, nan=-1e30, neginf=-1e30) for e in (expected, found))
    rows = np.arange(len(a))
    lost = a.max(1) - a[rows, b.argmax(1)]  # (B,) what the other's choice costs by torch
    if (lost > TIE * (1 + np.abs(a.max(1)))).any():
        raise CheckpointError(
            f"{where}: at cost weight {weight:g} the export decides otherwise than torch; not kept"
        )


def _same_plans(
    router: Router, other: Router, texts: Sequence[str], weights: Sequence[float]
) -> float:
    same = [
        one.plan == two.plan
        for weight in weights
        for one, two in zip(
            router.route_batch(texts, cost_weight=weight, k=0),
            other.route_batch(texts, cost_weight=weight, k=0),
            strict=True,
        )
    ]
    return sum(same) / len(same)


def _time(router: Router, other: Router, texts: Sequence[str]) -> tuple[float, float]:
    """Median milliseconds of one `route` by each, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for text in texts:
        for routing, mine in zip((router, other), times, strict=True):
            start = time.perf_counter()
            routing.route(text)
            mine.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])
