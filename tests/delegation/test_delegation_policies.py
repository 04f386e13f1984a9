"""Policies in settings: what a file may say, where their names lead, and what stands in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.delegation.offered import (
    CATALOG,
    KEY,
    TRANSLATOR,
    UNPRICED_WORKER,
    names,
    providers,
    refusal,
)

from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import Offer, offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.reading import deliberate_by
from masrouter.delegation.policies.specs import Deliberate, Iterate, Match, PolicySpec
from masrouter.delegation.tools.listing import listing
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.errors import ConfigError
from masrouter.types import Agent, Plan

CAREFUL = Deliberate(cheap="flash", strong="llama")
RESEARCHED = Iterate(model="flash", subtask=None)
FITTING = Match(otherwise="flash")
FLASH = {"flash": "stepfun/step-3.5-flash --provider openrouter"}
MATCHING = MatchingRule(threshold=0.3, chat_weight=0.1, encoder="words")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def known(policy: PolicySpec, *, workers: Any = (TRANSLATOR,), **more: Any) -> Names:
    """Names of the three providers, with one policy called `mine`."""
    settings = Settings(aliases=FLASH, policies={"mine": policy}, **more)
    return names(settings, workers=workers)


def offer(settings: Settings, name: str, *, workers: Any = ()) -> Offer:
    offers = offers_of(providers(), settings, CATALOG, workers)
    return next(one for one in offers if one.id == name)


def load(folder: Path, text: str) -> Settings:
    file = folder / "delegation.yaml"
    file.write_text(text)
    return Settings.load(file)


class TestFile:
    def test_says_everything_of_each_policy(self, tmp_path: Path) -> None:
        rule, missing = Rule(5, 0.6, True), MissingRule(threshold=0.5)
        (tmp_path / "found").mkdir()
        Thresholds(rule=rule, missing=missing, matching=MATCHING).save(
            tmp_path / "found" / "thresholds.json"
        )
        settings = load(
            tmp_path,
            """
policies:
  careful: {deliberate: {cheap: small, strong: large, thresholds: found/thresholds.json}}
  quick: {deliberate: {cheap: small, rule: {samples: 4, threshold: 0.5}, missing: true,
    ask_missing: true}}
  unasked: {deliberate: {cheap: a, strong: b, thresholds: found/thresholds.json, missing: false}}
  silent: {deliberate: {cheap: a, strong: b, thresholds: found/thresholds.json,
    ask_missing: false}}
  researched: {iterate: {model: medium, subtask: small, ahead: notes, rounds: 2, requests: 1}}
  alone: {iterate: {model: medium, subtask: null, thresholds: found/thresholds.json}}
  fitting: {match: {otherwise: small}}
  strict: {match: {otherwise: small, thresholds: found/thresholds.json, fall_back: false}}
