"""An exported encoder in ONNX Runtime, on the CPU. Needs the package `onnxruntime`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from masrouter.encoder.embedding_cache import FloatArray
from masrouter.errors import EncoderError

Ints = npt.NDArray[np.int64]


class OnnxRuntime:
    """One session; `threads` may use it at once, each run on `threads` cores (None: all).

    `precision` is that of the file: the runtime computes what the graph says.
    """

    name = "onnx"
    length_multiple = 1

    def __init__(self, model: bytes, *, precision: str, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EncoderError(
                f"the onnx backend needs onnxruntime ({error}): pip install 'masrouter[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.precision = precision

    def run(self, ids: Ints, mask: Ints) -> FloatArray:
        """Token ids and mask (B, L) -> vectors (B, E)."""
        found: FloatArray = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return found
