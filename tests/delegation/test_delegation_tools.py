"""Tools for language models: their texts keep their word, and no call can break them."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.scripted import DOWN, ScriptedModel

from masrouter.catalog import Catalog
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import DelegationError, TaskEnded
from masrouter.delegation.tools.calling import TOOLS, call_tool, failed, openai_tools, tools_of
from masrouter.delegation.tools.schemas import MOST_CHARACTERS, checked
from masrouter.delegation.tools.texts import MOST_DESCRIPTION
from masrouter.execution.ledger import Ledger
from masrouter.llms import ModelOptions, OpenAICompatible, Providers
from masrouter.llms.chat import Price
from masrouter.router import Router

MODELS = ("synthetic-small", "synthetic-coder", "synthetic-medium", "synthetic-large")
PRICES = {
    "synthetic-small": Price(0.1, 0.2, "test"),
    "synthetic-coder": Price(0.3, 0.6, "test"),
    "synthetic-medium": Price(1.0, 2.0, "test"),
    "synthetic-large": Price(5.0, 10.0, "test"),
}
_EXAMPLE = re.compile(r"^Example: (\{.*\})$", re.MULTILINE)
_WRONG = re.compile(r"^Wrong: (\{.*\}) -> (\w+): (.+)$", re.MULTILINE)
_MANY = re.compile(r"(\{[^{}]*\}), (\{[^{}]*\}), \.\.\. (\d+) of them")


def model(**replies: Any) -> ScriptedModel:
    said = {name: f"answer of {name}" for name in MODELS}
    return ScriptedModel({**said, **replies}, prices=PRICES)


def delegator(
    llm: ScriptedModel | None = None, options: Settings | None = None, router: Router | None = None
) -> Delegator:
    return Delegator(llm or model(), options, router=router)


def call(
    name: str, arguments: str | Mapping[str, Any], to: Delegator | None = None, **options: Any
) -> dict[str, Any]:
    answer = asyncio.run(call_tool(to or delegator(), name, arguments, **options))
    json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
    return answer


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


def errors_in(answer: Mapping[str, Any]) -> list[str]:
    results = answer.get("results", [answer])
    return [one["error"]["type"] for one in results if one.get("error") is not None]


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


class TestCalls:
    def test_a_task_gives_its_answer_its_cost_and_who_answered(self) -> None:
        llm = model()
        answer = call("delegate_task", {"goal": "Name a river.", "model": "small"}, delegator(llm))
        assert answer["status"] == "done"
        assert answer["error"] is None
        assert answer["summary"] == "answer of synthetic-small"
        assert answer["models"] == ["synthetic-small"]
        assert answer["usage"]["cost_usd"] == pytest.approx(llm.billed_usd)
        assert not failed(answer)

    def test_a_worker_sees_goal_and_context_alone(self) -> None:
        llm = model()
        call(
            "delegate_task",
            {"goal": "Count the words.", "context": "one two", "model": "small"},
            delegator(llm),
        )
        (request,) = llm.requests
        sent = request.messages[-1].content
        assert "Count the words." in sent
        assert "one two" in sent

    def test_results_stand_in_the_order_of_the_tasks_and_faults_are_their_own(self) -> None:
        answer = call(
            "delegate_tasks",
            {
                "tasks": [
                    {"goal": "Name a river.", "model": "large"},
                    {"goal": "Name a lake.", "model": "openrouter:gpt-4o"},
                    {"goal": "Name a sea.", "modle": "small"},
                    {"goal": "Name a hill.", "id": "hill"},
                    {"goal": "Summarise the above."},
                    {"goal": 7, "id": "seven"},
                    {"goal": "Say it in French.", "needs": ["seven"]},
                    {"goal": "Is it high?", "needs": ["hill"]},
                ],
                "model": "small",
            },
        )
        found = answer["results"]
        assert [one["id"] for one in found] == [
            "task-1", "task-2", "task-3", "hill", "task-5", "seven", "task-7", "task-8",
        ]  # fmt: skip
        assert [one["error"] and one["error"]["type"] for one in found] == [
            None, "unknown_model", "invalid_task", None, "missing_information", "invalid_task",
            "needs", None,
        ]  # fmt: skip
        assert "'model'" in found[2]["error"]["message"]
        assert "tasks[5].goal" in found[5]["error"]["message"]
        assert found[0]["models"] == ["synthetic-large"]
        assert not failed(answer)

    def test_a_provider_that_is_down_fails_its_own_task(self) -> None:
        llm = model(**{"synthetic-small": DOWN})
        tasks = [{"goal": "a", "model": "small"}, {"goal": "b", "model": "large"}]
        answer = call("delegate_tasks", {"tasks": tasks}, delegator(llm))
        assert errors_in(answer) == ["provider"]
        assert answer["results"][1]["summary"] == "answer of synthetic-large"

    def test_a_batch_of_failures_has_failed(self) -> None:
        tasks = [{"goal": "a", "model": "none-such"}, {"goal": "b", "model": "nor-this"}]
        assert failed(call("delegate_tasks", {"tasks": tasks}))

    def test_what_nobody_can_mean_reaches_no_model(self) -> None:
        llm = model()
        answer = call("delegate_tasks", {"tasks": [{"goal": "See above."}]}, delegator(llm))
        assert errors_in(answer) == ["missing_information"]
        assert llm.requests == []

    def test_answers_that_are_no_text_can_still_be_told(self) -> None:
        llm = model(**{"synthetic-small": "half \ud800 of a pair"})
        answer = call("delegate_task", {"goal": "a", "model": "small"}, delegator(llm))
        assert answer["summary"] == "half ? of a pair"

    def test_events_and_the_parents_model_are_passed_on(self) -> None:
        seen: list[object] = []
        answer = call(
            "delegate_task", {"goal": "a"}, parent_model="synthetic-medium", on_event=seen.append
        )
        assert answer["asked_by"] == "parent"
        assert isinstance(seen[-1], TaskEnded)

    def test_a_call_that_is_cancelled_cancels_its_work(self) -> None:
        llm = ScriptedModel({"slow": "late"}, delays_s={"slow": 60})

        async def run() -> None:
            work = asyncio.create_task(
                call_tool(delegator(llm), "delegate_task", {"goal": "a", "model": "slow"})
            )
            while not llm.in_flight:
                await asyncio.sleep(0.001)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        asyncio.run(run())
        assert llm.cancelled == 1
        assert llm.in_flight == 0


class TestBudgets:
    def test_a_model_that_asks_for_more_than_it_may_is_told_how_much_it_may(self) -> None:
        asked = {"goal": "a", "model": "small", "budget_usd": 5}
        answer = call("delegate_task", asked, budget_usd=0.25)
        assert answer["error"]["type"] == "budget"
        assert "0.25" in answer["error"]["message"]
        again = {**asked, "budget_usd": float(answer["error"]["nearest"][0])}
        assert call("delegate_task", again, budget_usd=0.25)["status"] == "done"

    def test_calls_share_the_books_and_hear_what_is_left(self) -> None:
        llm = model()
        books = Ledger(0.5)
        to = delegator(llm)
        first = call("delegate_task", {"goal": "a", "model": "small"}, to, within=books)
        second = call("delegate_task", {"goal": "b", "model": "small"}, to, within=books)
        assert books.spent_usd == pytest.approx(llm.billed_usd)
        assert 0.5 > first["budget_left_usd"] > second["budget_left_usd"]
        assert second["budget_left_usd"] == books.left_usd

    def test_what_does_not_fit_is_an_error_and_costs_nothing(self) -> None:
        llm = model()
        answer = call("delegate_task", {"goal": "a", "model": "large", "budget_usd": 1e-9},
                      delegator(llm))  # fmt: skip
        assert answer["error"]["type"] == "budget"
        assert llm.requests == []


class TestListing:
    def test_it_tells_what_there_is_to_choose_from(self) -> None:
        llm = ScriptedModel({"gpt-4o": "a", "gpt-4o-mini": "b"}, prices={"gpt-4o": None})
        to = delegator(llm, Settings(default="mini", aliases={"mini": "gpt-4o-mini"}))
        found = call("list_models", {}, to)
        assert found["default"] == "mini"
        assert found["total"] == len(found["models"])
        by_id = {one["id"]: one for one in found["models"]}
        known = Catalog.default().models["gpt-4o-mini"]
        mini = by_id["gpt-4o-mini"]
        assert mini["kind"] == "model"
        assert mini["callable"] is True
        assert mini["why_not"] is None
        assert mini["aliases"] == ["mini"]
        assert mini["description"] == known.description
        assert mini["context_window"] == known.context_window
        assert mini["price"]["input_usd_per_mtok"] == 1.0
        assert by_id["gpt-4o"]["price"] is None

    def test_plans_and_the_router_are_listed_too(self, router: Router) -> None:
        to = delegator(options=Settings(plans={"pair": router.plans[0]}), router=router)
        kinds = {one["id"]: one["kind"] for one in call("list_models", {}, to)["models"]}
        assert kinds["auto"] == "auto"
        assert kinds["pair"] == "plan"

    def test_what_is_refused_says_so(self) -> None:
        to = delegator(options=Settings(refused=("synthetic-large",)))
        found = call("list_models", {"query": "synthetic-large"}, to)["models"]
        assert [one["callable"] for one in found] == [False]
        assert found[0]["why_not"]
        assert (
            call("list_models", {"query": "synthetic-large", "callable_only": True}, to)["total"]
            == 0
        )

    def test_pages_hold_everything_once(self) -> None:
        to = delegator(ScriptedModel({f"model-{i:03}": "a" for i in range(137)}))
        ids: list[str] = []
        asked: dict[str, Any] = {"limit": 50, "query": "model"}
        while True:
            page = call("list_models", asked, to)
            ids += [one["id"] for one in page["models"]]
            if page["next_cursor"] is None:
                break
            asked["cursor"] = page["next_cursor"]
        assert ids == [f"model-{i:03}" for i in range(137)]

    def test_filters(self) -> None:
        to = delegator()
        small = call("list_models", {"tier": "small"}, to)["models"]
        assert [one["id"] for one in small] == ["synthetic-small"]
        both = call("list_models", {"query": "SYNTHETIC coder"}, to)["models"]
        assert [one["id"] for one in both] == ["synthetic-coder"]
        assert call("list_models", {"kind": "worker"}, to)["total"] == 0

    @pytest.mark.parametrize("asked", [{"tier": "smal"}, {"cursor": "page 2"}, {"limit": 0}])
    def test_a_filter_that_means_nothing_is_an_error(self, asked: dict[str, Any]) -> None:
        assert call("list_models", asked)["error"]["type"] == "invalid_task"

    def test_a_tier_that_is_misspelt_is_told_the_nearest(self) -> None:
        assert call("list_models", {"tier": "smal"})["error"]["nearest"] == ["small"]


GOAL = '"goal": "Name a river.", "model": "small"'
BAD = {
    "unknown tool": ("delegate", "{}", "there is no tool"),
    "no JSON": ("delegate_task", "goal: do it", "not JSON"),
    "cut off": ("delegate_task", '{"goal": "a', "not JSON"),
    "nothing": ("delegate_task", "", "goal: is required"),
    "a list": ("delegate_task", "[1]", "expected an object"),
    "a string": ("delegate_tasks", '"{}"', "expected an object"),
    "null": ("delegate_task", "null", "expected an object"),
    "NaN": ("delegate_task", f'{{{GOAL}, "budget_usd": NaN}}', "NaN"),
    "infinite": ("delegate_task", f'{{{GOAL}, "budget_usd": 1e999}}', "budget_usd"),
    "negative": ("delegate_task", f'{{{GOAL}, "budget_usd": -1}}', "at least 0"),
    "huge integer": ("delegate_task", f'{{{GOAL}, "max_tokens": {"9" * 5000}}}', "not JSON"),
    "half a token": ("delegate_task", f'{{{GOAL}, "max_tokens": 1.5}}', "a whole number"),
    "true tokens": ("delegate_task", f'{{{GOAL}, "max_tokens": true}}', "a whole number"),
    "a key twice": ("delegate_task", f'{{{GOAL}, "goal": "b"}}', "twice"),
    "unknown key": ("delegate_task", f'{{{GOAL}, "modell": "small"}}', "did you mean 'model'"),
    "empty goal": ("delegate_task", '{"goal": ""}', "goal: expected a text"),
    "blank goal": ("delegate_task", '{"goal": " ", "model": "small"}', "goal"),
    "number as goal": ("delegate_task", '{"goal": 7}', "goal: expected a string, got 7"),
    "no goal": ("delegate_task", '{"goal": null}', "goal: expected a string, got null"),
    "half a pair": ("delegate_task", '{"goal": "\\ud800"}', "surrogate"),
    "deep": ("delegate_task", '{"goal": ' + "[" * 200_000, "not JSON|nested too deeply"),
    "no tasks": ("delegate_tasks", '{"tasks": []}', "at least 1"),
    "tasks as text": ("delegate_tasks", '{"tasks": "[]"}', "tasks: expected a list"),
    "tasks as object": ("delegate_tasks", '{"tasks": {"goal": "a"}}', "tasks: expected a list"),
    "needs as text": ("delegate_tasks", f'{{"tasks": [{{{GOAL}, "needs": "a"}}]}}', "needs"),
    "text as task": ("delegate_tasks", '{"tasks": ["a"]}', "tasks\\[0\\]: expected an object"),
    "unknown kind": ("list_models", '{"kind": "gpt"}', "one of model, worker, plan, auto"),
}


class TestBadCalls:
    @pytest.mark.parametrize(("name", "arguments", "why"), BAD.values(), ids=BAD.keys())
    def test_is_an_error_that_says_why(self, name: str, arguments: str, why: str) -> None:
        llm = model()
        answer = call(name, arguments, delegator(llm))
        errors = [one["error"] for one in answer.get("results", [answer])]
        assert [one["type"] for one in errors] == ["invalid_task"]
        assert re.search(why, errors[0]["message"]), errors[0]["message"]
        assert len(json.dumps(answer)) < 2000
        assert llm.requests == []

    @pytest.mark.parametrize("key", ["goal", "context", "model"])
    def test_a_million_characters_are_an_error_and_not_repeated(self, key: str) -> None:
        llm = model()
        asked = {"goal": "a", "model": "small", key: "x" * 1_000_000}
        answer = call("delegate_task", asked, delegator(llm))
        assert errors_in(answer)
        assert llm.requests == []
        assert len(json.dumps(answer)) < 5000

    def test_an_id_of_a_million_characters_is_its_tasks_fault(self) -> None:
        tasks = [{"goal": "a", "id": "x" * 1_000_000}, {"goal": "b"}]
        answer = call("delegate_tasks", {"tasks": tasks, "model": "small"})
        assert [one["error"] is None for one in answer["results"]] == [False, True]

    def test_arguments_beyond_the_limit_are_not_parsed(self) -> None:
        answer = call("delegate_task", '{"goal": "' + "x" * MOST_CHARACTERS + '"}')
        assert answer["error"]["type"] == "limit"

    @pytest.mark.parametrize("value", [math.nan, {1, 2}, object(), b"a"])
    def test_an_object_that_is_no_json_is_an_error(self, value: object) -> None:
        answer = call("delegate_task", {"goal": "a", "budget_usd": value})
        assert answer["error"]["type"] == "invalid_task"

    def test_nulls_and_whole_floats_are_taken_as_models_mean_them(self) -> None:
        asked = '{"goal": "a", "model": "small", "context": null, "max_tokens": 64.0}'
        assert call("delegate_task", asked)["status"] == "done"
        assert call("list_models", "")["total"] == len(MODELS)

    def test_a_fault_of_the_program_is_told_without_its_text(self) -> None:
        class Broken(ScriptedModel):
            @property
            def models(self) -> tuple[str, ...]:
                raise RuntimeError("secret")

        answer = call("list_models", {}, delegator(Broken({})))
        assert answer["error"]["type"] == "internal"
        assert "RuntimeError" in answer["error"]["message"]
        assert "secret" not in json.dumps(answer)

    @settings(max_examples=50, deadline=None)
    @given(
        name=st.sampled_from([tool.name for tool in TOOLS]),
        arguments=st.text(max_size=60)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["goal", "tasks", "model", "x"]), inner)
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
    def test_nothing_that_a_model_writes_raises(self, name: str, arguments: str) -> None:
        answer = call(name, arguments, delegator(ScriptedModel({})))
        assert "error" in answer or "results" in answer or "models" in answer


class TestSelfContained:
    @pytest.mark.parametrize(
        "goal",
        [
            "Summarise the above.",
            "Translate the text mentioned above into French.",
            "Continue our conversation.",
            "Fix the bug that we found in the previous message.".replace("the previous", "my last"),
            "Do as we discussed.",
            "Read the attached file and list its headings.",
        ],
    )
    def test_what_only_the_parent_saw_is_asked_back(self, goal: str) -> None:
        llm = model()
        answer = call("delegate_task", {"goal": goal, "model": "small"}, delegator(llm))
        assert answer["error"]["type"] == "missing_information"
        assert "context" in answer["error"]["message"]
        assert llm.requests == []
        mended = {"goal": goal, "model": "small", "context": "The material."}
        assert call("delegate_task", mended)["status"] == "done"

    @pytest.mark.parametrize(
        "goal",
        [
            "List numbers above 10 among 5, 12 and 20.",
            "Find the above-average scores of 1, 2 and 9.",
            "Here are two notes. The first is on rivers, the second is on lakes; "
            "both are short. Summarise the above.",
            "Summarise this conversation: A: hello. B: good morning.",
            "Explain the first step of glycolysis.",
            "Name a town that lies above 3000 m.",
        ],
    )
    def test_a_goal_that_is_complete_is_let_through(self, goal: str) -> None:
        assert call("delegate_task", {"goal": goal, "model": "small"})["status"] == "done"

    @pytest.mark.parametrize(
        "second",
        ["Check the output of draft.", "Improve task draft.", 'Shorten the answer from "draft".',
         "Review the previous task."],
    )  # fmt: skip
    def test_another_tasks_answer_needs_needs(self, second: str) -> None:
        tasks = [{"id": "draft", "goal": "Draft a note.", "model": "small"},
                 {"goal": second, "model": "small"}]  # fmt: skip
        answer = call("delegate_tasks", {"tasks": tasks})
        assert errors_in(answer) == ["invalid_task"]
        assert answer["results"][1]["error"]["nearest"] == ["draft"]
        tasks[1]["needs"] = ["draft"]  # type: ignore[assignment]
        assert errors_in(call("delegate_tasks", {"tasks": tasks})) == []

    def test_plain_english_is_no_reference_to_a_task_of_a_short_name(self) -> None:
        tasks = [
            {"id": "a", "goal": "Name a river.", "model": "small"},
            {"id": "b", "goal": "Explain the results of a survey in general.", "model": "small"},
        ]
        assert errors_in(call("delegate_tasks", {"tasks": tasks})) == []
