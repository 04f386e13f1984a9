"""What probes say, against the textbook: a Gaussian process written out, cell by cell.

And what they must not say: the same text twice, today's prices twice, thresholds of older plans.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from masrouter.additions import SAME_QUERY, PlanColumns, Posterior
from masrouter.catalog import Catalog, ModelEntry
from masrouter.checkpoint import read_checkpoint, write_checkpoint
from masrouter.errors import CheckpointError, LogError, PlanError
from masrouter.gate import Gate, GateNode
from masrouter.router import Router
from masrouter.types import Agent, LogRecord, Plan, Usage
from masrouter_train.synthetic import SyntheticWorld

NEW = "brand-new"
SOLO = Plan("io", (Agent("assistant", NEW),))
TEAM = Plan("debate", (Agent("assistant", NEW), Agent("assistant", "synthetic-large")))


@pytest.fixture(scope="module")
def twin(world: SyntheticWorld) -> ModelEntry:
    """Described and priced as a model that the router knows."""
    return replace(world.catalog().models["synthetic-large"], name=NEW, aliases=())


@pytest.fixture(scope="module")
def many(world: SyntheticWorld) -> list[str]:
    return list(world.sample_queries(80, 11).texts)


def probes(texts: Sequence[str], plan: Plan, score: float, cost: float) -> list[LogRecord]:
    """A run of the plan on each text, each under a query id of its own."""
    return [
        LogRecord(
            f"probe-{i}", f"probe-query-{i}", text, "probes", plan, score, "tests",
            Usage(100, 200, cost),
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


def predicted(router: Router, plan: Plan, texts: Sequence[str]) -> np.ndarray:
    """Score, its error and cost of a plan: (3, B)."""
    expected = router.expect(*router.read(texts), 0.0)
    parts = np.stack([expected.score, expected.score_error, expected.cost])
    return parts[:, :, router.plans.index(plan)]


@pytest.mark.parametrize("seed", range(3))
def test_the_posterior_is_that_of_a_gaussian_process(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    n, b, f, members, plans = 7, 4, 5, 3, 6
    phi, at, mean_phi, noise = normal(n, f), normal(b, f), normal(f), 0.2
    phi[:, 0] = at[:, 0] = 1.0
    columns = PlanColumns(normal(plans, 2), normal(plans, 3))
    plan = torch.randint(plans, (n,), generator=random)
    query = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    residual = 3 * normal(members, n)
    posterior = Posterior.learn(
        normal(2, f).abs(), noise, mean_phi, phi, columns.at(plan), query, residual
    )

    def kernel(x: torch.Tensor, p: torch.Tensor, y: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """Covariance of cells (x, p) and (y, q), entry by entry of V."""
        total = torch.zeros(len(x), len(y), dtype=torch.float64)
        psi_x, psi_y = (torch.cat([z[:, :1], z[:, 1:] - mean_phi[1:]], 1) for z in (x, y))
        for scale, part in zip(posterior.scales, columns.parts, strict=True):
            queries = torch.einsum("if,jf,f->ij", psi_x, psi_y, scale.square())
            total += (queries * torch.einsum("ik,jk->ij", part[p], part[q])).double()
        return total

    same = (query[:, None] == query).double()
    own = torch.eye(n, dtype=torch.float64)
    seen = kernel(phi, plan, phi, plan)
    seen += noise * (SAME_QUERY * same + (1 - SAME_QUERY) * own)
    grid, every = at.repeat_interleave(plans, 0), torch.arange(plans).repeat(b)
    cross = kernel(grid, every, phi, plan)
    mean = cross @ torch.linalg.solve(seen, residual.double().T)  # (b * plans, members)
    before = kernel(grid, every, grid, every).diagonal()
    variance = before - (cross * torch.linalg.solve(seen, cross.T).T).sum(1)
    torch.testing.assert_close(
        torch.matmul(at, posterior.fold(columns)).reshape(members, -1).T,
        mean.float(), rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    torch.testing.assert_close(
        posterior.variance(at, columns).flatten(), variance.float(), rtol=1e-3, atol=1e-3
    )
    assert bool((posterior.variance(at, columns) <= posterior.prior(at, columns)).all())


def test_one_text_under_many_ids_is_one_query(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    alike = probes(many[:1] * 40, SOLO, 0.0, 1e-4)
    renamed = router.add_model(twin, alike, plans=[SOLO])
    repeated = [replace(record, query_id="the-same") for record in alike]
    expected = predicted(router.add_model(twin, repeated, plans=[SOLO]), SOLO, many)
    assert np.array_equal(predicted(renamed, SOLO, many), expected)
    stored = len(renamed.state.evidence.embeddings) - len(router.state.evidence.embeddings)
    assert stored == 1


def test_costs_of_probes_are_todays(router: Router, twin: ModelEntry, many: list[str]) -> None:
    """A team with an older model whose price has risen since: the rise is in its runs already."""
    old = router.catalog.models["synthetic-large"]
    dear = replace(
        old,
        input_usd_per_mtok=20 * (old.input_usd_per_mtok or 0),
        output_usd_per_mtok=20 * (old.output_usd_per_mtok or 0),
    )
    today = Router(
        router.state.with_catalog(router.catalog.extended_with(Catalog({dear.name: dear}, {}, {}))),
        router.encoder,
    )
    wider = today.add_model(twin, probes(many, TEAM, 1.0, 0.02), plans=[TEAM])
    cost = predicted(wider, TEAM, many)[2]
    assert np.abs(np.log(cost / 0.02)).mean() < 0.5


def test_probes_do_not_move_the_support_of_logged_plans() -> None:
    known = np.full(3, 0.5, dtype=np.float32)
    gate = Gate(
        (GateNode(0.0, 0, 0.0, 0.0),), known, known, known[None], np.array([200.0, 50, 3]),
        default=0,
    )  # fmt: skip
    wider = gate.extended(np.array([120.0, 1.0]))
    assert gate.supported().tolist() == [True, True, True]
    assert wider.supported().tolist() == [True, True, True, True, False]


def test_what_is_held_against_a_plan_is_held_where_cost_is_no_object() -> None:
    """Also by a gate that took no verdict there."""
    known = np.array([0.5])
    gate = Gate((GateNode(10.0, 0, 0.0, 0.0),), known, 0.01 * known, known[None], np.array([9.0]))
    wider = gate.extended(np.array([2.0])).with_means(
        1, np.array([0.9]), np.array([0.01]), np.array([[0.6]])
    )
    assert wider.fixed_utility(0.0)[1] == pytest.approx(0.3)
    assert wider.mean_score[1] == pytest.approx(0.9)


def test_what_is_no_list_of_probes_or_plans_is_refused(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    fine = probes(many[:1], SOLO, 1.0, 1e-4)
    for wrong in ("my_logs", None, [*fine, {"score": 1.0}]):
        with pytest.raises(LogError, match=r"probes: .*masrouter\.read_logs"):
            router.add_model(twin, wrong)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="expected a list of plans"):
        router.add_model(twin, plans=SOLO)  # type: ignore[arg-type]


def test_a_title_that_names_nothing_new_is_refused(
    router: Router, twin: ModelEntry, tmp_path: Path
) -> None:
    router.add_model(twin).save_pretrained(tmp_path / "fine")
    genuine = read_checkpoint(tmp_path / "fine").data
    for title in ("x\n# Certified", f"role {NEW}", "model synthetic-large"):
        config = copy.deepcopy(dict(genuine.config))
        config["additions"][0]["title"] = title
        shutil.rmtree(tmp_path / "forged", ignore_errors=True)
        write_checkpoint(tmp_path / "forged", replace(genuine, config=config))
        with pytest.raises(CheckpointError, match="title"):
            Router.from_pretrained(tmp_path / "forged")


def test_a_plan_that_was_never_run_is_not_called_the_best_fixed_one(
    router: Router, twin: ModelEntry, many: list[str]
) -> None:
    wider = router.add_model(twin)
    for options in ({"cost_weight": 0.0}, {"cost_weight": 10.0}, {"sample": True, "seed": 1}):
        said = " ".join(wider.route(many[0], models=[NEW], **options).reasons)  # type: ignore[arg-type]
        assert "no plan within the constraints was ever run" in said
        assert "is the best fixed plan" not in said
        assert "the best fixed plan, " not in said
    probed = router.add_model(twin, probes(many[:8], SOLO, 1.0, 1e-4), plans=[SOLO])
    assert "it is the best fixed plan within the constraints" in (
        probed.route(many[0], models=[NEW]).reasons
    )
