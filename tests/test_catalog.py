"""The catalog: what ships, what users add, prices, names from logs, and strict YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.catalog import Catalog, ModelEntry, RoleEntry, TopologyEntry
from masrouter.errors import CatalogError, ConfigError
from masrouter.strict_yaml import dump_strict, load_strict
from masrouter.types import Agent, Plan


def test_the_default_catalog_is_complete() -> None:
    catalog = Catalog.default()
    assert {"gpt-4o", "gpt-4o-mini", "o3-mini", "deepseek-r1", "mistral-7b-instruct"} <= set(
        catalog.models
    )
    for model in catalog.models.values():
        assert model.cost_usd(1, 1) is not None
        assert model.context_window is not None
        assert model.description
        assert model.known
    for role in catalog.roles.values():
        assert role.description
        assert len(role.prompt) > 60
    shapes = "io cot self_consistency chain full_graph debate reflection panel orchestrate"
    assert set(catalog.topologies) == {*shapes.split(), "escalate", "iterate", "delegate"}
    assert catalog.topologies["chain"].ordered
    assert not catalog.topologies["debate"].ordered
    assert catalog.topologies["io"].allows(1)
    assert not catalog.topologies["io"].allows(2)


def test_a_catalog_survives_yaml() -> None:
    catalog = Catalog.default().with_names_from([Plan("odd: name", (Agent("1e3", "true"),))])[0]
    assert Catalog.from_yaml(catalog.to_yaml(), "checkpoint") == catalog


def test_costs_are_tokens_times_prices_and_unknown_is_none() -> None:
    catalog = Catalog.default()
    assert catalog.cost_usd("gpt-4o", 1_000_000, 100_000) == pytest.approx(2.5 + 1.0)
    assert catalog.cost_usd("gpt-4o-2024-08-06", 1_000_000, 0) == pytest.approx(2.5)
    assert catalog.cost_usd("gpt-4o", 0, 0) == 0.0
    assert catalog.cost_usd("gpt-4o", None, 5) is None
    assert catalog.cost_usd("gpt-4o", 5, None) is None
    assert catalog.cost_usd("nobody's model", 5, 5) is None
    half = Catalog({"m": ModelEntry("m", "d", input_usd_per_mtok=1.0)}, {}, {})
    assert half.cost_usd("m", 5, 0) is None


def test_aliases_lead_to_the_entry_and_unknown_names_are_errors() -> None:
    catalog = Catalog.default()
    assert catalog.resolve_model("DeepSeek-V3").name == "deepseek-v3"
    with pytest.raises(CatalogError, match=r"'gpt-4o-mni' is not in.*did you mean 'gpt-4o-mini'"):
        catalog.resolve_model("gpt-4o-mni")


def test_names_from_logs_become_entries_and_are_listed() -> None:
    plans = [
        Plan("ring_of_3", (Agent("poet", "gpt-4o"),) * 3),
        Plan("ring_of_3", (Agent("coder", "my/own_model"),) * 5),
        Plan("io", (Agent(None, "DeepSeek-R1"), Agent(None, "gpt-4o"))),
    ]
    default = Catalog.default()
    catalog, unknown = default.with_names_from(plans)
    assert unknown == (
        "model my/own_model",
        "role poet",
        "topology io (seen with 2 to 2 agents, catalog: 1 to 1; widened)",
        "topology ring_of_3",
    )
    model = catalog.models["my/own_model"]
    assert (model.known, model.cost_usd(1, 1)) == (False, None)
    assert model.description.startswith("my own model")
    assert catalog.topologies["ring_of_3"] == TopologyEntry(
        "ring_of_3",
        "ring of 3 (topology known by its name alone)",
        min_agents=3,
        max_agents=5,
        ordered=True,
        known=False,
    )
    assert not catalog.roles["poet"].known
    assert catalog.topologies["io"].max_agents == 2
    assert "DeepSeek-R1" not in catalog.models
    assert default.topologies["io"].max_agents == 1
    assert catalog.with_names_from(plans) == (catalog, ())


def test_a_users_file_adds_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "models:\n  gpt-4o:\n    input_usd_per_mtok: 2\n"
        "  mine:\n    description: My model.\n    aliases: [mine-2, gpt-4-0613]\n"
        "roles:\n  poet: {description: Writes verse., domain: writing}\n"
    )
    catalog = Catalog.load(tmp_path)
    assert catalog.models["gpt-4o"].input_usd_per_mtok == 2
    assert catalog.models["gpt-4o"].output_usd_per_mtok == 10
    assert catalog.cost_usd("mine", 1, 1) is None
    assert catalog.resolve_model("gpt-4-0613").name == "mine"
    assert catalog.models["gpt-4"].aliases == ()
    assert catalog.roles["poet"] == RoleEntry("poet", "Writes verse.", domain="writing")
    assert Catalog.from_yaml(catalog.to_yaml(), "x") == catalog


def test_an_alias_may_not_be_a_models_own_name() -> None:
    other = Catalog({"m": ModelEntry("m", "d", aliases=("gpt-4o",))}, {}, {})
    with pytest.raises(CatalogError, match="'gpt-4o' is a model of its own"):
        Catalog.default().extended_with(other)


M = "models:\n  m:\n    description: d\n"
BAD: list[tuple[str, str]] = [
    ("", "1: empty; expected models, roles, topologies"),
    ("- a", "1: expected a mapping, got a list"),
    ("modles: {}", "1: modles: unknown key; did you mean 'models'?"),
    ("models: 3", "1: models: expected a mapping, got 3"),
    ("models:\n  m: 3", "2: models.m: expected a mapping, got 3"),
    ("models:\n  m: {}", "2: models.m: description is missing"),
    ("models:\n  '': {description: d}", "2: models.: expected a non-empty name"),
    (M + "    price: 3", "4: models.m.price: unknown key"),
    (M + "    input_usd_per_mtk: 3", "4: models.m.input_usd_per_mtk: unknown key; did you mean"),
    (M + "    input_usd_per_mtok: -1", "4: models.m.input_usd_per_mtok: expected US dollars per "),
    (M + "    input_usd_per_mtok: '1'", "4: models.m.input_usd_per_mtok: expected US dollars per "),
    (M + "    input_usd_per_mtok: .nan", "4: models.m.input_usd_per_mtok: expected US dollars"),
    (M + "    input_usd_per_mtok: true", "4: models.m.input_usd_per_mtok: expected US dollars"),
    (M + "    input_usd_per_mtok: 1e999", "4: models.m.input_usd_per_mtok: expected US dollars"),
    (M + "    context_window: 1.5", "4: models.m.context_window: expected a number of tokens"),
    (M + "    aliases: x", "4: models.m.aliases: expected a list of non-empty texts, got 'x'"),
    (M + "    aliases: [m]", "4: models.m.aliases: 'm' is the name of a model of its own"),
    (M + "    aliases: [gpt-4o]", "4: models.m.aliases: 'gpt-4o' is the name of a model"),
    (
        M + "    aliases: [x]\n  n:\n    description: d\n    aliases: [x]",
        "7: models.n.aliases: 'x' is an alias of 'm' too",
    ),
    (M + "    description: e", "4: description: the key stands twice, first on line 3"),
    ("roles:\n  r: {description: d, prompt: 3}", "2: roles.r.prompt: expected a text, got 3"),
    (
        "topologies:\n  t: {description: d, min_agents: 3, max_agents: 2, ordered: true}",
        "2: topologies.t: min_agents 3 is above max_agents 2",
    ),
    (
        "topologies:\n  t: {description: d, min_agents: 0, max_agents: 2, ordered: true}",
        "2: topologies.t.min_agents: expected a number of agents from 1 to 64, got 0",
    ),
    (
        "topologies:\n  t: {description: d, min_agents: 1, max_agents: 2, ordered: no}",
        "2: topologies.t.ordered: expected true or false, got 'no'",
    ),
    (
        "topologies:\n  t: {description: d, min_agents: 1, max_agents: 2}",
        "2: topologies.t: ordered is missing",
    ),
    ("models: &a {}\nroles: *a", "1: anchor &a; write the value out"),
    ("models: {}\nroles: *a", "2: alias *a; write the value out"),
    ("models: !!python/object/apply:os.system [x]", "1: tag tag:yaml.org,2002:python/object"),
    ("models: {}\n---\nroles: {}", "2: a second document"),
    ("models: {\n", "2: not valid YAML: "),
    ("models:\n\t- x", "2: not valid YAML: "),
    ("models:\n  a\0b: {}", "2: not valid YAML: special characters"),
    ("? [a]\n: b", "1: a key that is not plain text"),
    ("x: " + "[" * 40, "1: nested deeper than 32 levels"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_is_refused_by_file_line_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(CatalogError) as caught:
        Catalog.load(path)
    assert str(caught.value).startswith(f"{path}:{message}")


def test_paths_without_a_catalog_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such file or folder"):
        Catalog.load(tmp_path / "absent.yaml")
    with pytest.raises(CatalogError, match=r"no \.yaml file in this folder"):
        Catalog.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"models: \xff")
    with pytest.raises(CatalogError, match=r"latin\.yaml: not UTF-8 at byte 9"):
        Catalog.load(tmp_path)


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(CatalogError, match="larger than 4 MiB"):
        Catalog.from_yaml("#" * (5 << 20), "big")


def test_strict_yaml_keeps_words_as_words_and_knows_lines() -> None:
    document = load_strict(
        "a: no\nb: 2024-01-31\nc: 1e-3\nd: [1, 2.5,\n  x]\ne: ~\nf: '7'\ng: 0x1f\n",
        "f",
        ConfigError,
    )
    assert document.value == {
        "a": "no",
        "b": "2024-01-31",
        "c": 0.001,
        "d": [1, 2.5, "x"],
        "e": None,
        "f": "7",
        "g": "0x1f",
    }
    assert document.line(("d", 2)) == 5
    assert document.line(("d", 2, "deeper")) == 5
    assert isinstance(document.problem(("d", 2), "bad"), ConfigError)
    assert str(document.problem(("d", 2), "bad")) == "f:5: d[2]: bad"


plain = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e9, 1e9)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
tricky = st.sampled_from(["no", "1e3", "null", "~", "0", "- a", "a: b", "#x", " ", "*a", "&b", ""])
trees = st.recursive(
    plain | words | tricky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | tricky, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_dumped_yaml_reads_back_unchanged(value: object) -> None:
    assert load_strict(dump_strict(value), "x").value == value
