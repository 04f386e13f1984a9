"""Import logs that people already have: LiteLLM, Langfuse, OpenTelemetry GenAI, tables."""

from masrouter.importers.importing import Format, Imported, import_logs
from masrouter.importers.options import ImportOptions, read_model_map
from masrouter.importers.report import ImportReport

__all__ = [
    "Format",
    "ImportOptions",
    "ImportReport",
    "Imported",
    "import_logs",
    "read_model_map",
]
