"""Candidates and plans as vectors: what makes two teams alike, and how a new one is described."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from masrouter.candidates import Candidates, KernelWeights, plan_feature_width, plan_features
from masrouter.catalog import Catalog
from masrouter.encoder import HashingEncoder
from masrouter.errors import CatalogError, PlanError
from masrouter.features import STATISTICS, text_statistics
from masrouter.query_features import QueryFeatures
from masrouter.types import Agent, Plan

ENCODER = HashingEncoder(32)
CODER, CRITIC, NOBODY = (
    Agent("coder", "gpt-4o-mini"),
    Agent("critic", "gpt-4o"),
    Agent(None, "gpt-4o"),
)
PLANS = (
    Plan("io", (CODER,)),
    Plan("io", (NOBODY,)),
    Plan("chain", (CODER, CRITIC)),
    Plan("debate", (CODER, CRITIC)),
    Plan("debate", (CODER, CODER, CRITIC)),
)
KERNEL = KernelWeights()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.default().with_names_from(PLANS)[0]


@pytest.fixture(scope="module")
def candidates(catalog: Catalog) -> Candidates:
    return Candidates.from_catalog(catalog, PLANS, ENCODER)


def features(candidates: Candidates, *plans: Plan, known: tuple[Plan, ...] = PLANS) -> torch.Tensor:
    index = candidates.index_plans(plans)
    return plan_features(index, candidates, KERNEL, candidates.index_plans(known))


def swapped(plan: Plan) -> Plan:
    return replace(plan, agents=plan.agents[::-1])


def test_the_order_of_agents_counts_only_where_the_topology_has_one(
    candidates: Candidates,
) -> None:
    for plan in PLANS[3:]:
        pair = features(candidates, plan, swapped(plan))
        torch.testing.assert_close(pair[0], pair[1])
    pair = features(candidates, PLANS[2], swapped(PLANS[2]))
    assert (pair[0] - pair[1]).abs().max() > 0.01
    assert candidates.ordered == (True, False, False)  # chain, debate, io


def test_every_permutation_of_a_debate_is_the_same_team(candidates: Candidates) -> None:
    team = Plan("debate", (CODER, NOBODY, CRITIC))
    orders = [Plan("debate", seats) for seats in permutations(team.agents)]
    assert len(set(orders)) == 6
    z = features(candidates, team, *orders, known=(team,))
    torch.testing.assert_close(z, z[:1].expand_as(z))
    assert (z[:, -1] > 0).all()  # the column of the known plan is theirs too


def test_a_team_with_a_seat_twice_is_not_the_team_with_it_once(candidates: Candidates) -> None:
    z = features(candidates, PLANS[3], PLANS[4])
    assert (z[0] - z[1]).abs().max() > 0.01


def test_an_unknown_plan_has_no_column_of_its_own(candidates: Candidates) -> None:
    new = Plan("chain", (NOBODY, CODER))
    known = features(candidates, *PLANS)
    fresh = features(candidates, new)
    assert known.shape[1] == fresh.shape[1] == plan_feature_width(candidates, len(PLANS))
    own = slice(-len(PLANS), None)
    torch.testing.assert_close(known[:, own], torch.eye(len(PLANS)) * KERNEL.own**0.5)
    assert not fresh[:, own].any()
    assert fresh[:, : -len(PLANS)].any()


def test_plans_are_the_more_alike_the_more_they_share(candidates: Candidates) -> None:
    base = Plan("debate", (CODER, CRITIC))
    likes = Plan("debate", (CODER, CODER, CRITIC)), Plan("io", (NOBODY,))
    z = features(candidates, base, *likes, known=())
    near, far = (float(z[0] @ z[i]) for i in (1, 2))
    assert near > far


def test_names_are_resolved_both_ways(candidates: Candidates) -> None:
    index = candidates.index_plans(PLANS)
    assert index.count.tolist() == [1, 1, 2, 2, 3]
    assert index.role[1, 0] == 0  # no role named
    assert (index.role[0] >= 0).tolist() == [True, False, False]
    for row, plan in enumerate(PLANS):
        n = int(index.count[row])
        roles, models = index.role[row, :n].tolist(), index.model[row, :n].tolist()
        assert candidates.plan(int(index.topology[row]), roles, models) == plan


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan("ring", (CODER,)), "topology 'ring' is unknown to this router; it knows 'chain'"),
        (Plan("io", (Agent("poet", "gpt-4o"),)), "role 'poet' is unknown"),
        (Plan("io", (Agent(None, "llama"),)), "model 'llama' is unknown.*'gpt-4o'"),
        (Plan("debate", (CODER,) * 4), "4 agents, at most 3 here"),
    ],
)
def test_what_is_not_in_the_tables_is_named(
    candidates: Candidates, plan: Plan, message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        candidates.index_plans([plan])


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (Plan("ring", (CODER,)), "ring"),
        (Plan("io", (Agent("poet", "gpt-4o"),)), "poet"),
        (Plan("io", (Agent(None, "llama"),)), "llama"),
    ],
)
def test_a_name_without_a_catalog_entry_is_an_error_of_the_catalog(
    catalog: Catalog, candidates: Candidates, plan: Plan, name: str
) -> None:
    with pytest.raises(CatalogError, match=name):
        Candidates.from_catalog(catalog, [*PLANS, plan], ENCODER)
    with pytest.raises(CatalogError, match=name):
        candidates.extended(catalog, [plan], ENCODER)


def test_new_names_leave_what_was_learned_as_it_was(
    catalog: Catalog, candidates: Candidates
) -> None:
    new = Plan("panel", (Agent("mathematician", "gpt-4"), CODER))
    wider, _ = catalog.with_names_from([new])
    extended = candidates.extended(wider, [new], ENCODER)
    for stage, name in (("topologies", "panel"), ("roles", "mathematician"), ("models", "gpt-4")):
        before, after = getattr(candidates, stage), getattr(extended, stage)
        assert after.names == (*before.names, name)
        assert after.trained == before.trained == len(before.names)
        assert torch.equal(after.vectors[:-1], before.vectors)
        assert torch.isfinite(after.vectors).all()
    assert extended.ordered == (*candidates.ordered, True)
    assert torch.equal(features(extended, *PLANS), features(candidates, *PLANS))
    z = features(extended, new)
    assert torch.isfinite(z).all()
    assert z.shape[1] == plan_feature_width(candidates, len(PLANS))


def test_extending_by_known_names_changes_nothing(catalog: Catalog, candidates: Candidates) -> None:
    assert candidates.extended(catalog, [Plan("chain", (NOBODY, CODER))], ENCODER) is candidates


def test_a_team_larger_than_any_that_was_learned_is_refused(
    catalog: Catalog, candidates: Candidates
) -> None:
    with pytest.raises(PlanError, match="4 agents; this router knows at most 3"):
        candidates.extended(catalog, [Plan("debate", (CODER,) * 4)], ENCODER)


def test_a_candidate_described_alike_lies_near(catalog: Catalog, candidates: Candidates) -> None:
    """A copy of a known model, under another name, has its vector."""
    entry = catalog.resolve_model("gpt-4o")
    twin = replace(entry, name="gpt-4o ", aliases=())
    wider = replace(catalog, models={**catalog.models, "gpt-4o ": twin})
    extended = candidates.extended(wider, [Plan("io", (Agent(None, "gpt-4o "),))], ENCODER)
    at = extended.models.index("gpt-4o", "model")
    torch.testing.assert_close(extended.models.vectors[-1], extended.models.vectors[at])


def test_state_is_read_back_unchanged(candidates: Candidates) -> None:
    config, tensors = candidates.state()
    again = Candidates.from_state(config, tensors)
    for stage in ("topologies", "roles", "models"):
        one, other = getattr(candidates, stage), getattr(again, stage)
        assert (one.names, one.trained) == (other.names, other.trained)
        for part in ("vectors", "mean", "basis"):
            assert torch.equal(getattr(one, part), getattr(other, part))
    assert (again.max_agents, again.ordered) == (candidates.max_agents, candidates.ordered)


# --- features of the query --------------------------------------------------------------------


def test_text_statistics_count_what_they_say() -> None:
    text = "Is 3+4 = 7?\ndef f(): return É"
    row = dict(zip(STATISTICS, text_statistics([text])[0].tolist(), strict=True))
    assert row["log_characters"] == pytest.approx(np.log1p(len(text)))
    assert row["log_words"] == pytest.approx(np.log1p(8))
    assert row["log_lines"] == pytest.approx(np.log1p(1))
    assert row["digit_share"] == pytest.approx(3 / len(text))
    assert row["operator_share"] == pytest.approx(2 / len(text))
    assert row["non_ascii_share"] == pytest.approx(1 / len(text))
    assert row["capital_share"] == pytest.approx(2 / len(text))
    assert (row["has_code"], row["has_question"]) == (1.0, 1.0)


@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "\ud800", "a" * 100_000, "٣٤", "\x00"])
def test_statistics_of_any_text_are_finite(text: str) -> None:
    assert np.isfinite(text_statistics([text])).all()


def test_domain_probabilities_sum_to_one_and_phi_has_their_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    module = QueryFeatures(8, ["code", "math", "other"])
    module.domain_weight.copy_(torch.randn(module.domain_weight.shape, generator=generator))
    module.statistics_mean.fill_(1.0)
    embeddings = torch.randn(5, 8, generator=generator)
    statistics = torch.from_numpy(text_statistics(["a b", "x" * 900, "", "2+2?", "def f(): 1"]))
    p = module.domain_probabilities(embeddings, statistics)
    torch.testing.assert_close(p.sum(1), torch.ones(5))
    phi = module(embeddings, statistics)
    assert phi.shape == (5, module.width)
    assert (phi[:, 0] == 1).all()
    torch.testing.assert_close(phi[:, 1 + len(STATISTICS) :][:, :3], p)
    given = torch.eye(3)[[0, 1, 2, 0, 1]]
    torch.testing.assert_close(
        module(embeddings, statistics, given)[:, 1 + len(STATISTICS) :][:, :3], given
    )


def test_extreme_statistics_are_clipped() -> None:
    module = QueryFeatures(4, [])
    module.statistics_std.fill_(1e-3)
    statistics = torch.from_numpy(text_statistics(["x" * 1_000_000]))
    assert module.standardise(statistics).abs().max() == 5
    assert module(torch.zeros(1, 4), statistics).abs().max() <= 5
