"""Collect logs: run teams on problems by a design, keep every paid call, export schema 1.

plan_file.py  which plans there are      collect.py    the runner
design.py     which run is made          recording.py  no call is paid twice
store.py      the SQLite file            export.py     what it holds, as logs
"""

from masrouter.collection.collect import Progress, Settings, collect
from masrouter.collection.design import Assignment, epsilon_greedy, grid, paired, uniform
from masrouter.collection.export import Exported, Status, export, status
from masrouter.collection.plan_file import PlanFile, PlanSpace, read_plan_file
from masrouter.collection.store import Spending, Store

__all__ = [
    "Assignment",
    "Exported",
    "PlanFile",
    "PlanSpace",
    "Progress",
    "Settings",
    "Spending",
    "Status",
    "Store",
    "collect",
    "epsilon_greedy",
    "export",
    "grid",
    "paired",
    "read_plan_file",
    "status",
    "uniform",
]
