"""What a delegation may do: names for models, which of them are allowed, limits.

    default: small                            # where neither task nor call names a model
    aliases: {haiku: anthropic/claude-3-5-haiku, fast: llama3.2:3b --provider ollama}
    tiers: {small: haiku, large: openai/gpt-4o}       # left out: by price, see `offers`
    plans:
      debated: {debate: [mathematician@large, critic@haiku]}
    policies:                                 # ways to use several models; see `policies`
      careful: {deliberate: {cheap: small, strong: large, thresholds: thresholds.json}}
    allowed: [openai/*, haiku]                # left out: everything
    refused: [openai/o1, auto]
    max_tasks: 16
    descriptions: {haiku: Fast and cheap; summaries, look-ups.}

Not here: which models there are, and so whether a name leads anywhere (`offers`, `names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path as FilePath
from typing import Any, Self

from masrouter.catalog import Catalog
from masrouter.delegation.policies.specs import Deliberate, Iterate, Match, PolicySpec
from masrouter.errors import ConfigError, PlanError
from masrouter.strict_yaml import Document, Path, describe, load_strict
from masrouter.topologies import topology
from masrouter.types import Agent, Plan

AUTO = "auto"
"""The name by which the router is asked; no alias, tier, plan or policy may have it."""

TIERS = ("small", "medium", "large")
"""The tiers that follow from prices, where the settings give none; see `offers`."""

PROVIDER_FLAG = "--provider"
MOST_NAME = 200
"""Characters of a name, of a model as of a task or a kind."""

_MAX_TASKS = 16
_TABLES = ("aliases", "tiers", "plans", "policies", "descriptions")
_LEADING = ("aliases", "tiers", "plans", "policies")
"""Tables whose names lead somewhere."""
_LISTS = ("allowed", "refused")
_LIMITS = (
    "max_tasks", "max_depth", "max_total_tasks", "max_concurrency", "max_goal_characters",
    "max_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a `Delegator` is told besides its models. Raises ConfigError as `key: why`."""

    default: str | None = None
    """The name that holds where neither the task nor the call has one."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """A short name to any other: an id, a tier, a plan, another alias, `model --provider name`."""
    tiers: Mapping[str, str] = field(default_factory=dict)
    """The same for sizes. Empty: `small`, `medium` and `large` by price; see `offers`."""
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """Fixed teams by name. A seat's model may be any name that leads to a model or worker."""
    policies: Mapping[str, PolicySpec] = field(default_factory=dict)
    """Ways of doing a task with several models, by name. Their parts may be any names but those of
    policies."""
    allowed: tuple[str, ...] = ()
    """What may be called: names of models and workers, `provider/*`, `workers/*`; empty is all."""
    refused: tuple[str, ...] = ()
    """What may not, whatever is allowed; names of plans, policies and `auto` may stand here too."""
    max_tasks: int = _MAX_TASKS
    """Of one batch."""
    max_depth: int = 2
    """Parents above one another that may delegate."""
    max_total_tasks: int = 64
    """Of a whole tree of parents and tasks."""
    max_concurrency: int = 8
    """Tasks of a batch that run at once."""
    max_goal_characters: int = 100_000
    """Of a task's goal and context together."""
    max_tokens: int = 2048
    """Completion tokens of an answer, where the task says nothing."""
    topology: str = "cot"
    """How a single model works."""
    unlisted: bool = False
    """Whether `provider/model` may name a model that the provider file does not list. `refused`
    cannot know all names that a provider has for a model: `allowed` is the safe list then."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """What a model, plan or policy is good at, in place of what the catalog says."""

    def __post_init__(self) -> None:
        for key in _LISTS:
            if isinstance(given := getattr(self, key), list):
                object.__setattr__(self, key, tuple(given))
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for path, why in _problems(values):
            raise ConfigError(f"{': '.join(map(str, path))}: {why}")

    @classmethod
    def load(cls, path: str | FilePath, *, catalog: Catalog | None = None) -> Self:
        """Read a YAML file; raises ConfigError as `file:line: key: why`.

        A plan is `topology: [seats]` as in a plan file, or what `Plan.to_json` writes. catalog: its
        topologies and roles; None is the default one. Files of thresholds are read here too.
        """
        try:
            text = FilePath(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        document = load_strict(text, str(path), ConfigError)
        if document.value is None:
            return cls()
        found = dict(document.mapping((), (item.name for item in fields(cls))))
        if "plans" in found:
            found["plans"] = _plans(document, Catalog.default() if catalog is None else catalog)
        if "policies" in found:
            # Reading them brings the room of deliberation along, which imports this one.
            from masrouter.delegation.policies.reading import policies_at

            found["policies"] = policies_at(document, ("policies",))
        for place, why in _problems(found):
            raise document.problem(place, why)
        return cls(**found)


def normal_name(text: str) -> str:
    """A name without the spaces around it, with one space for each run of spaces and tabs."""
    return re.sub(r"[ \t]+", " ", text.strip())


def name_problem(name: str) -> str | None:
    """Why a text cannot be a name of anything; None where it can."""
    if not name:
        return "it is empty"
    if len(name) > MOST_NAME:
        return f"it has {len(name)} characters, and a name at most {MOST_NAME}"
    if not name.isprintable():
        return "it holds characters that cannot be shown"
    return None


def _problems(values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What is wrong with settings, each with its place: ("aliases", "haiku"), ("refused", 1)."""
    for key, value in values.items():
        if key in _LIMITS:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                yield (key,), f"expected a whole number >= 1, got {describe(value)}"
        elif key in _TABLES:
            if isinstance(value, Mapping):
                yield from _table_problems(key, value)
            else:
                yield (key,), f"expected a mapping, got {describe(value)}"
        elif key in _LISTS:
            if not isinstance(value, list | tuple):
                yield (key,), f"expected a list of names, got {describe(value)}"
                continue
            for index, name in enumerate(value):
                yield from _name_problems((key, index), name)
        elif key == "default" and value is not None:
            yield from _name_problems((key,), value)
        elif key == "unlisted" and not isinstance(value, bool):
            yield (key,), f"expected true or false, got {describe(value)}"
        elif key == "topology":
            yield from _topology_problems(value)
    owners: dict[str, str] = {}
    for key in _LEADING:
        for name in values.get(key, {}):
            if name in owners:
                why = f"{owners[name]} has this name too, and a name leads to one thing"
                yield (key, name), why
            owners.setdefault(name, key)
    yield from _circles(values.get("aliases", {}), values.get("tiers", {}))
    yield from _policy_problems(values)


