"""pass@k: the chance that at least one of k samples is right, estimated without bias from n.

Source: Chen et al. 2021, arXiv 2107.03374, equation 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from masrouter.errors import EvaluationError
from masrouter.outcomes import Floats


def pass_at_k(samples: int, correct: npt.NDArray[np.integer], k: int) -> Floats:
    """1 - C(n - c, k) / C(n, k) of each problem, (n_problems,): n samples, c of them right.

    Computed as 1 - prod over i = n - c + 1 .. n of (1 - k / i), so that no binomial overflows.
    Raises EvaluationError where k is no count from 1 to n, or c none from 0 to n.
    """
    check_k(samples, k)
    right = np.asarray(correct)
    if right.size and not (right.min() >= 0 and right.max() <= samples):
        raise EvaluationError(f"pass@k: expected 0 to {samples} right samples of each problem")
    # (samples + 1,): all that can be of c. Where fewer than k are wrong, a factor is 0.
    factors = 1.0 - k / np.arange(samples, 0, -1, dtype=np.float64)  # i = n, n - 1, ..., 1
    missed = np.concatenate([[1.0], np.cumprod(np.maximum(factors, 0.0))])
    return 1.0 - missed[right]


def check_k(samples: int, k: int) -> None:
    """Raises EvaluationError unless pass@k can be told from so many samples of each problem."""
    if samples < 1:
        raise EvaluationError(f"pass@k: expected at least one sample, got {samples}")
    if k < 1:
        raise EvaluationError(f"pass@k: k: expected at least 1, got {k}")
    if k > samples:
        raise EvaluationError(
            f"pass@{k} needs at least {k} runs of each problem, and there are {samples}: "
            f"ask for --repeats {k} or more, or for a smaller k"
        )
