"""The worker's part: load the program, answer calls. Runs the program, knows nothing of the test.

After `load` nothing in this process can be believed: the judge checks all that comes from it.

    judge -> worker   {"program": source}
                      {"id": n, "name": f, "args": [...], "kwargs": {...}}, again and again
    worker -> judge   {"ready": true}       before anything of the program is read
                      {"callables": [...], "modules": [...]} | {"raised": exception}
                      {"id": n, "value": v, "changed": {position or key: v}}
                      {"id": n, "raised": exception} | {"id": n, "refused": [reason, why]}
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

from masrouter.sandbox.channel import ChannelClosed, read_message, write_message
from masrouter.sandbox.confinement import Confinement, confine
from masrouter.sandbox.contained import compiled, run
from masrouter.sandbox.tasks import OUT_OF_MEMORY
from masrouter.sandbox.values import ValueRefused, dump, load, pack, pack_exception, unpack

_CHANGEABLE = (list, dict, set, bytearray, deque)
_FILENAME = "<program>"


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """Channels and caps of a worker."""

    confinement: Confinement
    reads: int
    writes: int
    message_bytes: int
    depth: int
    items: int


def work(task: WorkerTask) -> NoReturn:
    """Serve one judge until it is gone."""
    try:
        _serve(task)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except ChannelClosed:
        os._exit(0)


def _serve(task: WorkerTask) -> NoReturn:
    try:
        confine(task.confinement)
    except OSError as error:
        write_message(task.writes, dump({"unconfined": str(error)}))
        os._exit(1)
    write_message(task.writes, dump({"ready": True}))
    source = load(read_message(task.reads, 1 << 30))["program"]
    namespace: dict[str, Any] = {"__name__": "__program__"}
    try:
        run(compiled(source, _FILENAME), namespace)
    except BaseException as error:
        write_message(task.writes, dump({"raised": pack_exception(error)}))
        os._exit(0)
    write_message(task.writes, dump(_offered(namespace)))
    while True:
        call = load(read_message(task.reads, 1 << 30))
        reply = _answer(call, namespace, task)
        data = dump(reply)
        if len(data) > task.message_bytes:
            why = f"{len(data)} bytes, more than {task.message_bytes}"
            data = dump({"id": call["id"], "refused": ["output", why]})
        write_message(task.writes, data)


def _offered(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Names that a test may use besides the entry point."""
    names = [name for name in namespace if type(name) is str and not name.startswith("__")]
    return {
        "callables": [name for name in names if callable(namespace[name])],
        "modules": [
            name
            for name in names
            if isinstance(namespace[name], ModuleType) and sys.modules.get(name) is namespace[name]
        ],
    }


def _answer(call: dict[str, Any], namespace: Mapping[str, Any], task: WorkerTask) -> dict[str, Any]:
    number = call["id"]
    caps = {"depth": task.depth, "items": task.items}
    packed = {**dict(enumerate(call["args"])), **call["kwargs"]}
    given = {key: unpack(value, **caps) for key, value in packed.items()}
    before = {
        key: dump(pack(unpack(packed[key], **caps), **caps))
        for key, value in given.items()
        if type(value) in _CHANGEABLE
    }
    positional = [given[i] for i in range(len(call["args"]))]
    named = {key: given[key] for key in call["kwargs"]}
    try:
        value = pack(namespace[call["name"]](*positional, **named), **caps)
        after = {key: pack(given[key], **caps) for key in before}
    except ValueRefused as refused:
        return {"id": number, "refused": [refused.reason, refused.why]}
    except BaseException as error:
        return {"id": number, "raised": pack_exception(error)}
    changed = {str(key): after[key] for key in before if dump(after[key]) != before[key]}
    return {"id": number, "value": value, "changed": changed}
