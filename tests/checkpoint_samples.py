"""A small checkpoint, and what tests compare it with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from masrouter.checkpoint import CheckpointData, TensorSpec

FILES = (
    "config.json",
    "model.safetensors",
    "catalog.yaml",
    "calibration.json",
    "metrics.json",
    "README.md",
)


def example() -> CheckpointData:
    numbers = np.random.default_rng(3)
    return CheckpointData(
        config={"hidden": 8, "encoder": {"name": "hashing-64"}, "lambdas": [0.0, 0.5], "on": True},
        tensors={
            "critic.bias": numbers.random(5, dtype=np.float32),
            "critic.weight": numbers.random((5, 3), dtype=np.float32),
            "seen": np.arange(4),
            "half": numbers.random((2, 2), dtype=np.float32).astype(np.float16),
            "mask": np.array([True, False, True]),
            "empty": np.zeros((0, 3), dtype=np.float32),
        },
        catalog_yaml="models:\n  - name: größe\n",
        calibration={"temperature": 1.25, "bins": [1, 2, None]},
        metrics={"accuracy": 0.5, "cost_usd": None},
        model_card="# Router\n",
    )


def spec(data: CheckpointData) -> TensorSpec:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in data.tensors.items()}


def same(a: CheckpointData, b: CheckpointData) -> bool:
    return (
        replace(a, tensors={}) == replace(b, tensors={})
        and set(a.tensors) == set(b.tensors)
        and all(
            a.tensors[name].dtype == b.tensors[name].dtype
            and np.array_equal(a.tensors[name], b.tensors[name])
            for name in a.tensors
        )
    )
