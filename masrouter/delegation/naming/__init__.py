"""Which model a name means, whether it may be called, and what else there is."""

from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import Offer, offers_of
from masrouter.delegation.naming.settings import Settings

__all__ = ["Names", "Offer", "Settings", "offers_of"]
