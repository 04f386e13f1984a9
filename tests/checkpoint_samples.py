"""A small checkpoint, and what tests compare it with."""

from __future__ import annotations

from dataclasses import replace

import torch

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
    numbers = torch.Generator().manual_seed(3)
    return CheckpointData(
        config={"hidden": 8, "encoder": {"name": "hashing-64"}, "lambdas": [0.0, 0.5], "on": True},
        tensors={
            "critic.bias": torch.randn(5, generator=numbers),
            "critic.weight": torch.randn(5, 3, generator=numbers),
            "seen": torch.arange(4),
            "half": torch.randn(2, 2, generator=numbers).to(torch.bfloat16),
            "mask": torch.tensor([True, False, True]),
            "empty": torch.zeros(0, 3),
        },
        catalog_yaml="models:\n  - name: größe\n",
        calibration={"temperature": 1.25, "bins": [1, 2, None]},
        metrics={"accuracy": 0.5, "cost_usd": None},
        model_card="# Router\n",
    )


def spec(data: CheckpointData) -> TensorSpec:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in data.tensors.items()}


def same(a: CheckpointData, b: CheckpointData) -> bool:
    return (
        replace(a, tensors={}) == replace(b, tensors={})
        and set(a.tensors) == set(b.tensors)
        and all(
            a.tensors[name].dtype == b.tensors[name].dtype
            and torch.equal(a.tensors[name], b.tensors[name])
            for name in a.tensors
        )
    )
