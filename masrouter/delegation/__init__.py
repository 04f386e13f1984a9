"""Delegation: a parent hands out tasks, and each runs on the model or team that fits it.

    goals ──► who was asked for (`naming`), or who the router picks (`automatic`) ──► `Delegator`
          ──► results, in order; errors that say the way out ──► `episodes` ──► logs to learn from

`tools` lets a language model do it, `parent` is the loop in which one does, `deliberation` says
when it pays, `workers` are callables beside the chat models.
"""
