"""How fast logs are read, and in how much memory.

    python tests/benchmarks/bench_logs.py --rows 1000000

Writes synthetic logs (500 teams of 1 to 4 agents, queries of about 600 characters) as JSON Lines
and Parquet into a temporary folder, reads each in a fresh process, and prints rows a second and
that process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def rows(count: int, queries: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Synthetic log lines, in random order of queries and plans."""
    chance = random.Random(seed)
    words = [f"word{i}" for i in range(2000)]
    texts = [" ".join(chance.choices(words, k=80)) for _ in range(queries)]
    roles = ("coder", "planner", "critic", None)
    plans = [
        (
            chance.choice(("chain", "debate", "panel")),
            [
                {"role": chance.choice(roles), "model": f"model-{chance.randrange(10)}"}
                for _ in range(chance.randint(1, 4))
            ],
        )
        for _ in range(500)
    ]
    for index in range(count):
        query = chance.randrange(queries)
        topology, agents = chance.choice(plans)
        yield {
            "schema_version": 1,
            "run_id": f"{index:016x}",
            "query_id": f"query-{query}",
            "query": texts[query],
            "dataset": f"set-{query % 8}",
            "task": "code",
            "topology": topology,
            "agents": agents,
            "score": float(chance.random() < 0.6),
            "score_source": "tests",
            "prompt_tokens": chance.randrange(5000),
            "completion_tokens": chance.randrange(2000),
            "cost_usd": chance.random() / 100,
            "policy": "grid",
            "seed": index % 5,
            "timestamp": f"2025-01-{1 + index % 28:02d}T12:00:{index % 60:02d}Z",
        }


def read_one(path: str) -> None:
    """Read one file and index its plans; prints the figures as JSON. Runs in its own process."""
    from masrouter.logs import read_logs

    start = time.perf_counter()
    logs = read_logs(path)
    read = time.perf_counter()
    index = logs.plan_index()
    done = time.perf_counter()
    figures = {
        "rows": len(logs),
        "rejected": logs.report.rejected,
        "plans": len(index.plans),
        "read_s": read - start,
        "plan_index_s": done - read,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps(figures))


def main() -> None:
    """Write the logs, read them, print a table; exit code 1 where memory reached the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=50_000, help="distinct queries")
    parser.add_argument("--limit-gb", type=float, default=2.0, help="most memory for a read")
    parser.add_argument("--read", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_one(options.read)
        return
    over = False
    with tempfile.TemporaryDirectory() as folder:
        lines, parquet = Path(folder) / "runs.jsonl", Path(folder) / "runs.parquet"
        with lines.open("w", encoding="utf-8") as file:
            for row in rows(options.rows, options.queries):
                file.write(json.dumps(row) + "\n")
        print(f"{'file':<14}{'MB':>8}{'rows/s':>12}{'read s':>9}{'plans s':>9}{'peak GB':>9}")
        for path in (lines, parquet):
            if path is parquet:
                code = "import sys; from masrouter.logs import convert; convert(*sys.argv[1:])"
                command = [sys.executable, "-c", code, str(lines), str(parquet)]
                subprocess.run(command, check=True, cwd=ROOT)
            command = [sys.executable, __file__, "--read", str(path)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(result.stdout)
            if found["rows"] != options.rows or found["rejected"]:
                raise SystemExit(f"{path.name}: expected {options.rows} rows, got {found}")
            over |= found["peak_gb"] >= options.limit_gb
            print(
                f"{path.name:<14}{path.stat().st_size / 1e6:>8.0f}"
                f"{found['rows'] / found['read_s']:>12,.0f}{found['read_s']:>9.1f}"
                f"{found['plan_index_s']:>9.2f}{found['peak_gb']:>9.2f}"
            )
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
