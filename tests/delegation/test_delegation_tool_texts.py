"""What a language model reads of the tools keeps its word; their schemas are what is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.scripted import ScriptedModel
from tests.delegation.tool_samples import call, delegator, errors_in, model

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.specs import Deliberate
from masrouter.delegation.tasks import DelegationError
from masrouter.delegation.tools.calling import TOOLS, openai_tools, tools_of
from masrouter.delegation.tools.schemas import checked
from masrouter.delegation.tools.texts import MOST_DESCRIPTION
from masrouter.llms import ModelOptions, OpenAICompatible, Providers
from masrouter.router import Router

_EXAMPLE = re.compile(r"^Example: (\{.*\})$", re.MULTILINE)
_WRONG = re.compile(r"^Wrong: (\{.*\}) -> (\w+): (.+)$", re.MULTILINE)
_MANY = re.compile(r"(\{[^{}]*\}), (\{[^{}]*\}), \.\.\. (\d+) of them")


def texts(parameters: Any) -> Iterator[str]:
    """Every description within a schema."""
    if isinstance(parameters, Mapping):
        for key, value in parameters.items():
            if key == "description" and isinstance(value, str):
                yield value
            else:
                yield from texts(value)


def said_by(to: Delegator) -> Iterator[tuple[str, str]]:
    for tool in tools_of(to):
        yield tool.name, "\n".join([tool.description, *texts(tool.parameters)])


def expanded(arguments: str) -> dict[str, Any]:
    """The JSON of an example, with `... N of them` written out."""

    def write(found: re.Match[str]) -> str:
        return ", ".join(found[1 + i % 2] for i in range(int(found[3])))

    data = json.loads(_MANY.sub(write, arguments))
    assert isinstance(data, dict)
    return data


class TestTexts:
    @pytest.mark.parametrize("automatic", [True, False], ids=["with a router", "without a router"])
    def test_every_worked_example_works(self, automatic: bool, router: Router) -> None:
        to = delegator(router=router if automatic else None)
        examples = [(name, e) for name, text in said_by(to) for e in _EXAMPLE.findall(text)]
        assert len(examples) >= 6
        assert any('"auto"' in example for _, example in examples) == automatic
        for name, example in examples:
            answer = call(name, example, to)
            assert errors_in(answer) == [], (example, answer)
            assert answer.get("total") != 0, example

    def test_every_anti_pattern_gives_the_error_that_it_promises(self) -> None:
        llm = model()
        to = delegator(llm)
        wrongs = [(name, *w) for name, text in said_by(to) for w in _WRONG.findall(text)]
        assert {kind for _, _, kind, _ in wrongs} >= {
            "unknown_model", "missing_information", "invalid_task", "limit",
        }  # fmt: skip
        for name, wrong, kind, _ in wrongs:
            answer = call(name, expanded(wrong), to, parent_model="synthetic-medium")
            assert errors_in(answer) == [kind], (wrong, answer)

    def test_the_anti_patterns_are_those_that_models_are_known_for(self) -> None:
        wrongs = "\n".join(w[0] for _, text in said_by(delegator()) for w in _WRONG.findall(text))
        for habit in (
            '"openrouter:gpt-4o"',
            '"best"',
            "the above",
            "17 of them",
            "result of draft",
        ):
            assert habit in wrongs

    def test_the_error_itself_tells_what_the_text_advises(self) -> None:
        routed = OpenAICompatible(
            "http://127.0.0.1:9/v1", name="openrouter", models={"gpt-4o": ModelOptions()}
        )
        for to, habit, advice in (
            (Delegator(Providers(routed)), '"openrouter:gpt-4o"', "openrouter/gpt-4o"),
            (delegator(), "result of draft", '"needs": ["draft"]'),
        ):
            wrongs = [(name, w) for name, text in said_by(to) for w in _WRONG.findall(text)]
            name, (arguments, _, told) = next((n, w) for n, w in wrongs if habit in w[0])
            assert advice in told
            assert advice in json.dumps(call(name, arguments, to)).replace('\\"', '"')

    def test_descriptions_fit_what_openai_takes_also_with_long_names(self) -> None:
        long = "provider-of-long-names/a-model-whose-name-is-long-" + "x" * 120
        for to in (
            delegator(),
            delegator(ScriptedModel({long: "yes"}), Settings(tiers={"t": long})),
        ):
            for tool in tools_of(to):
                assert len(tool.description) <= MOST_DESCRIPTION, tool.name

    def test_examples_use_the_users_own_tiers(self) -> None:
        own = Settings(tiers={"quick": "synthetic-small", "deep": "synthetic-large"})
        text = tools_of(delegator(options=own))[0].description
        assert '"model": "quick"' in text
        assert '"model": "deep"' in text
        assert '"small"' not in text

    def test_without_anything_to_call_the_examples_name_no_model(self) -> None:
        text = tools_of(delegator(ScriptedModel({})))[0].description
        assert '"model": "small"' not in text

    def test_policies_are_spoken_of_only_where_there_are_some(self) -> None:
        own = Settings(
            policies={"careful": Deliberate(cheap="synthetic-small", strong="synthetic-large")}
        )
        plain, with_policies = (
            dict(said_by(delegator(options=options))) for options in (None, own)
        )
        assert "polic" not in "".join(plain.values()).casefold()
        assert all("polic" in text for text in with_policies.values())
        to = delegator(options=own)
        for name, text in with_policies.items():
            for example in _EXAMPLE.findall(text):
                assert errors_in(call(name, example, to)) == []
        assert all(len(tool.description) <= MOST_DESCRIPTION for tool in tools_of(to))

    def test_the_limit_of_a_batch_is_the_settings(self) -> None:
        text = tools_of(delegator(options=Settings(max_tasks=3)))[1].description
        assert "... 4 of them" in text


class TestSchemas:
    @pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
    def test_each_is_valid_and_closed(self, tool: Any) -> None:
        jsonschema.Draft202012Validator.check_schema(tool.parameters)

        def closed(schema: Any) -> None:
            if schema.get("type") == "object":
                assert schema["additionalProperties"] is False
                for inner in schema["properties"].values():
                    assert inner["description"]
                    closed(inner)
            if schema.get("type") == "array":
                closed(schema["items"])

        closed(tool.parameters)

    def test_openai_form(self) -> None:
        found = openai_tools(delegator())
        assert [one["type"] for one in found] == ["function"] * 3
        names = [one["function"]["name"] for one in found]
        assert names == ["delegate_task", "delegate_tasks", "list_models"]
        assert all(set(one["function"]) == {"name", "description", "parameters"} for one in found)
        json.dumps(found, allow_nan=False)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_the_reader_agrees_with_the_schema(self, data: st.DataObject) -> None:
        tool = data.draw(st.sampled_from(TOOLS))
        value = data.draw(_near(tool.parameters))
        fits = jsonschema.Draft202012Validator(tool.parameters).is_valid(value)
        if fits:
            assert checked(value, tool.parameters) == value
            return
        with pytest.raises(DelegationError) as found:
            checked(value, tool.parameters)
        assert found.value.error.type == "invalid_task"


def _near(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a schema, or nearly do. Nulls are left out: they mean an absent key."""
    junk = st.sampled_from([7, -1, 0, 2.5, True, "", "a", "model", [], ["a"], {}, {"goal": "b"}])
    kind = schema["type"]
    fitting: st.SearchStrategy[Any]
    if kind == "object":
        keys = {key: _near(inner) for key, inner in schema["properties"].items()}
        required = {key: keys.pop(key) for key in schema["required"]}
        fitting = st.fixed_dictionaries(required, optional=keys)
        junk = junk | st.fixed_dictionaries(required, optional={**keys, "other": st.just(1)})
    elif kind == "array":
        fitting = st.lists(_near(schema["items"]), max_size=3)
    elif kind == "string":
        fitting = st.sampled_from(schema.get("enum", ["a", "small", "task-1"]))
    elif kind == "boolean":
        fitting = st.booleans()
    else:
        fitting = st.integers(1, 300) | st.just(3.0)
    return st.one_of(fitting, fitting, fitting, fitting, fitting, fitting, junk)