def _table_problems(key: str, table: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for name, value in table.items():
        if key == "descriptions":
            yield from _name_problems((key, name), name)
            if not isinstance(value, str) or not value.strip():
                yield (key, name), f"expected a text, got {describe(value)}"
            continue
        yield from _own_name_problems(key, name)
        if key == "plans":
            if not isinstance(value, Plan):
                yield (key, name), f"expected a Plan, got {describe(value)}"
        elif key == "policies":
            if not isinstance(value, Deliberate | Iterate | Match):
                yield (key, name), f"expected a policy, got {describe(value)}"
        else:
            yield from _name_problems((key, name), value)


def _own_name_problems(key: str, name: object) -> Iterator[tuple[Path, str]]:
    """Of a name that the settings give: one word, and none that means something already."""
    if not isinstance(name, str) or (why := name_problem(name)) is not None:
        why = why if isinstance(name, str) else f"expected a text, got {describe(name)}"
        yield (key,), f"{describe(name)} cannot be a name: {why}"
    elif name == AUTO:
        yield (key, name), "this is the router's own name; take another"
    elif name.startswith("-") or name.endswith("/*") or any(sign.isspace() for sign in name):
        yield (key, name), "expected one word, without '-' before it or '/*' behind it"


def _name_problems(path: Path, name: object) -> Iterator[tuple[Path, str]]:
    """Of a name that is to lead somewhere."""
    if not isinstance(name, str):
        yield path, f"expected a name, got {describe(name)}"
    elif (why := name_problem(normal_name(name))) is not None:
        yield path, f"{describe(name)} cannot be a name: {why}"


def _topology_problems(name: object) -> Iterator[tuple[Path, str]]:
    try:
        topology(str(name)).check(Plan(str(name), (Agent(None, "one"),)))
    except PlanError as error:
        why = str(error).removeprefix("plan: ")
        yield ("topology",), f"a single model cannot work so: {why}"


def _policy_problems(values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Of what policies call: names, none of which leads to a policy again."""
    policies: Mapping[str, PolicySpec] = values.get("policies", {})
    steps = {**values.get("tiers", {}), **values.get("aliases", {})}
    most = values.get("max_tasks", _MAX_TASKS)
    for policy, spec in policies.items():
        for part, name in spec.parts.items():
            path: Path = ("policies", policy, spec.kind, part)
            yield from _name_problems(path, name)
            if not isinstance(name, str):
                continue
            end = normal_name(name)
            while end in steps:
                end = normal_name(steps[end])
            if end in policies:
                way = f"leads to {end!r}, which is a policy" if end != name else "is a policy"
                yield path, f"{name!r} {way}, and no policy stands within another"
        if isinstance(spec, Iterate) and spec.requests > most:
            why = f"{spec.requests} are asked at once, and max_tasks is {most}"
            yield ("policies", policy, spec.kind, "requests"), why


def _circles(aliases: Mapping[str, str], tiers: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    steps = {**tiers, **aliases}
    for start in steps:
        way = [start]
        while (following := normal_name(steps.get(way[-1], ""))) in steps:
            way.append(following)
            if following in way[:-1]:
                here = "aliases" if start in aliases else "tiers"
                yield (here, start), f"the names lead in a circle: {' -> '.join(way)}"
                break


def _plans(document: Document, catalog: Catalog) -> dict[str, Plan]:
    # Reading plans brings the whole of problems and logs along, which nothing else here needs.
    from masrouter.collection.plan_file import plan_at

    plans: dict[str, Plan] = {}
    for name in document.mapping(("plans",)):
        path: Path = ("plans", name)
        if "topology" not in document.mapping(path):
            plans[name] = plan_at(document, path, catalog)
            continue
        try:
            plans[name] = Plan.from_json(document.at(path))
        except PlanError as error:
            raise document.problem(path, str(error).removeprefix("plan: ")) from None
    return plans
