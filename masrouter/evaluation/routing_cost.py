"""What routing itself takes: processor time to encode a query and to decide, measured here and now.

Not here: what the chosen team takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masrouter.encoder import Encoder
from masrouter.errors import EvaluationError
from masrouter.router import Router


@dataclass(frozen=True)
class RoutingCost:
    """Medians over single queries, one at a time, after a first one to warm up."""

    encoder: str
    queries: int
    plans: int
    encode_s: float
    """Processor seconds to turn a text into a vector, with one thread."""
    decide_s: float
    """Processor seconds of `Router.route` without that."""
    run_cost_usd: float | None = None
    """Median cost of a logged run; None where logs know none."""
    run_latency_s: float | None = None
    """Median wall clock of a logged run; None where logs know none."""
    api_usd: float = 0.0
    """Routing calls no model."""


@dataclass
class _Encoded:
    """An encoder whose next answer is known."""

    identity: str
    dimension: int
    vector: NDArray[np.float32]  # (1, E)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        return self.vector


def measure_routing(
    router: Router,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    run_cost_usd: float | None = None,
    run_latency_s: float | None = None,
) -> RoutingCost:
    """Route every text once. `encoder` must not remember texts, or there is nothing to measure."""
    if not texts:
        raise EvaluationError("measuring what routing takes needs at least one query")
    with _one_thread(router):  # waiting threads would count as work
        encode, decide = _measure(router, encoder, texts)
    return RoutingCost(
        encoder=encoder.identity,
        queries=len(texts),
        plans=len(router.plans),
        encode_s=float(np.median(encode)),
        decide_s=float(np.median(decide)),
        run_cost_usd=run_cost_usd,
        run_latency_s=run_latency_s,
    )


@contextmanager
def _one_thread(router: Router) -> Iterator[None]:
    """Of torch, where that runs the networks: exported ones use one anyway."""
    if router.backend != "torch":
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure(
    router: Router, encoder: Encoder, texts: Sequence[str]
) -> tuple[list[float], list[float]]:
    ready = _Encoded(encoder.identity, encoder.dimension, encoder.encode([texts[0]]))
    deciding = router.with_encoder(ready)
    deciding.route(texts[0])  # the first call fills caches
    encode: list[float] = []
    decide: list[float] = []
    for text in texts:
        before = time.process_time()
        ready.vector = encoder.encode([text])
        encoded = time.process_time()
        deciding.route(text)
        encode.append(encoded - before)
        decide.append(time.process_time() - encoded)
    return encode, decide
