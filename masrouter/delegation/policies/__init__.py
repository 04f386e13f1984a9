"""Policies as names: deliberating, iterating and matching where a model's name would stand.

settings file ──► `reading` ──► `specs` ──► names that resolve ──► `running` ──► one result
"""
