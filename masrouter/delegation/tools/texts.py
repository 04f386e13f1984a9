"""What a language model reads of the tools: when to delegate, worked examples, and what fails.

Every line `Example: {...}` is a call that works, and every line `Wrong: {...} -> type: advice` one
that gets the error of this type. `... N of them` in a list stands for N entries like the two before
it. A description has at most `MOST_DESCRIPTION` characters, which is what OpenAI's API takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from masrouter.llms.chat import Tool

MOST_DESCRIPTION = 1024
MOST_NAME = 48
"""Characters of a name in an example: longer ones would not leave room for the rest."""
MOST_LISTED = 200
"""Entries of one page of `list_models`."""


@dataclass(frozen=True, slots=True)
class ExampleNames:
    """The names that the examples use: valid where the tools are offered. None names no model."""

    cheap: str | None = "small"
    strong: str | None = "large"
    automatic: str | None = "auto"
    """`auto` where there is a router, else the same as `strong`."""
    max_tasks: int = 16
    policies: bool = False
    """Whether there are any: else no text speaks of them."""

    @property
    def own(self) -> str:
        """What has a name besides models, aliases and tiers."""
        return "a plan's, a policy's or a worker's" if self.policies else "a plan's or a worker's"

    @property
    def kinds(self) -> str:
        """What can be listed."""
        return f"model, worker, plan{', policy' if self.policies else ''} and auto"


def tools_with(names: ExampleNames) -> tuple[Tool, ...]:
    """delegate_task, delegate_tasks and list_models, with these names in their examples."""
    return (
        Tool("delegate_task", _one(names), _one_schema(names)),
        Tool("delegate_tasks", _several(names), _several_schema(names)),
        Tool("list_models", _listing(names), _listing_schema()),
    )


def _asking(model: str | None) -> str:
    return "" if model is None else f', "model": {json.dumps(model)}'


def _one(names: ExampleNames) -> str:
    return f"""\
Hand one task to another model; get its answer, its cost and the model that answered.
The worker sees goal and context, nothing of this conversation, and cannot ask back.
Delegate what stands alone and a cheaper model can do (look-ups, summaries, translations), or what \
needs a stronger model than you. Do it yourself if it takes a line or two, or needs all you have \
seen.
Example: {{"goal": "List the years in the text, one a line.", "context": "Founded in 1871, moved \
in 1903."{_asking(names.cheap)}}}
Example: {{"goal": "Prove that the square root of 2 is irrational."{_asking(names.automatic)}}}
Wrong: {{"goal": "Summarise the above."}} -> missing_information: put the text into context
Wrong: {{"goal": "Name three rivers.", "model": "best"}} -> unknown_model: take a name of \
list_models
A failure has error.type, error.message and error.nearest (valid names): mend the call by them."""


def _several(names: ExampleNames) -> str:
    many = names.max_tasks + 1
    return f"""\
Hand out several tasks at once: they run in parallel, each on its own model, and one's failure is \
its own. Results come in the order of the tasks. Nobody sees another's task; `needs` names tasks \
to wait for, whose answers are then given.
Use it for parts that stand alone and are worth a call each. Not for one task (delegate_task), and \
not for steps that one worker does in one go.
Example: {{"tasks": [{{"id": "draft", "goal": "Draft a note on leap years."\
{_asking(names.strong)}}}, {{"goal": "Shorten the note to one line.", "needs": ["draft"]\
{_asking(names.cheap)}}}]}}
Wrong: {{"tasks": [{{"id": "draft", "goal": "Draft a note on leap years."}}, {{"goal": "Shorten \
the result of draft."}}]}} -> invalid_task: add "needs": ["draft"]
Wrong: {{"tasks": [{{"goal": "Add up row 1."}}, {{"goal": "Add up row 2."}}, ... {many} of \
them]}} -> limit: one task with all rows"""


def _listing(names: ExampleNames) -> str:
    things = "workers, plans and policies" if names.policies else "workers and plans"
    return f"""\
