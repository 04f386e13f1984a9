"""How well `match_workers` finds the worker of a request, and which threshold it should have.

    python -m tests.benchmarks.bench_delegation_matching

100 requests to 10 workers, written for this project, a fifth of which fit none. Accuracy is the
share of requests given to the right worker, or rightly to none. Threshold and weight are chosen on
nine tenths of the requests and judged on the last, each tenth in turn, over 20 divisions; it is one
choice for descriptions alone and with example requests. What is shipped is chosen on all.
"""

from __future__ import annotations

import numpy as np
from tests.delegation.matching_requests import DESCRIPTIONS, EXAMPLES, REQUESTS

from masrouter.delegation.workers import matching
from masrouter.encoder import load_encoder

WEIGHTS = (0.0, 0.5, 1.0)
FOLDS, DIVISIONS = 10, 20
Floats = np.ndarray


def accuracy(
    cosines: Floats, chat: Floats, right: Floats, weight: float, threshold: float
) -> float:
    """Of N requests: cosines (N, W) of workers and (N,) of chat work; right (N,), -1 for none."""
    score = cosines.max(1) - weight * chat
    return float((np.where(score >= threshold, cosines.argmax(1), -1) == right).mean())


def chosen(views: list[Floats], chat: Floats, right: Floats) -> tuple[float, float]:
    """Weight and threshold with the best accuracy over the views together."""
    grid = [(weight, round(float(t), 2)) for weight in WEIGHTS for t in np.arange(-0.1, 0.5, 0.01)]
    return max(grid, key=lambda pair: sum(accuracy(view, chat, right, *pair) for view in views))


def held_out(views: list[Floats], chat: Floats, right: Floats) -> list[Floats]:
    """Of each view and division, the accuracy on requests that the choice did not see."""
    numbers = np.random.default_rng(0)
    found = np.zeros((len(views), DIVISIONS))
    for division in range(DIVISIONS):
        fold = numbers.permutation(len(right)) % FOLDS
        for k in range(FOLDS):
            there, out = fold != k, fold == k
            pair = chosen([view[there] for view in views], chat[there], right[there])
            for row, view in enumerate(views):
                hits = accuracy(view[out], chat[out], right[out], *pair) * out.sum()
                found[row, division] += hits / len(right)
    return list(found)


def main() -> None:
    encoder = load_encoder()
    names = list(DESCRIPTIONS)
    right = np.array([-1 if who is None else names.index(who) for _, who in REQUESTS])
    asked = encoder.encode([text for text, _ in REQUESTS])  # (N, E)
    chat = (asked @ encoder.encode(list(matching.CHAT_WORK)).T).max(1)  # (N,)
    alone = asked @ encoder.encode(list(DESCRIPTIONS.values())).T  # (N, W)
    examples = [
        (asked @ encoder.encode([DESCRIPTIONS[name], *EXAMPLES[name]]).T).max(1) for name in names
    ]
    views = {"descriptions": alone, "descriptions and 3 examples": np.stack(examples, axis=1)}
    fits = right >= 0
    print(f"{len(right)} requests, {len(names)} workers, {int((~fits).sum())} requests fit none")
    print(f"always none: {float((~fits).mean()):.2f}")
    weight, threshold = chosen(list(views.values()), chat, right)
    print(f"chosen on all: CHAT_WEIGHT {weight}, THRESHOLD {threshold:.2f}")
    print(f"shipped:       CHAT_WEIGHT {matching.CHAT_WEIGHT}, THRESHOLD {matching.THRESHOLD:.2f}")
    judged = held_out(list(views.values()), chat, right)
    for (name, view), found in zip(views.items(), judged, strict=True):
        best = float((view.argmax(1)[fits] == right[fits]).mean())
        shipped = accuracy(view, chat, right, matching.CHAT_WEIGHT, matching.THRESHOLD)
        print(f"{name}:")
        print(f"  nearest worker, of requests that fit one: {best:.2f}")
        print(f"  all, held out: {found.mean():.3f} (sd over divisions {found.std():.3f})")
        print(f"  all, as shipped, on what it was chosen on: {shipped:.2f}")


if __name__ == "__main__":
    main()
