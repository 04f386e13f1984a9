"""What importing does not do, and the public names of both packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys

import pytest

import masrouter

MASROUTER = [
    "Agent",
    "BudgetError",
    "Call",
    "CallError",
    "Catalog",
    "CatalogError",
    "CheckpointError",
    "CollectionError",
    "ConfigError",
    "ConstraintError",
    "EncoderError",
    "EvaluationError",
    "Evidence",
    "ExecutionError",
    "Interval",
    "LogError",
    "LogRecord",
    "LogWriter",
    "Logs",
    "MasRouterError",
    "Plan",
    "PlanError",
    "ProblemError",
    "Router",
    "RoutingDecision",
    "RoutingError",
    "Run",
    "SandboxError",
    "ScoredPlan",
    "StageProbabilities",
    "TrainingError",
    "Usage",
    "__version__",
    "aexecute",
    "execute",
    "read_logs",
    "stream",
]
MASROUTER_TRAIN = ["ControllerConfig", "CriticConfig", "GateConfig", "TrainConfig", "fit"]

HEAVY = {
    "lightning", "pytorch_lightning", "tensorboard", "matplotlib", "masrouter_train",
    "sentence_transformers", "transformers", "openai", "genai_prices", "torch",
}  # fmt: skip

WATCH = """
import sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"importing touched the network: {event}")

sys.addaudithook(refuse)
"""


def fresh(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, in which touching a socket is an error."""
    return subprocess.run(
        [sys.executable, "-c", WATCH + program], capture_output=True, text=True, timeout=300
    )


def test_importing_masrouter_is_light_and_opens_no_socket() -> None:
    run = fresh(
        "import masrouter\n"
        "for name in masrouter.__all__: getattr(masrouter, name)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[]\n"
    assert run.stderr == ""


def test_a_command_that_needs_no_torch_starts_without_it() -> None:
    run = fresh(
        "import sys\n"
        "from masrouter.cli import build_app\n"
        "build_app('serve')\n"
        "print('torch' in sys.modules)\n"
        "build_app('train')\n"
        "print('torch' in sys.modules)\n"
    )
    assert (run.stdout, run.stderr) == ("False\nTrue\n", "")


def test_the_watch_would_see_a_socket() -> None:
    run = fresh("import socket\nsocket.socket()\n")
    assert run.returncode == 1
    assert "importing touched the network: socket.__new__" in run.stderr


@pytest.mark.parametrize(
    ("package", "names"), [("masrouter", MASROUTER), ("masrouter_train", MASROUTER_TRAIN)]
)
def test_the_public_names_are_these(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_the_version_is_the_installed_one() -> None:
    assert masrouter.__version__ == importlib.metadata.version("masrouter")
