"""The rules of the source itself: who imports whom, what is never called, how files are kept.

Each rule is a function from a parsed module to its faults, `file:line: what is wrong`. It is held
against every module, and against samples that break it, so that no rule passes by being blind.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"masrouter": ROOT / "masrouter", "masrouter_train": ROOT / "training/masrouter_train"}

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "types", "sections", "printable"}),
    frozenset({"strict_yaml", "catalog", "logs"}),
    frozenset({"outcomes", "answers"}),
    frozenset({"llms", "sandbox"}),
    frozenset({"problems", "topologies", "importers"}),
    frozenset({"encoder"}),
    frozenset(
        {
            "features",
            "query_features",
            "candidates",
            "plan_space",
            "plan_steps",
            "tensor_layout",
            "gate",
            "additions",
            "critic",
            "controller",
            "scorer",
            "cascade",
        }
    ),
    frozenset({"priors"}),
    frozenset({"checkpoint_files", "checkpoint_folder", "checkpoint", "evidence", "selection"}),
    frozenset(
        {
            "router_settings",
            "router_checks",
            "router_files",
            "router_state",
            "networks",
            "model_card",
            "explanation",
            "scorer_torch",
            "exported",
            "scorer_exported",
        }
    ),
    frozenset({"probes", "adaptation", "loading", "deciding"}),
    frozenset({"router", "exporting", "execution"}),
    frozenset({"collection"}),
    frozenset({"delegation"}),
    frozenset({"evaluation"}),
    frozenset({"reporting"}),
    frozenset({"server", "hosts"}),
    frozenset(
        {
            "cli_catalog",
            "cli_collect",
            "cli_collected",
            "cli_collecting",
            "cli_evaluate",
            "cli_delegate",
            "cli_delegating",
            "cli_delegations",
            "cli_deliberate",
            "cli_deliberating",
            "cli_export",
            "cli_exported",
            "cli_import",
            "cli_iterating",
            "cli_logs",
            "cli_matching",
            "cli_mcp",
            "cli_models",
            "cli_options",
            "cli_problems",
            "cli_replay",
            "cli_route",
            "cli_run",
            "cli_serve",
            "cli",
        }
    ),
)
"""Modules of masrouter, lowest first: each imports from its own layer or from lower ones."""

STRANGERS = ({"router", "execution"}, {"server", "hosts"})
"""Modules of one layer that must not know each other: deciding and running are separate."""

MAX_LINES = 450
TRAINING_ONLY = {"masrouter_train", "lightning", "pytorch_lightning", "tensorboard"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {
    "torch.load", "torch.jit.load", "os.system", "os.popen", "subprocess.getoutput",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load",
    "pd.read_pickle", "pandas.read_pickle", "np.loads", "numpy.loads",
}  # fmt: skip
RUNS_CODE = {"masrouter.sandbox.contained"}
"""Runs what it is given, in a process that is contained before: the sandbox's whole purpose."""
UNSAFE_OPTIONS = {"shell", "allow_pickle", "trust_remote_code"}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "base", "manager", "common", "misc"}


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    """Dotted, as it is imported."""
    path: Path
    text: str
    tree: ast.Module

    def fault(self, line: int, why: str) -> str:
        return f"{self.path}:{line}: {why}"

    @property
    def unit(self) -> str:
        """The part of masrouter it belongs to: `masrouter.logs.read` to `logs`."""
        return (self.name + ".").split(".")[1]


@dataclass(frozen=True)
class Import:
    """One imported module; `from a import b` imports a.b where that is a module."""

    target: str
    line: int
    for_types: bool
    """Under `if TYPE_CHECKING:`, so not at run time."""


Rule = Callable[[Module], Iterator[str]]


def parsed(name: str, path: Path, text: str) -> Module:
    return Module(name, path, text, ast.parse(text, str(path)))


