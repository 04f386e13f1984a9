"""An exported encoder in OpenVINO, on the CPU. Needs the package `openvino`."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from masrouter.encoder.embedding_cache import FloatArray
from masrouter.errors import EncoderError

Ints = npt.NDArray[np.int64]
_TELEMETRY = "openvino_telemetry"


class OpenVinoRuntime:
    """One compiled model; threads take turns on it.

    The file's weights are 32 bits wide; `precision` says what is computed with: bf16 only on a CPU
    that has it in hardware, else fp32, which is never less exact.
    """

    name = "openvino"
    length_multiple = 16
    """Kernels are compiled for each new length of text, 10 to 40 ms each; so lengths are few."""

    def __init__(self, model: bytes, *, precision: str, threads: int | None) -> None:
        core = import_openvino().Core()
        half = precision == "bf16" and "BF16" in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        )
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
        self.precision = "bf16" if half else "fp32"
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()

    def run(self, ids: Ints, mask: Ints) -> FloatArray:
        """Token ids and mask (B, L) -> vectors (B, E)."""
        inputs = {"input_ids": ids, "attention_mask": mask}
        with self._lock:
            self._request.infer(inputs, share_inputs=True)
            return np.array(self._request.get_output_tensor(0).data)  # a copy: the next run's too


def import_openvino() -> ModuleType:
    """The package, imported so that it does not report its use to a web service.

    By default its import sends an event, unless the package that sends is not there.
    """
    absent = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino

        module: ModuleType = openvino
        return module
    except ImportError as error:
        raise EncoderError(
            f"the openvino backend needs openvino ({error}): pip install 'masrouter[openvino]'"
        ) from error
    finally:
        if absent:
            sys.modules.pop(_TELEMETRY, None)
