"""masrouter inside other frameworks: one module a framework, each behind an extra of its own.

Every module has two things. What routes: the framework's own seam for models (a middleware, a
provider, a model, a routing strategy), which picks for each request one of the models that it was
given. What runs a plan: `run_plan`, or `graph_from_plan` for LangGraph, in which the framework
makes the calls of a team.

    choosing.py   picks one model for a text        calling.py   a framework's calls as a ChatModel

Nothing is imported here: `masrouter.hosts.pydantic_ai` needs pydantic-ai, and no other framework.
"""