def all_modules() -> list[Module]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found.append(parsed(name, path.relative_to(ROOT), path.read_text(encoding="utf-8")))
    return found


MODULES = all_modules()
NAMES = {module.name for module in MODULES}


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, those inside functions too."""
    guarded = {
        id(node)
        for block in ast.walk(module.tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in guarded)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                target = whole if whole in NAMES else source
                yield Import(target, node.lineno, id(node) in guarded)


def calls(module: Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def layer(unit: str) -> int | None:
    return next((i for i, units in enumerate(LAYERS) if unit in units), None)


def imports_go_down(module: Module) -> Iterator[str]:
    """Layers of masrouter, and masrouter_train above all of them."""
    package = module.name.split(".")[0]
    if package == "masrouter_train" or module.name == "masrouter":
        return
    own = layer(module.unit)
    if own is None:
        yield module.fault(1, f"{module.unit} stands in no layer; give it one in {__file__}")
        return
    for item in imports(module):
        parts = item.target.split(".")
        if parts[0] != "masrouter" or len(parts) == 1:
            continue  # the package itself offers its version; cycles are another test
        other = layer(parts[1])
        if other is not None and other > own:
            yield module.fault(item.line, f"{module.unit} imports {parts[1]} of a higher layer")
        if any({module.unit, parts[1]} == pair for pair in STRANGERS):
            yield module.fault(item.line, f"{module.unit} and {parts[1]} must not know each other")


def the_library_never_imports_training(module: Module) -> Iterator[str]:
    if module.name.split(".")[0] != "masrouter":
        return
    for item in imports(module):
        if item.target.split(".")[0] in TRAINING_ONLY:
            yield module.fault(item.line, f"masrouter imports {item.target}")
    for call in calls(module):
        if ast.unparse(call.func).endswith("import_module"):
            yield module.fault(call.lineno, "import_module hides what is imported")


def imports_are_absolute(module: Module) -> Iterator[str]:
    for item in imports(module):
        if item.target.startswith("."):
            yield module.fault(item.line, f"relative import of {item.target}")


def nothing_runs_what_it_reads(module: Module) -> Iterator[str]:
    """No pickle, no eval, no unsafe YAML, no shell: logs and checkpoints come from strangers."""
    for item in imports(module):
        if item.target.split(".")[0] in UNSAFE_MODULES:
            yield module.fault(item.line, f"imports {item.target}")
    for call in calls(module):
        name = ast.unparse(call.func)
        contained = module.name in RUNS_CODE and name in UNSAFE_BUILTINS
        if name in UNSAFE_BUILTINS | UNSAFE_CALLS and not contained:
            yield module.fault(call.lineno, f"calls {name}")
        for option in call.keywords:
            off = isinstance(option.value, ast.Constant) and not option.value.value
            if option.arg in UNSAFE_OPTIONS and not off:
                yield module.fault(option.value.lineno, f"passes {ast.unparse(option)}")


def says_what_it_is(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield module.fault(1, "has no docstring")


def fits_in_one_head(module: Module) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines > MAX_LINES:
        yield module.fault(lines, f"over {MAX_LINES} lines; split it by what changes together")


def has_a_telling_name(module: Module) -> Iterator[str]:
    vague = VAGUE_NAMES & set(module.name.replace("_", ".").split("."))
    if vague:
        yield module.fault(1, f"{vague.pop()!r} says nothing of what is in it")


RULES: tuple[Rule, ...] = (
    imports_go_down,
    the_library_never_imports_training,
    imports_are_absolute,
    nothing_runs_what_it_reads,
    says_what_it_is,
    fits_in_one_head,
    has_a_telling_name,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    assert len(MODULES) > 30
    faults = [fault for module in MODULES for fault in rule(module)]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("rule", "name", "text", "line"),
    [
        (imports_go_down, "masrouter.types", "import os\nfrom masrouter.router import Router\n", 2),
        (imports_go_down, "masrouter.types", "from masrouter import router\n", 1),
        (imports_go_down, "masrouter.logs.read", "def f():\n    import masrouter.outcomes\n", 2),
        (imports_go_down, "masrouter.unheard_of", "", 1),
        (imports_go_down, "masrouter.router", "import masrouter.execution.ledger\n", 1),
        (imports_go_down, "masrouter.execution.runtime", "import masrouter.router\n", 1),
        (the_library_never_imports_training, "masrouter.router", "import lightning\n", 1),
        (
            the_library_never_imports_training,
            "masrouter.router",
            "def f():\n    from lightning.pytorch import Trainer\n",
            2,
        ),
        (the_library_never_imports_training, "masrouter.cli", "import masrouter_train.fit\n", 1),
        (
            the_library_never_imports_training,
            "masrouter.cli",
            "import importlib\nimportlib.import_module('lightning')\n",
            2,
        ),
        (imports_are_absolute, "masrouter.router", "\nfrom .types import Plan\n", 2),
        (nothing_runs_what_it_reads, "masrouter.logs", "import pickle\n", 1),
        (nothing_runs_what_it_reads, "masrouter.logs", "x = eval('1')\n", 1),
        (nothing_runs_what_it_reads, "masrouter.logs", "import torch\ntorch.load('x')\n", 2),
        (nothing_runs_what_it_reads, "masrouter.logs", "yaml.load(t, Loader=yaml.Loader)\n", 1),
        (nothing_runs_what_it_reads, "masrouter_train.fit", "run('ls',\n    shell=True)\n", 2),
        (nothing_runs_what_it_reads, "masrouter.logs", "np.load(f, allow_pickle=yes)\n", 1),
        (says_what_it_is, "masrouter.logs", "import os\n", 1),
        (fits_in_one_head, "masrouter.logs", "x = 1\n" * (MAX_LINES + 1), MAX_LINES + 1),
        (has_a_telling_name, "masrouter.logs.utils", "", 1),
        (has_a_telling_name, "masrouter.plan_helpers", "", 1),
    ],
)
def test_the_rule_names_file_and_line(rule: Rule, name: str, text: str, line: int) -> None:
    faults = list(rule(parsed(name, Path("sample.py"), text)))
    assert len(faults) == 1
    assert faults[0].startswith(f"sample.py:{line}: ")


@pytest.mark.parametrize(
    "text",
    [
        '"""Fine."""\nmodel.eval()\nre.compile("x")\n',
        '"""Fine."""\nrun(["ls"], shell=False)\nyaml.parse(text, Loader=yaml.SafeLoader)\n',
        '"""Fine."""\nfrom masrouter.errors import LogError\nimport masrouter\n',
    ],
)
def test_what_is_allowed_is_no_fault(text: str) -> None:
    module = parsed("masrouter.logs.read", Path("sample.py"), text)
    assert [fault for rule in RULES for fault in rule(module)] == []


def test_every_layer_names_modules_that_exist() -> None:
    units = {module.unit for module in MODULES if module.name.startswith("masrouter.")}
    assert sorted(set().union(*LAYERS) - units) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module.name: {item.target for item in imports(module) if not item.for_types} & NAMES
        for module in MODULES
    }
    graph["masrouter"] = set()  # every module may read the package's version
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        circle = error.args[1]
        lines = [
            module.fault(item.line, f"imports {item.target}")
            for module in MODULES
            if module.name in circle
            for item in imports(module)
            if item.target in circle and not item.for_types
        ]
        pytest.fail("imports in a circle:\n" + "\n".join(lines))


def test_the_wheel_holds_every_file_of_both_packages() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    builder = wheel.WheelBuilder(str(ROOT))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    wanted = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.endswith(".yaml") for name in wanted)
    assert {"masrouter/py.typed", "masrouter_train/py.typed"} <= wanted
    assert sorted(wanted - packed) == []
    assert sorted(packed - wanted) == []
