"""A query beside its embedding: counts of its text, and how much each block of features weighs.

Not here: the features themselves (`query_features`).
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STATISTICS = (
    "log_characters",
    "log_words",
    "log_lines",
    "digit_share",
    "operator_share",
    "non_ascii_share",
    "capital_share",
    "log_word_length",
    "has_code",
    "has_question",
)
_DIGITS = string.digits.encode()
_CAPITALS = string.ascii_uppercase.encode()
_OPERATORS = b"=+-*/^<>%"
_CODE_MARKS = ("def ", "class ", "import ", "return ", "#include", "function ", "```", "();")


def text_statistics(texts: Sequence[str]) -> NDArray[np.float32]:
    """Counts that an embedding of bounded length loses; (N, 10) in the order of STATISTICS."""
    rows = np.zeros((len(texts), len(STATISTICS)), dtype=np.float32)
    for i, text in enumerate(texts):
        n = max(len(text), 1)
        words = max(len(text.split()), 1)
        shares = _count_characters(text)
        rows[i] = (
            math.log1p(n),
            math.log1p(words),
            math.log1p(text.count("\n")),
            shares.digits / n,
            shares.operators / n,
            shares.non_ascii / n,
            shares.capitals / n,
            math.log1p(n / words),
            float(any(mark in text for mark in _CODE_MARKS)),
            float("?" in text),
        )
    return rows


class _Characters(NamedTuple):
    digits: int
    operators: int
    non_ascii: int
    capitals: int


def _count_characters(text: str) -> _Characters:
    if text.isascii():  # the same counts at the speed of bytes
        raw = text.encode("ascii")
        digits, operators, capitals = (
            len(raw) - len(raw.translate(None, kind)) for kind in (_DIGITS, _OPERATORS, _CAPITALS)
        )
        return _Characters(digits, operators, 0, capitals)
    return _Characters(
        digits=sum(map(str.isdigit, text)),
        operators=sum(map(text.count, _OPERATORS.decode())),
        non_ascii=sum(ord(c) > 127 for c in text),
        capitals=sum(map(str.isupper, text)),
    )


@dataclass(frozen=True)
class FeatureScales:
    """Prior standard deviation of the weights of each block; 0 switches a block off.

    A smaller scale is a stronger shrinkage of that part towards the plan's own effect.
    """

    statistics: float = 0.0
    domain: float = 0.0
    text: float = 0.0

    @property
    def name(self) -> str:
        parts = [
            f"{part} {getattr(self, part):g}"
            for part in ("statistics", "domain", "text")
            if getattr(self, part)
        ]
        return " + ".join(["plan", *parts])
