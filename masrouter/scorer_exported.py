"""The networks of a router as exported graphs, run by ONNX Runtime or OpenVINO: no torch.

    read.onnx       embeddings (B, E), statistics (B, S), cost_weight (B,) -> fields of `Reading`
    score_<i>.onnx  phi (B, F) -> score, error (B, C), for each score head that the gate may use
    paths.onnx      state (B, W), steps (B, L) -> depth_<d> (B, choices), for each open stage

Both run the same files in single precision. Not here: making them (`exporting`), the encoder.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from masrouter.encoder.openvino_runtime import import_openvino
from masrouter.errors import CheckpointError
from masrouter.exported import ExportBackend, ExportFiles
from masrouter.features import STATISTICS
from masrouter.gate import FIXED, Floats32, Ints
from masrouter.plan_steps import open_depths
from masrouter.router_state import RouterState
from masrouter.scorer import Reading, Scores

Arrays = Mapping[str, NDArray[Any]]


class Graph(Protocol):
    """A loaded graph. Threads may use it at once."""

    def run(self, inputs: Arrays) -> dict[str, Floats32]:
        """Outputs by name."""


class OnnxGraph:
    """In ONNX Runtime, on one core: graphs this small gain nothing from more."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, Floats32]:
        return dict(zip(self._names, self._session.run(None, inputs), strict=True))


class OpenVinoGraph:
    """In OpenVINO; threads take turns.

    A number of rows that is new takes tens of milliseconds of compiling, so rows are padded to
    powers of two.
    """

    def __init__(self, content: bytes) -> None:
        core = import_openvino().Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(core.read_model(content), "CPU", settings)
        self._request: Any = compiled.create_infer_request()
        self._names = [output.get_any_name() for output in compiled.outputs]
        self._lock = threading.Lock()

    def run(self, inputs: Arrays) -> dict[str, Floats32]:
        rows = len(next(iter(inputs.values())))
        padding = (1 << (rows - 1).bit_length()) - rows
        if padding:
            inputs = {k: np.concatenate([v, v[:1].repeat(padding, 0)]) for k, v in inputs.items()}
        with self._lock:
            self._request.infer(inputs, share_inputs=True)
            return {
                name: np.array(self._request.get_output_tensor(i).data[:rows])
                for i, name in enumerate(self._names)
            }


class ExportedScorer:
    """See `scorer.Scorer`."""

    def __init__(self, files: ExportFiles, state: RouterState, dimension: int, where: str) -> None:
        """CheckpointError where a graph is missing, cannot be run or is of another router."""
        self.backend: ExportBackend = files.backend
        self.rows = files.rows
        self._where = where
        self._depths = open_depths(state.networks.names.steps(state.plans))
        gate = state.gate
        self._heads = sorted({gate.precise, *(n.head for n in gate.nodes if n.head != FIXED)})
        wanted = {"read", *(f"score_{head}" for head in self._heads)}
        if self._depths:
            wanted.add("paths")
        if set(files.graphs) != wanted:
            raise CheckpointError(
                f"{where}: expected the graphs {', '.join(sorted(wanted))}, found "
                f"{', '.join(sorted(files.graphs))}; export again: masrouter optimize"
            )
        self._graphs = {name: _load(content, files.backend, where, name)
                        for name, content in files.graphs.items()}  # fmt: skip
        self._check(state, dimension)

    def read(self, embeddings: Floats32, statistics: Floats32, cost_weight: float) -> Reading:
        weight = np.full(len(embeddings), cost_weight, dtype=np.float32)
        inputs = {"embeddings": embeddings, "statistics": statistics, "cost_weight": weight}
        return Reading.of(self._run("read", inputs))

    def score(self, phi: Floats32, head: int) -> Scores:
        found = self._run(f"score_{head}", {"phi": phi})
        return Scores(found["score"], found["error"])

    def logits(self, state: Floats32, steps: Ints) -> Mapping[int, Floats32]:
        if not self._depths:
            return {}
        found = self._run("paths", {"state": state, "steps": steps})
        return {depth: found[f"depth_{depth}"] for depth in self._depths}

    def _run(self, name: str, inputs: Arrays) -> dict[str, Floats32]:
        try:
            return self._graphs[name].run(inputs)
        except Exception as error:  # each runtime fails in its own way
            raise CheckpointError(f"{self._where}: {name}: cannot be run: {error}") from error

    def _check(self, state: RouterState, dimension: int) -> None:
        """Every graph gives what its readers expect, for one query and for two."""
        plans, domains = len(state.plans), len(state.networks.domains)
        features = 1 + len(STATISTICS) + domains + dimension
        for rows in (1, 2):
            inputs = {
                "embeddings": np.zeros((rows, dimension), dtype=np.float32),
                "statistics": np.zeros((rows, len(STATISTICS)), dtype=np.float32),
                "cost_weight": np.zeros(rows, dtype=np.float32),
            }
            read = self._run("read", inputs)
            width = read["state"].shape[-1] if "state" in read else 0
            amounts = {"cost", "prompt_tokens", "completion_tokens"} & set(read)
            self._expect("read", read, {
                "phi": (rows, features),
                "state": (rows, width),
                "cost_factor": (rows, plans),
                **({"domains": (rows, domains)} if domains else {}),
                **dict.fromkeys(sorted(amounts), (rows, plans)),
            })  # fmt: skip
            for head in self._heads:
                scores = self._run(f"score_{head}", {"phi": read["phi"]})
                shapes = {"score": (rows, plans), "error": (rows, plans)}
                self._expect(f"score_{head}", scores, shapes)
            if self._depths:
                steps = np.zeros((rows, state.networks.names.stages), dtype=np.int64)
                paths = self._run("paths", {"state": read["state"], "steps": steps})
                sizes = state.networks.names.sizes
                self._expect("paths", paths, {
                    f"depth_{depth}": (rows, sizes[depth]) for depth in self._depths
                })  # fmt: skip

    def _expect(
        self, name: str, found: Mapping[str, Floats32], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        got = {key: value.shape for key, value in found.items()}
        if got != dict(shapes) or any(v.dtype != np.float32 for v in found.values()):
            raise CheckpointError(
                f"{self._where}: {name}: expected {dict(shapes)} in float32, got {got}; export "
                "again: masrouter optimize"
            )


def _load(content: bytes, backend: ExportBackend, where: str, name: str) -> Graph:
    kind: type[OnnxGraph] | type[OpenVinoGraph]
    kind = OnnxGraph if backend == "onnx" else OpenVinoGraph
    try:
        return kind(content)
    except ImportError as error:
        raise CheckpointError(
            f"the {backend} backend needs a package that is missing ({error}): "
            f"pip install 'masrouter[{backend}]'"
        ) from error
    except Exception as error:  # a forged graph may fail anywhere; the cause is chained
        raise CheckpointError(f"{where}: {name}: cannot be loaded: {error}") from error
