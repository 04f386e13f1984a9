"""Models, roles and topologies: what they are, what they cost, how they may be combined."""

from masrouter.catalog.catalog import Catalog
from masrouter.catalog.entries import ModelEntry, RoleEntry, TopologyEntry

__all__ = ["Catalog", "ModelEntry", "RoleEntry", "TopologyEntry"]
