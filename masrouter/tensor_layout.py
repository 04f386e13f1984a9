"""Names and sizes that the networks and the checks of a checkpoint's tensors share."""

from __future__ import annotations

DESCRIPTION_DIMS = 16
VECTOR_WIDTHS = {
    "topologies": DESCRIPTION_DIMS + 3,
    "roles": DESCRIPTION_DIMS,
    "models": DESCRIPTION_DIMS + 3,
}
"""Inputs of each stage's candidates: the reduced description, then its numbers (see
`candidates`)."""
LOG_HEADS = ("log_cost", "log_prompt_tokens", "log_completion_tokens")
"""Heads of the critic that learn logarithms of amounts."""
TARGETS = ("score", *LOG_HEADS)
"""What a probe of an added plan tells; see `additions`."""
BLOCKS = 4
"""Of the query features: constant, statistics, domain, text."""
KERNEL_KEYS = ("any_plan", "topology", "count", "roles", "models", "position", "own")
"""Fields of `candidates.KernelWeights`."""