The models, {things} that tasks can be given to: ids, aliases, tiers, context lengths, \
prices, what each is good at, and whether it can be called now. Call it before naming a model that \
you have not seen in it: names from memory are often wrong.
Example: {{}}
Example: {{"query": {json.dumps(names.cheap or "code")}, "callable_only": true, "limit": 5}}
Wrong: {{"kind": "gpt"}} -> invalid_task: kinds are {names.kinds}
Where next_cursor is not null there is more: call again with it as cursor."""


def _model(names: ExampleNames) -> str:
    return f"""\
Who works: an id of list_models (provider/model), an alias, a tier, {names.own} name, \
`model --provider name`, or auto: the router picks the model or team that fits. Left out: the \
call's model, else the configured default, else your own. Nothing is taken instead of a name that \
is wrong. A colon is part of an id (:free, :thinking) and never comes behind a provider.
Example: {{"goal": "Name three rivers."{_asking(names.cheap)}}}
Wrong: {{"goal": "Name three rivers.", "model": "openrouter:gpt-4o"}} -> unknown_model: write \
openrouter/gpt-4o
Wrong: {{"goal": "Name three rivers.", "model": "gpt-9-ultra-max"}} -> unknown_model: it is made \
up"""


def _task_properties(names: ExampleNames) -> dict[str, Any]:
    return {
        "goal": {
            "type": "string",
            "minLength": 1,
            "description": "What to do and what the answer shall look like, complete in itself.",
        },
        "context": {
            "type": "string",
            "description": "All the material the worker needs, word for word: it sees no other.",
        },
        "model": {"type": "string", "minLength": 1, "description": _model(names)},
        "max_tokens": {
            "type": "integer",
            "minimum": 1,
            "description": "Most tokens of an answer; fewer cost less.",
        },
    }


_BUDGET = {
    "type": "number",
    "minimum": 0,
    "maximum": 1_000_000,
    "description": "Most US dollars for all of this call. No model without a known price is then "
    "asked.",
}


def _one_schema(names: ExampleNames) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**_task_properties(names), "budget_usd": _BUDGET},
        "required": ["goal"],
        "additionalProperties": False,
    }


def _several_schema(names: ExampleNames) -> dict[str, Any]:
    own = _task_properties(names)
    task = {
        "type": "object",
        "properties": {
            "id": {
                "type": "string",
                "minLength": 1,
                "description": "A name for `needs` and for its result; else task-1, task-2, ...",
            },
            **own,
            "model": {
                "type": "string",
                "minLength": 1,
                "description": "Who does this task; see `model` of the call.",
            },
            "needs": {
                "type": "array",
                "items": {"type": "string", "minLength": 1},
                "description": "Ids of tasks of this call whose answers this one is given.",
            },
        },
        "required": ["goal"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "tasks": {
                "type": "array",
                "items": task,
                "minItems": 1,
                "description": f"At most {names.max_tasks}.",
            },
            "model": {
                "type": "string",
                "minLength": 1,
                "description": "For every task that names none. Forms: an id of list_models, an "
                f"alias, a tier, {names.own} name, `model --provider name`, or auto.",
            },
            "budget_usd": _BUDGET,
        },
        "required": ["tasks"],
        "additionalProperties": False,
    }


def _listing_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "Only what has all of these words in its id, aliases, tiers, "
                "provider or description.",
            },
            "kind": {
                "type": "string",
                "enum": ["model", "worker", "plan", "policy", "auto"],
                "description": "Only these.",
            },
            "tier": {"type": "string", "minLength": 1, "description": "Only this tier."},
            "callable_only": {
                "type": "boolean",
                "description": "Only what can be called now.",
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_LISTED,
                "description": "Entries at once; 50 where it is left out.",
            },
            "cursor": {
                "type": "string",
                "minLength": 1,
                "description": "next_cursor of the answer before, with the same filters.",
            },
        },
        "required": [],
        "additionalProperties": False,
    }
