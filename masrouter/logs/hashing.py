"""64-bit fingerprints of rows, and an index of them that holds millions in little memory.

Used to count a run that was appended twice once, and to find a query id with two texts.
With n distinct keys the chance of any false match is about n^2 / 2^65: 3e-8 at a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

UInt64 = npt.NDArray[np.uint64]

_NULL = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD1B54A32D192ED03)


def mix(values: UInt64) -> UInt64:
    """splitmix64's finaliser (Steele et al., 2014): every input bit reaches every output bit."""
    out = values ^ (values >> np.uint64(30))
    out = out * np.uint64(0xBF58476D1CE4E5B9)
    out = out ^ (out >> np.uint64(27))
    out = out * np.uint64(0x94D049BB133111EB)
    mixed: UInt64 = out ^ (out >> np.uint64(31))
    return mixed


def hash_text(column: Any) -> UInt64:
    """One hash a row of a string array, shape (n,); null has its own."""
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    distinct = pd.util.hash_array(values, categorize=False).astype(np.uint64)
    table = np.append(distinct, _NULL)
    index = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    hashed: UInt64 = table[index]
    return hashed


def hash_number(column: Any) -> UInt64:
    """One hash a row of an int64 or float64 array, shape (n,); null has its own."""
    known = column.is_valid().to_numpy(zero_copy_only=False)
    bits = column.fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)
    hashed: UInt64 = np.where(known, mix(bits + _STEP), _NULL)
    return hashed


def hash_agents(column: Any) -> UInt64:
    """One hash a row of valid, non-empty agents, order and tokens included; shape (n,)."""
    if len(column) == 0:
        return np.zeros(0, dtype=np.uint64)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    flat = column.flatten()
    seats = np.zeros(len(flat), dtype=np.uint64)
    for name in ("role", "model"):
        seats = mix(seats * _STEP + hash_text(flat.field(name)))
    for name in ("prompt_tokens", "completion_tokens"):
        seats = mix(seats * _STEP + hash_number(flat.field(name)))
    position = (np.arange(len(flat)) - np.repeat(starts, lengths)).astype(np.uint64)
    seats = mix(seats + (position + np.uint64(1)) * _STEP)
    summed: UInt64 = np.add.reduceat(seats, starts)
    return summed


def hash_rows(batch: Any) -> UInt64:
    """One hash of the whole content of each row of a valid `SCHEMA` batch, shape (n,)."""
    total = np.zeros(batch.num_rows, dtype=np.uint64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == "agents":
            hashed = hash_agents(column)
        elif pa.types.is_large_string(column.type):
            hashed = hash_text(column)
        else:
            hashed = hash_number(column)
        total = mix(total * _STEP + hashed)
    return total


@dataclass(frozen=True, slots=True)
class Match:
    """What an index knew of each row; both of shape (n,)."""

    known: npt.NDArray[np.bool_]
    """The key was there before this row."""
    same: npt.NDArray[np.bool_]
    """The value equals the one the key came with first."""


class HashIndex:
    """A map of 64-bit key to 64-bit value, 16 bytes an entry; the first value of a key stays.

    Entries lie in sorted runs that are merged as they grow, so that a lookup is a few binary
    searches and adding n entries costs O(n log n) in all.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[UInt64, UInt64]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def match(self, keys: UInt64, values: UInt64) -> Match:
        """Look up each row in order, then remember the keys that are new."""
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        stored = values[first]
        known = np.zeros(len(distinct), dtype=np.bool_)
        for run_keys, run_values in self._runs:
            at = np.minimum(np.searchsorted(run_keys, distinct), len(run_keys) - 1)
            hit = run_keys[at] == distinct
            stored[hit] = run_values[at[hit]]
            known |= hit
        self._add(distinct[~known], stored[~known])
        earlier = np.ones(len(keys), dtype=np.bool_)
        earlier[first] = False
        return Match(known=known[inverse] | earlier, same=stored[inverse] == values)

    def _add(self, keys: UInt64, values: UInt64) -> None:
        if not len(keys):
            return
        while self._runs and len(self._runs[-1][0]) <= 2 * len(keys):
            other_keys, other_values = self._runs.pop()
            keys = np.concatenate((other_keys, keys))
            values = np.concatenate((other_values, values))
            order = np.argsort(keys)
            keys, values = keys[order], values[order]
        self._runs.append((keys, values))
