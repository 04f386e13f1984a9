"""Outcome logs (schema 1): read, check, append, convert and describe them."""

from masrouter.logs.read import LogReader, iter_logs
from masrouter.logs.report import LogReport, ReasonCount, Reject
from masrouter.logs.schema import SCHEMA, SCHEMA_VERSION
from masrouter.logs.stats import KindVerdict, LogKind, LogStats, detect_kind, log_stats
from masrouter.logs.table import Codes, Logs, PlanIndex, read_logs
from masrouter.logs.write import LogWriter, append_record, convert, write_jsonl, write_parquet

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Codes",
    "KindVerdict",
    "LogKind",
    "LogReader",
    "LogReport",
    "LogStats",
    "LogWriter",
    "Logs",
    "PlanIndex",
    "ReasonCount",
    "Reject",
    "append_record",
    "convert",
    "detect_kind",
    "iter_logs",
    "log_stats",
    "read_logs",
    "write_jsonl",
    "write_parquet",
]
