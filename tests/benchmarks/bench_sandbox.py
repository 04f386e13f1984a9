"""How long the sandbox takes per judged program, beside its targets.

    python tests/benchmarks/bench_sandbox.py [--programs N]

For each containment that works here: `Sandbox.judge` of a program that does nothing, from the call
to the verdict (start of both processes, one call across, end of both), one after another, the
zygote's own start left out; then the cost of one more call across, and of the first judgement. The
exit code is 1 where the median of a judgement is over its target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from masrouter.errors import SandboxError
from masrouter.sandbox import Sandbox, probe
from masrouter.sandbox.containment import Kind

TARGETS_MS: dict[Kind, float] = {"landlock": 40.0, "bubblewrap": 120.0}
PROGRAM = "def f(n):\n    return n\n"
TEST = "def check(candidate):\n    for n in range({calls}):\n        assert candidate(n) == n\n"
CALLS = 2000


def judged_ms(sandbox: Sandbox, calls: int) -> float:
    """Milliseconds for one program."""
    began = time.perf_counter()
    verdict = sandbox.judge(PROGRAM, TEST.format(calls=calls), "f")
    took = 1000 * (time.perf_counter() - began)
    if not verdict.passed:
        raise SystemExit(f"the benchmark's program did not pass: {verdict}")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description="start-up of judged programs")
    parser.add_argument("--programs", type=int, default=200, help="programs per containment")
    programs = parser.parse_args().programs
    missed = False
    print(f"{'containment':<58} {'median':>8} {'p95':>8} {'target':>8}   first  per call")
    for kind, target in TARGETS_MS.items():
        try:
            containment = probe(kind)
        except SandboxError as error:
            print(f"{kind:<58} not here: {error}")
            continue
        with Sandbox(containment=containment) as sandbox:
            first = judged_ms(sandbox, 1)
            times = sorted(judged_ms(sandbox, 1) for _ in range(programs))
            call = (judged_ms(sandbox, CALLS) - statistics.median(times)) / (CALLS - 1)
        median, late = statistics.median(times), times[int(0.95 * (len(times) - 1))]
        missed |= median > target
        name = f"{kind}: {containment}"
        print(
            f"{name:<58} {median:5.1f} ms {late:5.1f} ms {target:5.0f} ms "
            f"{first:4.0f} ms {1000 * call:4.0f} µs"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
