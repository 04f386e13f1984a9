"""`masrouter optimize`: a checkpoint made fast, and able to route where there is no torch."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from masrouter.cli_options import Checkpoint
from masrouter.encoder.export_files import PRECISIONS
from masrouter.errors import ConfigError
from masrouter.exported import BACKENDS
from masrouter.exporting import ExportReport
from masrouter.router import Router


def optimize(
    checkpoint: Checkpoint,
    backend: Annotated[
        str, typer.Option("--backend", "-b", help="What will run it: onnx or openvino.")
    ] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the encoder. onnx: fp32, or int8, which is faster and moves decisions. "
            "openvino: bf16 (fp32 on a CPU that has no bf16), or fp32."
        ),
    ] = None,
) -> None:
    """Export a checkpoint, so that it routes faster on a CPU and without torch.

    The export lies in the checkpoint's folder (exported/onnx) and belongs to exactly that
    checkpoint. It is compared with torch before it is kept: the same decisions, or none. Copy the
    folder to a machine without torch, and load it there with
    Router.from_pretrained(folder, backend="onnx") and pip install 'masrouter[onnx]'.

    \b
    Example:
      masrouter optimize --checkpoint checkpoints/mine --backend onnx
    """
    chosen = next((known for known in BACKENDS if known == backend), None)
    if chosen is None:
        raise ConfigError(f"--backend: expected {' or '.join(BACKENDS)}, got {backend!r}")
    exact = next((known for known in PRECISIONS[chosen] if known == precision), None)
    if precision is not None and exact is None:
        raise ConfigError(
            f"--precision: expected {' or '.join(PRECISIONS[chosen])} for {chosen}, got "
            f"{precision!r}"
        )
    progress = Console(stderr=True)
    with progress.status("loading the checkpoint") as status:
        router = Router.from_pretrained(checkpoint)
        report = router.export(
            backend=chosen, precision=exact, say=lambda what: status.update(f"{what} ...")
        )
    _show(report)


def _show(report: ExportReport) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    weights = len(report.cost_weights)
    rows = (
        ("put into", str(report.folder)),
        ("checkpoint", report.checkpoint),
        ("size", f"{report.size_bytes / 1e6:.1f} MB, made in {report.seconds:.0f} s"),
        ("compared on", f"{report.queries} made-up queries at {weights} cost weights"),
        ("predictions", f"differ by at most {report.largest_difference:.1e}, embeddings alike"),
        ("decisions", f"{report.same_plans:.2%} the same, each with its own embeddings"),
        (
            "one query",
            f"{report.torch_ms:.2f} ms with torch, {report.exported_ms:.2f} ms with "
            f"{report.backend} (median, here and now)",
        ),
    )
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)
