"""Start of a process of the sandbox: `python -I -S bootstrap.py ROLE JSON`.

Imports only the modules of this folder, under their full names, but not the packages around them:
these would load the whole library.
"""

from __future__ import annotations

import sys
from types import ModuleType


def main() -> None:
    """Make stand-ins of the packages, and hand over."""
    folder = __file__.rpartition("/")[0]
    for name in ("masrouter", "masrouter.sandbox"):
        package = ModuleType(name)
        package.__path__ = [folder] if name == "masrouter.sandbox" else []
        sys.modules[name] = package
    from masrouter.sandbox.zygote import main as start

    start(*sys.argv[1:])


if __name__ == "__main__":
    main()
