"""`list_models`: what a language model is told that it can choose from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.delegation.scripted import ScriptedModel
from tests.delegation.tool_samples import call, delegator

from masrouter.catalog import Catalog
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.workers.worker import Worker
from masrouter.llms import Providers
from masrouter.router import Router
from masrouter.types import Agent, Plan

PAIR = Plan("debate", (Agent("critic", "one"), Agent("critic", "lab/one")))


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

    def test_what_a_worker_costs_by_the_call_is_told(self) -> None:
        worker = Worker(name="notes", description="Looks up.", run=str, usd_per_call=0.5)
        to = Delegator(ScriptedModel({"one": "a"}), workers=[worker])
        prices = {one["id"]: one["price"] for one in call("list_models", {}, to)["models"]}
        assert {id: price["usd_per_call"] for id, price in prices.items()} == {
            "one": 0.0, "notes": 0.5,
        }  # fmt: skip

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

    def test_a_key_that_is_not_set_is_told_without_the_place_of_the_provider_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("LAB_KEY", raising=False)
        file = tmp_path / "providers.yaml"
        file.write_text(
            "providers:\n  lab: {base_url: 'http://127.0.0.1:9/v1', api_key_env: LAB_KEY,"
            " models: {one: }}\n"
        )
        to = Delegator(Providers.load(file), Settings(plans={"pair": PAIR}))
        for answer in (
            call("list_models", {}, to),
            call("delegate_task", {"goal": "a", "model": "lab/one"}, to),
            call("delegate_task", {"goal": "a", "model": "pair"}, to),
        ):
            told = json.dumps(answer)
            assert "LAB_KEY is not set" in told
            assert "providers.yaml" not in told
            assert str(tmp_path) not in told

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
