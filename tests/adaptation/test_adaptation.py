"""New candidates after training: usable at once, better with probes, and nothing else touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.adaptation.probe_samples import NEW, QUERY, SOLO, Score, always, only_fixed, probes, raw

from masrouter.catalog import ModelEntry, RoleEntry, TopologyEntry
from masrouter.errors import (
    CatalogError,
    LogError,
    PlanError,
    RoutingError,
)
from masrouter.logs import Logs
from masrouter.router import Router
from masrouter.types import Agent, Plan
from masrouter_train.config import TrainConfig
from masrouter_train.fit import fit
from masrouter_train.synthetic import SyntheticWorld


def test_a_model_is_routed_to_by_its_profile_alone(router: Router, twin: ModelEntry) -> None:
    wider = router.add_model(twin)
    new = [plan for plan in wider.plans if NEW in plan.models]
    old = [plan for plan in router.plans if len(plan.agents) == 1]
    assert {(p.topology, p.agents[0].role) for p in new} == {
        (p.topology, p.agents[0].role) for p in old
    }
    decision = wider.route(QUERY, models=[NEW], cost_weight=10.0)
    assert decision.plan in new
    assert decision.expected_cost_usd is not None  # expected tokens at the profile's price
    assert decision.evidence.runs_of_plan == 0
    assert any("added after training" in reason for reason in decision.reasons)
    drawn = wider.route(QUERY, models=[NEW], sample=True, seed=0)
    assert NEW in drawn.plan.models
    assert 0 < drawn.propensity <= 1
    with pytest.raises(RoutingError, match=NEW):
        router.route(QUERY, models=[NEW])  # the first router is as it was


def test_nothing_else_changes_to_the_last_bit(
    router: Router, twin: ModelEntry, texts: list[str], many: list[str]
) -> None:
    wider = router.add_model(twin, probes(many[:40], SOLO, always(1.0)))
    wider = wider.add_role(RoleEntry("juror", "Weighs what others said and decides."))
    for weight in (node.cost_weight for node in router.state.gate.nodes):
        before, after = raw(router, texts, weight), raw(wider, texts, weight)
        for plan in router.plans:
            assert np.array_equal(before[plan], after[plan])
    learned = len(router.plans)
    for name in ("mean_score", "mean_cost", "mean_utility", "runs"):
        old, new = getattr(router.state.gate, name), getattr(wider.state.gate, name)
        assert np.array_equal(new[..., :learned], old)
    for text in texts:
        old = wider.route(text, topologies=["chain", "debate"], exclude_models=[NEW])
        assert old.plan == router.route(text, topologies=["chain", "debate"]).plan


def test_probes_move_the_prediction_and_narrow_its_interval(
    router: Router, twin: ModelEntry, texts: list[str], many: list[str]
) -> None:
    """Bad runs of a model that its description makes good."""
    curve = [
        raw(router.add_model(twin, probes(many[:n], SOLO, always(0.0)), plans=[SOLO]), texts)[SOLO]
        for n in (0, 8, 32, 128)
    ]
    scores = [float(part[0].mean()) for part in curve]
    errors = [float(part[1].mean()) for part in curve]
    assert scores[0] - 0.1 > scores[1] > scores[2]
    assert scores[0] > 0.4
    assert abs(scores[3]) < 0.1
    assert errors[-1] < 0.7 * errors[0]
    learned = [float(part[1].mean()) for p, part in raw(router, texts).items()]
    assert errors[0] > max(learned)  # wide as long as nothing was run


def test_probes_teach_what_a_plan_costs(
    router: Router, twin: ModelEntry, texts: list[str], many: list[str]
) -> None:
    dear = 0.03
    described = raw(router.add_model(twin, plans=[SOLO]), texts)[SOLO]
    probed = raw(
        router.add_model(twin, probes(many[:60], SOLO, always(1.0), dear), plans=[SOLO]), texts
    )[SOLO]
    miss = np.abs(np.log(described[2]) - np.log(dear)).mean()
    assert np.abs(np.log(probed[2]) - np.log(dear)).mean() < 0.5 * miss
    assert float(probed[3].mean()) < float(described[3].mean())


def test_a_better_model_becomes_the_fixed_plan_and_a_lucky_one_does_not(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    """Where the gate reads no query. The best logged plan is right on some 7 of 10 queries."""
    fixed = only_fixed(router)
    best = float(fixed.state.gate.mean_score.max())
    assert best < 0.9

    def chosen(count: int, score: Score) -> Plan:
        wider = fixed.add_model(twin, probes(many[:count], SOLO, score), plans=[SOLO])
        return wider.route(QUERY, cost_weight=0.0).plan

    before = fixed.route(QUERY, cost_weight=0.0).plan
    assert chosen(0, always(1.0)) == before
    assert chosen(3, always(1.0)) == before
    assert chosen(128, always(1.0)) == SOLO
    assert chosen(128, lambda i: float(i % 10 < 10 * best - 1)) == before


def test_a_description_alone_does_not_make_the_fixed_plan(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    """One right and one wrong run prove nothing where more than half must be right."""
    fixed = only_fixed(router)
    wider = fixed.add_model(twin, probes(many[:2], SOLO, lambda i: float(i)), plans=[SOLO])
    gate = wider.state.gate
    held = 0
    for node, utility in zip(gate.nodes, gate.mean_utility, strict=True):
        best = float(utility[:-1].max())
        needed = best + node.cost_weight * float(gate.mean_cost[-1])
        if needed > 0.55:
            held += 1
            assert float(utility[-1]) < best
            assert wider.route(QUERY, cost_weight=node.cost_weight).plan != SOLO
        near = gate.fixed_utility(node.cost_weight * 1.001)  # between nodes as at them
        np.testing.assert_allclose(near, utility, rtol=1e-2, atol=1e-2)
    assert held


def test_where_nothing_was_run_the_best_described_plan_is_taken(
    router: Router, twin: ModelEntry, texts: list[str]
) -> None:
    wider = only_fixed(router.add_model(twin))
    expected = raw(wider, texts)
    for i, decision in enumerate(wider.route_batch(texts, models=[NEW], cost_weight=0.0)):
        new = [plan for plan in wider.plans if plan.models == (NEW,)]
        assert decision.plan == max(new, key=lambda plan: float(expected[plan][0, i]))


def test_probes_of_hard_queries_are_held_against_what_was_expected_of_them(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    """The same scores say more for a model that had the harder queries."""
    ease = np.stack([part[0] for part in raw(router, many).values()]).mean(0)
    order = ease.argsort().tolist()
    hard, easy = ([many[i] for i in rows] for rows in (order[:60], order[-60:]))
    half = lambda i: float(i % 2)  # noqa: E731
    value = [
        float(
            only_fixed(router)
            .add_model(twin, probes(some, SOLO, half), plans=[SOLO])
            .state.gate.mean_score[-1]
        )
        for some in (hard, easy)
    ]
    assert value[0] > value[1]


def test_what_one_plan_of_a_model_shows_moves_its_others(
    router: Router, twin: ModelEntry, texts: list[str], many: list[str]
) -> None:
    other = Plan("cot", (Agent("assistant", NEW),))
    assert "cot" in router.state.candidates.topologies.names
    plans = [SOLO, other]
    before = raw(router.add_model(twin, plans=plans), texts)
    after = raw(router.add_model(twin, probes(many[:80], SOLO, always(0.0)), plans=plans), texts)
    moved = {plan: float((before[plan] - after[plan])[0].mean()) for plan in plans}
    assert moved[SOLO] > moved[other] > 0
    unprobed = router.add_model(twin, probes(many[:80], SOLO, always(0.0)), plans=plans)
    assert not np.isfinite(unprobed.state.gate.mean_score[-1])  # never the fixed plan


def test_probes_count_as_evidence(router: Router, twin: ModelEntry, many: list[str]) -> None:
    wider = router.add_model(twin, [*probes(many[:30], SOLO, always(1.0))], plans=[SOLO])
    decision = wider.route(many[0], models=[NEW])
    assert decision.evidence.runs_of_plan == 30
    assert decision.evidence.similar_runs_of_plan >= 1
    assert decision.evidence.nearest == pytest.approx(1.0, abs=1e-2)
    store = router.state.evidence
    assert len(wider.state.evidence.embeddings) == len(store.embeddings) + 30


def test_a_probe_on_a_logged_query_is_not_a_second_query(
    router: Router, twin: ModelEntry, grid_logs: Logs
) -> None:
    logged = next(iter(grid_logs)).query
    wider = router.add_model(twin, probes([logged], SOLO, always(1.0)), plans=[SOLO])
    assert len(wider.state.evidence.embeddings) == len(router.state.evidence.embeddings)
    assert wider.route(logged, models=[NEW]).evidence.similar_runs_of_plan == 1


def test_logs_and_repeated_runs_are_probes_too(
    router: Router, twin: ModelEntry, texts: list[str], many: list[str]
) -> None:
    once = probes(many[:20], SOLO, always(1.0))
    again = [replace(record, run_id=f"again-{record.run_id}", score=0.0) for record in once]
    wider = router.add_model(twin, Logs.from_records([*once, *again]), plans=[SOLO])
    assert wider.route(QUERY, models=[NEW]).evidence.runs_of_plan == 40
    halves = router.add_model(twin, probes(many[:20], SOLO, always(0.5)), plans=[SOLO])
    assert np.array_equal(raw(wider, texts)[SOLO], raw(halves, texts)[SOLO])


def test_one_after_the_other(
    router: Router, twin: ModelEntry, texts: list[str], many: list[str]
) -> None:
    second = replace(twin, name="second-new", description="Another model.")
    team = Plan("debate", (Agent("assistant", NEW), Agent("assistant", "second-new")))
    jury = TopologyEntry("jury", "Agents vote, and a foreman counts.", 1, 3, ordered=False)
    a = router.add_model(twin, probes(many[:30], SOLO, always(0.0)), plans=[SOLO])
    b = a.add_model(second, plans=[team])
    c = b.add_topology(jury)
    assert {plan.topology for plan in c.plans} - {plan.topology for plan in b.plans} == {"jury"}
    assert any(plan.topology == "jury" and plan.models == (NEW,) for plan in c.plans)
    for smaller in (router, a, b):
        before, after = raw(smaller, texts), raw(c, texts)
        assert all(np.array_equal(before[plan], after[plan]) for plan in smaller.plans)
    # What the probes said of the first model is known of a team that it joins later.
    described = router.add_model(twin, plans=[SOLO]).add_model(second, plans=[team])
    assert raw(b, texts)[team][0].mean() < raw(described, texts)[team][0].mean()
    assert c.route(QUERY, topologies=["jury"], sample=True, seed=1).plan.topology == "jury"


def test_a_role_takes_the_seats_of_lone_agents(router: Router) -> None:
    wider = router.add_role(RoleEntry("juror", "Weighs what others said and decides."))
    new = wider.plans[len(router.plans) :]
    assert {plan.agents[0].role for plan in new} == {"juror"}
    assert len(new) == len(
        {(p.topology, p.agents[0].model) for p in router.plans if len(p.agents) == 1}
    )
    assert wider.route(QUERY).plan


def test_a_topology_takes_the_teams_that_fit_it(router: Router) -> None:
    pair = TopologyEntry("pair", "Two agents take turns.", 2, 2, ordered=True)
    wider = router.add_topology(pair)
    new = wider.plans[len(router.plans) :]
    assert new
    assert all(plan.topology == "pair" and len(plan.agents) == 2 for plan in new)
    with pytest.raises(PlanError, match="no plan of this router can be copied"):
        router.add_topology(replace(pair, min_agents=9, max_agents=9))


def test_profiles_are_checked(router: Router, twin: ModelEntry) -> None:
    with pytest.raises(RoutingError, match="'synthetic-large' is known to this router already"):
        router.add_model(replace(twin, name="synthetic-large"))
    with pytest.raises(RoutingError, match=r"expected a masrouter\.catalog\.ModelEntry"):
        router.add_model(RoleEntry("juror", "Decides."))  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match="description: expected a non-empty text"):
        router.add_model(replace(twin, description=""))
    with pytest.raises(CatalogError, match="input_usd_per_mtok"):
        router.add_model(replace(twin, input_usd_per_mtok=-1.0))
    with pytest.raises(CatalogError, match="synthetic-large"):
        router.add_model(replace(twin, aliases=("synthetic-large",)))


def test_plans_are_checked(router: Router, twin: ModelEntry) -> None:
    known = Agent("assistant", "synthetic-large")
    for plan, why in (
        (Plan("io", (known,)), "does not use model 'brand-new'"),
        (Plan("io", (Agent("juggler", NEW),)), "role 'juggler' is unknown to this router"),
        (Plan("jury", (Agent("assistant", NEW),)), "topology 'jury' is unknown to this router"),
        (Plan("debate", (Agent("assistant", NEW), Agent("assistant", "x"))), "model 'x' is unkn"),
        (Plan("io", (Agent("assistant", NEW),) * 3), "topology 'io' takes 1 to 1 agents"),
    ):
        with pytest.raises(PlanError, match=why):
            router.add_model(twin, plans=[plan])
    with pytest.raises(PlanError, match="name plans"):
        router.add_model(twin, plans=[])


def test_probes_are_checked(router: Router, twin: ModelEntry, many: list[str]) -> None:
    fine = probes(many[:2], SOLO, always(1.0))
    other = Plan("io", (Agent("assistant", "synthetic-large"),))
    cot = Plan("cot", (Agent("assistant", NEW),))
    for bad, why in (
        (replace(fine[1], plan=other), "row 2: agents: .* does not use model 'brand-new'"),
        (replace(fine[1], score=None), "row 2: score: .* null; grade the run"),
        (replace(fine[1], score=1.5), "row 2: score"),
        (replace(fine[1], plan=cot), "row 2: agents: .* not among the plans to add"),
        (
            replace(fine[1], plan=Plan("io", (Agent("juggler", NEW),))),
            "row 2: agents: role 'juggler' is unknown",
        ),
    ):
        with pytest.raises(LogError, match=why):
            router.add_model(twin, [fine[0], bad], plans=[SOLO])
    too_many = probes([f"{text} {i}" for i in range(3) for text in many], SOLO, always(1.0))
    with pytest.raises(LogError, match="600 outcomes, at most 512"):
        router.add_model(twin, too_many, plans=[SOLO])


def test_a_probed_plan_is_added_without_being_named(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    team = Plan("debate", (Agent("assistant", NEW), Agent("assistant", "synthetic-large")))
    wider = router.add_model(twin, probes(many[:4], team, always(1.0)))
    assert team in wider.plans
    assert SOLO in wider.plans


def test_on_observational_logs_a_probed_plan_needs_support(
    world: SyntheticWorld, config: TrainConfig, router: Router, twin: ModelEntry, many: list[str]
) -> None:
    off = replace(config, controller=replace(config.controller, enabled=False))
    observed = fit(
        world.observational_logs(300, 2), off, catalog=world.catalog(), encoder=router.encoder
    )
    known = next(plan for plan in observed.plans if len(plan.agents) == 1)
    plan = replace(known, agents=(replace(known.agents[0], model=NEW),))

    def chosen(count: int) -> set[Plan]:
        wider = observed.add_model(twin, probes(many[:count], plan, always(1.0)), plans=[plan])
        return {d.plan for d in wider.route_batch(many[-20:], cost_weight=0.0)}

    assert plan not in chosen(0)
    assert plan not in chosen(2)
