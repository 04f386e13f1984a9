"""Runs `masrouter` commands in child processes, for tests that interrupt and kill them.

Everything is imported once; each line of standard input, a JSON object with `arguments` and the
files `output` and `errors`, forks a child that is the command. Lines of standard output:
`started PID`, `exited STATUS`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import httpx2  # noqa: F401  # imported here, once, and not by each child at its first call
import openai  # noqa: F401
import torch._dynamo  # noqa: F401  # what a checkpoint's first layer loads

from masrouter import cli
from masrouter.router import Router  # noqa: F401


def run(job: dict[str, Any]) -> None:
    for name, descriptor in (("output", 1), ("errors", 2)):
        opened = os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    sys.argv = ["masrouter", *job["arguments"]]
    cli.main()


def serve() -> None:
    cli.build_app()  # loads the commands of other packages
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                run(json.loads(line))
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(f"started {child}", flush=True)
        _, ended = os.waitpid(child, 0)
        print(f"exited {os.waitstatus_to_exitcode(ended)}", flush=True)


if __name__ == "__main__":
    serve()