""",
        )
        assert settings.policies == {
            "careful": Deliberate(
                cheap="small", strong="large", rule=rule, missing=missing, ask_missing=True
            ),
            "silent": Deliberate(cheap="a", strong="b", rule=rule, missing=missing),
            "quick": Deliberate(
                cheap="small", strong="auto", rule=Rule(4, 0.5), missing=MissingRule(),
                ask_missing=True,
            ),
            "unasked": Deliberate(cheap="a", strong="b", rule=rule),
            "researched": Iterate(
                model="medium", subtask="small", ahead="notes", rounds=2, requests=1
            ),
            "alone": Iterate(model="medium", subtask=None, matching=MATCHING),
            "fitting": Match(otherwise="small"),
            "strict": Match(otherwise="small", matching=MATCHING, fall_back=False),
        }  # fmt: skip

    def test_the_model_is_asked_what_is_missing_where_that_was_found_to_pay(
        self, tmp_path: Path
    ) -> None:
        for name, weights in (("pays", {"model": 0.9}), ("not", {"options": 0.9})):
            missing = MissingRule(weights, 0.5)  # type: ignore[arg-type]
            file = tmp_path / f"{name}.json"
            Thresholds(rule=Rule(), missing=missing, matching=None).save(file)
            settings = load(
                tmp_path, f"policies: {{a: {{deliberate: {{cheap: b, thresholds: {name}.json}}}}}}"
            )
            for spec in (settings.policies["a"], deliberate_by("b", "c", file)):
                assert isinstance(spec, Deliberate)
                assert spec.missing == missing
                assert spec.ask_missing == (name == "pays")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: {}", "2: policies.a: expected one of deliberate, iterate, match, got 0"),
            ("a: small", "2: policies.a: expected a mapping, got 'small'"),
            ("a: {deliberat: {}}", "2: policies.a.deliberat: unknown key; did you mean 'delib"),
            ("a: {deliberate: {strong: b}}", "2: policies.a.deliberate: expected `cheap`"),
            ("a: {deliberate: {cheap: 3}}", "2: policies.a.deliberate.cheap: expected a name, got"),
            ("a: {deliberate: {cheap: b, stron: c}}", "2: policies.a.deliberate.stron: unknown ke"),
            ("a: {deliberate: {cheap: ' '}}", "2: policies.a.deliberate.cheap: ' ' cannot be a n"),
            (
                "a: {deliberate: {cheap: b, rule: {samples: 1}}}",
                "2: policies.a.deliberate.rule: samples: expected a number >= 2",
            ),
            (
                "a: {deliberate: {cheap: b, rule: {sample: 3}}}",
                "2: policies.a.deliberate.rule.sample: unknown key; did you mean 'samples'?",
            ),
            (
                "a: {deliberate: {cheap: b, missing: 3}}",
                "2: policies.a.deliberate.missing: expected true or false, got 3",
            ),
            (
                "a: {deliberate: {cheap: b, ask_missing: true}}",
                "2: policies.a.deliberate: ask_missing: needs `missing`",
            ),
            (
                "a: {deliberate: {cheap: b, thresholds: gone.json}}",
                "2: policies.a.deliberate.thresholds: ",
            ),
            (
                "a: {deliberate: {cheap: b, thresholds: matching.json}}",
                "2: policies.a.deliberate.thresholds: matching.json: has no rule of deliberating",
            ),
            (
                "a: {deliberate: {cheap: b, rule: {}, thresholds: rule.json}}",
                "2: policies.a.deliberate.rule: the thresholds' file has one",
            ),
            (
                "a: {match: {otherwise: b, fall_back: null}}",
                "2: policies.a.match.fall_back: expected true or false, got ",
            ),
            (
                "a: {match: {otherwise: b, thresholds: rule.json}}",
                "2: policies.a.match.thresholds: rule.json: has no rule of matching",
            ),
            ("a: {iterate: {model: b, rounds: 0}}", "2: policies.a.iterate.rounds: expected a who"),
            (
                "a: {iterate: {model: b, requests: 17}}",
                "2: policies.a.iterate.requests: 17 are asked at once, and max_tasks is 16",
            ),
            (
                "a: {iterate: {model: b, rounds: 10000000000}}",
                "2: policies.a.iterate: rounds: at most 64 are allowed, got 10000000000",
            ),
            ("auto: {match: {otherwise: b}}", "2: policies.auto: this is the router's own name"),
            ("'a b': {match: {otherwise: b}}", "2: policies.a b: expected one word"),
            (
                "a: {match: {otherwise: b}}\nplans: {a: {io: [c]}}",
                "2: policies.a: plans has this name too, and a name leads to one thing",
            ),
            (
                "a: {match: {otherwise: b}}\n  b: {match: {otherwise: c}}",
                "2: policies.a.match.otherwise: 'b' is a policy, and no policy stands within",
            ),
            (
                "a: {iterate: {model: b, subtask: x}}\naliases: {x: y}\ntiers: {y: a}",
                "2: policies.a.iterate.subtask: 'x' leads to 'a', which is a policy, and no policy",
            ),
        ],
    )
    def test_a_mistake_has_its_place(self, tmp_path: Path, text: str, message: str) -> None:
        Thresholds(rule=Rule()).save(tmp_path / "rule.json")
        Thresholds(matching=MATCHING).save(tmp_path / "matching.json")
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, f"policies:\n  {text}")
        assert str(raised.value).startswith(f"{tmp_path / 'delegation.yaml'}:{message}")

    def test_policies_made_in_code_are_checked_alike(self) -> None:
        for given, message in (
            ({"a": Plan("io", (Agent(None, "b"),))}, "policies: a: expected a policy"),
            ({"a": Match(otherwise="a")}, "otherwise: 'a' is a policy"),
            ({"a": Match(otherwise=3)}, "otherwise: expected a name, got 3"),  # type: ignore[arg-type]
        ):
            with pytest.raises(ConfigError, match=message):
                Settings(policies=given)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="rounds: expected a whole number >= 1, got 0"):
            Iterate(model="a", rounds=0)


class TestNames:
    def test_lead_to_the_policy_from_wherever_a_model_may_be_named(self) -> None:
        policies = {"mine": CAREFUL}
        settings = Settings(
            aliases={**FLASH, "short": "mine"}, tiers={"best": "short"}, policies=policies,
            default="best",
        )  # fmt: skip
        found = names(settings)
        for target in (
            found.resolve("mine", budgeted=True),
            found.resolve(None, "short", budgeted=True),
            found.resolve(budgeted=True),
        ):
            assert (target.kind, target.plan, target.policy) == ("policy", None, "mine")
        assert found.resolve(budgeted=True).asked == "best"

    @pytest.mark.parametrize(
        ("policy", "budgeted", "kind", "why"),
        [
            (Deliberate(cheap="flash", strong="gpt-9"), False, "unknown_model", "its strong 'gpt"),
            (Deliberate(cheap="openai/o3", strong="flash"), False, "no_credential", "its cheap '"),
            (Deliberate(cheap="flash", strong="auto"), False, "no_router", "its strong 'auto': th"),
            (Iterate(model="flash"), False, "no_router", "its subtask 'auto'"),
            (Iterate(model="llama3.2:3b", subtask=None), True, "unknown_price", "its model 'llama"),
            (Deliberate(cheap="flash", strong="team"), False, "no_credential", "its strong 'team'"),
        ],
    )
    def test_what_stands_in_a_parts_way_stands_in_the_policys(
        self, policy: PolicySpec, budgeted: bool, kind: str, why: str
    ) -> None:
        team = Plan("debate", (Agent(None, "flash"), Agent(None, "openai/o3")))
        error = refusal(known(policy, plans={"team": team}), "mine", budgeted=budgeted)
        assert error.type == kind
        assert f"'mine': {why}" in error.message
        assert "openrouter/llama" in error.nearest or "flash" in error.nearest
        assert "mine" not in error.nearest

    def test_settings_allow_a_policy_where_they_allow_all_its_parts(self) -> None:
        both = ("flash", "openrouter/llama")
        known(CAREFUL, allowed=both).resolve("mine", budgeted=True)
        for refusing in ({"allowed": both[:1]}, {"refused": ("llama",)}, {"refused": ("mine",)}):
            error = refusal(known(CAREFUL, **refusing), "mine")
            assert error.type == "not_allowed"
        with pytest.raises(ConfigError, match="allowed: mine: name models instead; a policy may"):
            known(CAREFUL, allowed=("mine",))

    def test_matching_needs_a_worker_that_can_be_called(self) -> None:
        known(FITTING).resolve("mine", budgeted=True)
        none = refusal(known(FITTING, workers=()), "mine")
        assert none.type == "unknown_model"
        assert "there is no worker" in none.message
        unpriced = known(FITTING, workers=(UNPRICED_WORKER,))
        unpriced.resolve("mine", budgeted=False)
        assert refusal(unpriced, "mine", budgeted=True).type == "unknown_price"

    def test_no_seat_of_a_plan_takes_a_policy(self) -> None:
        plans = {"team": Plan("debate", (Agent(None, "flash"), Agent(None, "mine")))}
        error = refusal(known(CAREFUL, plans=plans), "team")
        assert "its model 'mine' is none: a seat takes a model or a worker" in error.message

    def test_a_provider_goes_with_no_policy(self) -> None:
        error = refusal(known(CAREFUL), "mine --provider openrouter")
        assert "'mine' is a policy" in error.message

    def test_a_name_that_a_model_has_is_refused(self) -> None:
        settings = Settings(policies={"llama": FITTING}, aliases=FLASH)
        with pytest.raises(ConfigError, match="policy llama: this is the name of openrouter/llama"):
            offers_of(providers(), settings, CATALOG)


class TestOffers:
    def test_say_in_words_what_a_policy_does(self) -> None:
        rule = Rule(3, 0.6)
        for policy, words in (
            (
                Deliberate(cheap="flash", strong="llama", rule=rule),
                "Asks flash up to 3 times; where fewer than 2 of the answers agree, llama does "
                "the task.",
            ),
            (
                Deliberate(
                    cheap="flash", strong="llama", rule=Rule(3, 0.6, at="step"),
                    missing=MissingRule(),
                ),
                "Asks flash up to 3 times; where fewer than 2 of the answers agree, llama does "
                "the step at which they part. Asks back where the task lacks information.",
            ),
            (
                Iterate(model="flash", subtask="llama", rounds=2),
                "flash writes up to 2 drafts; what a draft says it lacks is asked of the worker "
                "whose description fits, else of llama.",
            ),
            (
                Match(otherwise="flash"),
                "Takes the task apart, and gives each step to the worker whose description fits "
                "it, else to flash, also after a worker that failed.",
            ),
            (
                Match(otherwise="flash", fall_back=False),
                "Takes the task apart, and gives each step to the worker whose description fits "
                "it, else to flash.",
            ),
        ):  # fmt: skip
            settings = Settings(aliases={**FLASH, "short": "mine"}, policies={"mine": policy})
            found = offer(settings, "mine", workers=(TRANSLATOR,))
            assert (found.kind, found.price, found.description) == ("policy", None, words)
            assert (found.aliases, found.credential, found.refused) == (("short",), None, None)

    def test_say_why_one_cannot_be_used_now(self) -> None:
        team = Plan("debate", (Agent(None, "openai/o3"), Agent(None, "llama")))
        for policy, why in (
            (
                Deliberate(cheap="openai/o3", strong="llama"),
                f"its cheap 'openai/o3': the environment variable {KEY}",
            ),
            (Deliberate(cheap="team", strong="llama"), "its cheap 'team': its model 'openai/o3'"),
            (CAREFUL, "its cheap 'flash': nothing has this name"),
            (Match(otherwise="llama"), "there is no worker"),
        ):
            settings = Settings(policies={"mine": policy}, plans={"team": team})
            assert why in (offer(settings, "mine").credential or "")
        refusing = Settings(aliases=FLASH, policies={"mine": CAREFUL}, refused=["llama"])  # type: ignore[arg-type]
        assert offer(refusing, "mine").refused == "its strong 'llama': the settings refuse it"

    def test_the_settings_own_description_counts_more(self) -> None:
        settings = Settings(
            aliases=FLASH, policies={"mine": CAREFUL}, descriptions={"mine": "For sums."}
        )
        assert offer(settings, "mine").description == "For sums."

    def test_are_listed_by_their_kind(self) -> None:
        settings = Settings(aliases=FLASH, policies={"mine": CAREFUL})
        page = listing(offers_of(providers(), settings, CATALOG), None, kind="policy")
        (one,) = page["models"]
        assert (one["id"], one["kind"], one["price"]) == ("mine", "policy", None)
        assert one["callable"]

    def test_models_that_no_file_lists_may_be_parts(self) -> None:
        settings = Settings(
            unlisted=True,
            policies={"mine": Deliberate(cheap="openrouter/new", strong="openrouter/newer")},
        )
        offers = offers_of(providers(), settings, CATALOG)
        assert {"openrouter/new", "openrouter/newer"} <= {one.id for one in offers}
