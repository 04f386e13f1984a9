"""`auto`: the router decides for each task, and a batch's budget goes where it buys most."""

from masrouter.delegation.automatic.auto import Auto

__all__ = ["Auto"]
