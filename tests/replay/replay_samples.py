"""What the tests of replay share: runs by query, what serving would choose, views as text."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console

from masrouter.evaluation.replay.report import print_replay
from masrouter.evaluation.replay.types import Measured, Replay
from masrouter.logs import Logs
from masrouter.router import Router
from masrouter.types import LogRecord, Plan

QUICK = 200
"""Bootstrap draws where intervals are not the point."""
Records = list[LogRecord]


def runs_by_query(records: Sequence[LogRecord]) -> dict[str, Records]:
    found: dict[str, Records] = defaultdict(list)
    for record in records:
        found[record.query_id].append(record)
    return found


def logs(records: Sequence[LogRecord]) -> Logs:
    return Logs.from_records(records)


def choices(router: Router, records: Sequence[LogRecord]) -> dict[str, Plan]:
    """What serving would choose, by query id."""
    texts = {record.query_id: record.query for record in records}
    decisions = router.route_batch(list(texts.values()))
    return {name: decision.plan for name, decision in zip(texts, decisions, strict=True)}


def value(measured: Measured | None) -> float:
    assert measured is not None
    return measured.value


def shown(found: Replay) -> str:
    out = io.StringIO()
    print_replay(found, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def strict(found: Replay) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(found.to_json(), parse_constant=refuse)
    assert isinstance(data, dict)
    return data
