"""The router against the baselines on a folder of real outcome logs: the table of the README.

    python tests/benchmarks/bench_real_logs.py --logs FOLDER --out FOLDER [--mix a,b,c] [FILE ...]

Runs `masrouter evaluate --folds 5 --seeds 3` on every Parquet file of the folder (or on those
named) and on a mixture trained together, and prints, for each, the mean over seven cost weights of
the paired difference in utility to the best fixed plan. Finished work in --out is reused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROUTER, FIXED = "masrouter", "best fixed plan"
RIVALS = ("kNN", "ridge", "MLP", "k-means")
MIXTURE = "mixture"


def evaluate(files: list[Path], out: Path, folds: int, seeds: int) -> dict[str, Any]:
    """The JSON of `masrouter evaluate` on these files together."""
    report = out / "evaluation.json"
    if not report.is_file():
        command = [sys.executable, "-m", "masrouter.cli", "evaluate", "--out", str(out)]
        command += ["--folds", str(folds), "--seeds", str(seeds)]
        for file in files:
            command += ["--logs", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return result


def cell(learner: dict[str, Any]) -> str:
    """Mean difference with its interval, starred where the interval excludes 0."""
    low, high = learner["interval"]["low"], learner["interval"]["high"]
    star = "*" if low > 0 or high < 0 else ""
    return f"{learner['difference']:+.4f} ({low:+.4f} to {high:+.4f}){star}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="file stems; all of the folder if none")
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mix", default="", help="comma-separated stems to train on together")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in arguments.logs.glob("*.parquet"))
    groups = {name: [arguments.logs / f"{name}.parquet"] for name in names}
    if arguments.mix:
        groups[MIXTURE] = [arguments.logs / f"{name}.parquet" for name in arguments.mix.split(",")]
    print(
        f"| logs | queries | plans | {ROUTER} | worst cost weight | {' | '.join(RIVALS)} | oracle |"
    )
    print("|---|---:|---:|---|---|" + "---:|" * (len(RIVALS) + 1))
    costed: dict[str, list[float]] = {}
    significant = 0
    for name, files in groups.items():
        result = evaluate(files, arguments.out / name, arguments.folds, arguments.seeds)
        learners = {entry["name"]: entry for entry in result["learners"]}
        router = learners[ROUTER]
        worst = min(router["at"], key=lambda at: at["difference"])
        negative = [at for at in router["at"] if at["interval"]["high"] < 0]
        significant += len(negative)
        mark = " (significant)" if worst in negative else ""
        rivals = " | ".join(f"{learners[rival]['difference']:+.4f}" for rival in RIVALS)
        print(
            f"| {name} | {result['queries']} | {result['plans']} | {cell(router)} | "
            f"{worst['difference']:+.4f}{mark} | {rivals} | "
            f"{learners['oracle']['difference']:+.3f} |",
            flush=True,
        )
        if name != MIXTURE and len(router["at"]) > 1:
            for who in (ROUTER, *RIVALS):
                costed.setdefault(who, []).append(learners[who]["difference"])
    if costed:
        means = {who: sum(values) / len(values) for who, values in costed.items()}
        files_ = len(costed[ROUTER])
        rivals = " | ".join(f"{means[rival]:+.4f}" for rival in RIVALS)
        print(f"| **mean of {files_} costed files** | | | {means[ROUTER]:+.4f} | | {rivals} | |")
    print(f"\nsignificantly negative cost weights of the router: {significant}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
