"""The one place where text of strangers is run: in a worker or a judge, once it is confined.

Refuses to run anything in a process that has not been confined.
"""

from __future__ import annotations

import sys
from types import CodeType, ModuleType
from typing import Any

from masrouter.sandbox.confinement import is_confined


def compiled(source: str, filename: str) -> CodeType:
    """The code of a source text; raises SyntaxError or ValueError as the builtin does."""
    return compile(source, filename, "exec", dont_inherit=True)


def import_standard(name: str) -> ModuleType:
    """A module of the standard library, by name."""
    if name not in sys.stdlib_module_names:
        raise ImportError(f"{name!r} is not in the standard library")
    module: ModuleType = __import__(name)
    return module


def run(code: CodeType, namespace: dict[str, Any]) -> None:
    """Run code with `namespace` as its globals; raises what it raises."""
    if not is_confined():
        raise RuntimeError("this process is not confined: nothing is run in it")
    exec(code, namespace)
