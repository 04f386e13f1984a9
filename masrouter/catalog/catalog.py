"""The catalog: every name that a plan may use, with descriptions and the one price table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from masrouter.catalog.entries import ModelEntry, RoleEntry, TopologyEntry
from masrouter.catalog.reading import Entries, read_entries
from masrouter.errors import CatalogError
from masrouter.strict_yaml import did_you_mean, dump_strict
from masrouter.types import Plan

_SHIPPED = ("models.yaml", "roles.yaml", "topologies.yaml")


@dataclass(frozen=True)
class Catalog:
    """Models, roles and topologies by canonical name, in the order of their files.

    A plan's names are never rewritten: an alias only leads to the entry with its price.
    """

    models: Mapping[str, ModelEntry]
    roles: Mapping[str, RoleEntry]
    topologies: Mapping[str, TopologyEntry]
    _aliases: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        aliases = {alias: e.name for e in self.models.values() for alias in e.aliases}
        object.__setattr__(self, "_aliases", aliases)

    @classmethod
    def empty(cls) -> Catalog:
        """A catalog without entries."""
        return cls({}, {}, {})

    @classmethod
    def default(cls) -> Catalog:
        """The catalog that ships with the package: list prices as of the date its file gives."""
        catalog = cls.empty()
        for name in _SHIPPED:
            text = files("masrouter.catalog").joinpath(name).read_bytes()
            catalog = catalog._with_text(text, f"masrouter/catalog/{name}")
        return catalog

    @classmethod
    def load(cls, *paths: str | Path) -> Catalog:
        """The default catalog, extended by YAML files or folders of them, in the given order.

        An entry with the name of an earlier one changes only the keys it gives.
        Raises CatalogError as `file:line: key: why`.
        """
        catalog = cls.default()
        for path in paths:
            for file in _yaml_files(Path(path)):
                try:
                    text = file.read_bytes()
                except OSError as error:
                    raise CatalogError(f"{file}: cannot be read: {error.strerror}") from error
                catalog = catalog._with_text(text, str(file))
        return catalog

    @classmethod
    def from_yaml(cls, text: str | bytes, source: str) -> Catalog:
        """Read what `to_yaml` wrote; nothing of the default catalog is added."""
        return cls.empty()._with_text(text, source)

    def to_yaml(self) -> str:
        """The whole catalog as one YAML text."""
        return dump_strict(
            {
                "models": {name: _to_data(entry) for name, entry in self.models.items()},
                "roles": {name: _to_data(entry) for name, entry in self.roles.items()},
                "topologies": {name: _to_data(entry) for name, entry in self.topologies.items()},
            }
        )

    def extended_with(self, other: Catalog) -> Catalog:
        """This catalog and `other`; where both have a name, the entry of `other` stands.

        A name or alias of `other` that is an alias here leads to the entry of `other`. Raises
        CatalogError where an alias of `other` is a model's own name here.
        """
        taken = set(other.models)
        for entry in other.models.values():
            for alias in entry.aliases:
                if alias in self.models:
                    raise CatalogError(
                        f"model {entry.name!r}: aliases: {alias!r} is a model of its own; "
                        "drop the alias, or give that model's entry instead"
                    )
                taken.add(alias)
        models = {
            name: replace(entry, aliases=tuple(a for a in entry.aliases if a not in taken))
            for name, entry in self.models.items()
        }
        return Catalog(
            models | dict(other.models),
            dict(self.roles) | dict(other.roles),
            dict(self.topologies) | dict(other.topologies),
        )

    def resolve_model(self, name: str) -> ModelEntry:
        """The entry of a model by its name or alias; raises CatalogError for any other name."""
        entry = self.find_model(name)
        if entry is None:
            near = did_you_mean(name, [*self.models, *self._aliases])
            raise CatalogError(f"model {name!r} is not in the catalog{near}")
        return entry

    def find_model(self, name: str) -> ModelEntry | None:
        """The entry of a model by its name or alias, None for any other name."""
        # A name stands before an alias: a user's own entry for a dated version is meant.
        entry = self.models.get(name)
        return self.models.get(self._aliases.get(name, "")) if entry is None else entry

    def cost_usd(
        self, model: str, prompt_tokens: int | None, completion_tokens: int | None
    ) -> float | None:
        """Price of a call of a model, by name or alias; None where anything is unknown."""
        entry = self.find_model(model)
        return None if entry is None else entry.cost_usd(prompt_tokens, completion_tokens)

    def with_names_from(self, plans: Iterable[Plan]) -> tuple[Catalog, tuple[str, ...]]:
        """This catalog with an entry for every name in `plans`, and the names that were new.

        A new model's price is unknown, a description is the name in words, and a new topology
        allows the team sizes that were seen. A topology of the catalog that was seen with another
        size is widened. The names read `model x`, `role y`, `topology z (...)`, to be shown.
        """
        sizes: defaultdict[str, set[int]] = defaultdict(set)
        models: dict[str, ModelEntry] = {}
        roles: dict[str, RoleEntry] = {}
        for plan in plans:
            sizes[plan.topology].add(len(plan.agents))
            for agent in plan.agents:
                if self.find_model(agent.model) is None:
                    models[agent.model] = ModelEntry(
                        agent.model, _in_words("model", agent.model), known=False
                    )
                if agent.role is not None and agent.role not in self.roles:
                    roles[agent.role] = RoleEntry(
                        agent.role, _in_words("role", agent.role), known=False
                    )
        news = [f"model {name}" for name in sorted(models)]
        news += [f"role {name}" for name in sorted(roles)]
        topologies: dict[str, TopologyEntry] = {}
        for name, seen in sorted(sizes.items()):
            low, high = min(seen), max(seen)
            entry = self.topologies.get(name)
            if entry is None:
                # Nothing says that order does not matter, so it is kept.
                topologies[name] = TopologyEntry(
                    name, _in_words("topology", name), low, high, ordered=True, known=False
                )
                news.append(f"topology {name}")
            elif not (entry.allows(low) and entry.allows(high)):
                topologies[name] = replace(
                    entry,
                    min_agents=min(low, entry.min_agents),
                    max_agents=max(high, entry.max_agents),
                )
                news.append(
                    f"topology {name} (seen with {low} to {high} agents, catalog: "
                    f"{entry.min_agents} to {entry.max_agents}; widened)"
                )
        added = Catalog(dict(sorted(models.items())), dict(sorted(roles.items())), topologies)
        return self.extended_with(added), tuple(news)

    def _with_text(self, text: str | bytes, source: str) -> Catalog:
        base = Entries(self.models, self.roles, self.topologies)
        found = read_entries(text, source, base)
        return self.extended_with(Catalog(found.models, found.roles, found.topologies))


def _yaml_files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise CatalogError(f"{path}: no such file or folder")
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
    if not found:
        raise CatalogError(f"{path}: no .yaml file in this folder")
    return found


def _to_data(entry: ModelEntry | RoleEntry | TopologyEntry) -> dict[str, Any]:
    data = {key: value for key, value in asdict(entry).items() if key != "name"}
    if "aliases" in data:
        data["aliases"] = list(data["aliases"])
    return data


def _in_words(kind: str, name: str) -> str:
    words = " ".join(name.replace("_", " ").replace("/", " ").split())
    return f"{words or name} ({kind} known by its name alone)"
