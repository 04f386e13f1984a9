"""Exports to the field's benchmarks, so that results can be compared elsewhere.

Each module names the public source that its format was taken from. Pickle is never written.
"""

from masrouter.evaluation.exports.llm_router_bench import (
    BenchResult,
    BenchResults,
    bench_results,
    routed_result,
    write_bench,
)
from masrouter.evaluation.exports.names import plan_names, read_names
from masrouter.evaluation.exports.router_arena import (
    ArenaPredictions,
    ArenaQuery,
    arena_predictions,
    read_arena_queries,
    write_arena_config,
    write_arena_predictions,
)
from masrouter.evaluation.exports.router_bench import (
    RouterBenchTable,
    router_bench_table,
    write_router_bench,
)
from masrouter.evaluation.exports.routing import RouteOptions

__all__ = [
    "ArenaPredictions",
    "ArenaQuery",
    "BenchResult",
    "BenchResults",
    "RouteOptions",
    "RouterBenchTable",
    "arena_predictions",
    "bench_results",
    "plan_names",
    "read_arena_queries",
    "read_names",
    "routed_result",
    "router_bench_table",
    "write_arena_config",
    "write_arena_predictions",
    "write_bench",
    "write_router_bench",
]
