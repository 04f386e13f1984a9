"""The routing function: a query in, a team out. Pure: no network, no randomness unless asked.

    text ── encoder ──► embedding ── critic ──► expected score and cost of every plan
                                        │
      constraints, cost weight ─────────┴─► gate ──► plan, with evidence, alternatives and reasons

The cascade proposes when sampling is asked for and says how probable each stage of a choice was.
The networks are run by a scorer (`scorer`): by torch, or exported by ONNX Runtime or OpenVINO, and
then nothing here imports torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from masrouter.catalog import Catalog, ModelEntry, RoleEntry, TopologyEntry
from masrouter.checkpoint import (
    CheckpointPlace,
    LoadedCheckpoint,
    read_checkpoint,
    write_checkpoint,
)
from masrouter.deciding import Decider, Request
from masrouter.encoder import Encoder
from masrouter.encoder.memo import MemoEncoder
from masrouter.errors import CheckpointError, RoutingError
from masrouter.explanation import Explanation
from masrouter.features import text_statistics
from masrouter.gate import Floats32
from masrouter.loading import (
    BACKENDS,
    Backend,
    RouterParts,
    check_exportable,
    exported_parts,
    torch_parts,
)
from masrouter.router_checks import refusing
from masrouter.router_files import state_to_checkpoint
from masrouter.router_state import RouterState
from masrouter.scorer import Scorer
from masrouter.selection import (
    LARGEST,
    Constraints,
    Expected,
    integer,
    number,
)
from masrouter.types import LogRecord, Plan, RoutingDecision

if TYPE_CHECKING:
    from masrouter.adaptation import Profile
    from masrouter.encoder.export_files import Precision
    from masrouter.exported import ExportBackend
    from masrouter.exporting import ExportReport
    from masrouter.probes import Kind


class Router:
    """Routes queries to teams. Thread-safe: nothing changes after construction but caches.

    Made by `masrouter_train.fit` or `Router.from_pretrained`.
    """

    def __init__(
        self,
        state: RouterState,
        encoder: Encoder,
        *,
        checkpoint: str = "",
        scorer: Scorer | None = None,
    ) -> None:
        """`scorer`: what runs the networks; without one, torch runs those of the state."""
        if scorer is None:
            from masrouter.scorer_torch import TorchScorer

            scorer = TorchScorer(state)
        self.state = state
        self.encoder = encoder
        self.checkpoint = checkpoint
        self._place: CheckpointPlace | None = None
        self._models = {model for plan in state.plans for model in plan.models}
        self._topologies = {plan.topology for plan in state.plans}
        self._scorer = scorer
        self._decider = Decider(state, scorer, checkpoint)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans that this router chooses from."""
        return self.state.plans

    @property
    def catalog(self) -> Catalog:
        """Today's descriptions and prices."""
        return self.state.catalog

    @property
    def backend(self) -> str:
        """What runs the networks: torch, onnx or openvino."""
        return self._scorer.backend

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        backend: Backend = "torch",
        encoder: Encoder | None = None,
        catalog: Catalog | None = None,
        memo: int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Router:
        """Load a checkpoint folder, or a model id of the Hugging Face hub.

        Args:
            backend: what runs encoder and networks. `onnx` and `openvino` are faster on a CPU and
                need no torch where the checkpoint has been exported (`masrouter optimize`); where
                it has not and torch is there, it is exported now. Such a router routes; to save,
                extend or train it, load it with torch.
            encoder: in place of the one that the checkpoint names; its identity must be the same.
            catalog: today's prices, in place of those of the day of training.
            memo: keep the embeddings of so many queries in memory, for those that come again.

        Raises CheckpointError for anything wrong with the checkpoint or its export.
        """
        if backend not in BACKENDS:
            raise CheckpointError(f"backend: expected {' or '.join(BACKENDS)}, got {backend!r}")
        loaded = read_checkpoint(source, revision=revision, local_files_only=local_files_only)
        if backend == "torch":
            parts = torch_parts(loaded, encoder)
        else:
            found = exported_parts(loaded, backend, encoder)
            if found is None:
                check_exportable(loaded, backend)
                with_torch = cls._of(loaded, torch_parts(loaded, encoder), None)
                with_torch.export(backend=backend)
                found = exported_parts(loaded, backend, encoder)
            assert found is not None
            parts = found
        router = cls._of(loaded, parts, catalog)
        return (
            router if memo is None else router.with_encoder(MemoEncoder(parts.encoder, most=memo))
        )

    @classmethod
    def _of(cls, loaded: LoadedCheckpoint, parts: RouterParts, catalog: Catalog | None) -> Router:
        """CheckpointError where what the weights say is not finite."""
        where, state = str(loaded.path), parts.state
        if catalog is not None:
            state = state.with_catalog(catalog)
        with refusing(where):
            router = cls(state, parts.encoder, checkpoint=loaded.id, scorer=parts.scorer)
            router._place = loaded.place
            router._decider.check(where, parts.encoder.dimension)
        return router

    def export(
        self,
        *,
        backend: ExportBackend = "onnx",
        precision: Precision | None = None,
        say: Callable[[str], None] | None = None,
    ) -> ExportReport:
        """Make what `from_pretrained` of that backend needs, and compare it with torch.

        It is put into the checkpoint's folder (`exported/onnx`), or in the user's cache where the
        folder cannot be written to or is the hub's; an older one is replaced.

        Args:
            precision: of the encoder, see `load_encoder`; None: the backend's default.
            say: is told what is being done.

        Raises:
            CheckpointError: this router was not loaded from a checkpoint, a package is missing, or
                what was exported does not decide as torch does.
        """
        from masrouter.exporting import export_router

        if self._place is None:
            raise CheckpointError(
                "only what is on disk can be exported: save_pretrained this router, load it with "
                "from_pretrained and export that"
            )
        return export_router(
            self, self._place, backend=backend, precision=precision, say=say or (lambda _: None)
        )

    def run_by(self, scorer: Scorer, encoder: Encoder) -> Router:
        """The same router with its networks run by `scorer`, and another encoder of its kind."""
        router = Router(self.state, encoder, checkpoint=self.checkpoint, scorer=scorer)
        router._place = self._place
        return router

    def with_encoder(self, encoder: Encoder) -> Router:
        """The same router with another encoder of its kind, such as one that remembers texts
        (`encoder.memo`) or embeds those of concurrent calls together (`encoder.batching`)."""
        if encoder.identity != self.encoder.identity:
            raise RoutingError(
                f"encoder: expected {self.encoder.identity!r}, got {encoder.identity!r}"
            )
        return self.run_by(self._scorer, encoder)

    def with_catalog(self, catalog: Catalog) -> Router:
        """The same router at other prices; names that `catalog` lacks keep those of training."""
        state = self.state.with_catalog(catalog)
        router = Router(state, self.encoder, checkpoint=self.checkpoint, scorer=self._scorer)
        router._place = self._place
        return router

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a checkpoint folder and return its id; an existing checkpoint is replaced."""
        return write_checkpoint(folder, state_to_checkpoint(self.state, self.encoder))

    def add_model(
        self,
        profile: ModelEntry,
        probes: Iterable[LogRecord] = (),
        *,
        plans: Sequence[Plan] | None = None,
    ) -> Router:
        """A router that knows one more model, from its description and prices and a few runs.

        Nothing else changes: predictions for all other plans stay the same to the last bit. Where
        the critic decides, the new plans compete at once. Where the gate takes the best fixed plan,
        they compete once they were probed, with the lower bound of what probes say; before that
        they are alternatives, and what `models=[...]` asks for.

        Args:
            profile: name, description, prices and context window.
            probes: runs of plans with the new model, scored; a few dozen help.
            plans: the new plans. Without, copies of this router's plans of one agent with the new
                model in its seat (of all its plans of one model, where no plan has one agent), and
                whatever the probes ran.

        Raises:
            RoutingError: the model is known already, or `profile` is none.
            CatalogError: the profile breaks a rule of the catalog.
            PlanError: a plan without the model, with another unknown name, or too large.
            LogError: a probe that is no run of the new plans, or has no score, or too many.
        """
        return self._with_candidate("model", profile, probes, plans)

    def add_role(
        self,
        profile: RoleEntry,
        probes: Iterable[LogRecord] = (),
        *,
        plans: Sequence[Plan] | None = None,
    ) -> Router:
        """`add_model` for a role. Without `plans` it takes the seat of every plan of one agent."""
        return self._with_candidate("role", profile, probes, plans)

    def add_topology(
        self,
        profile: TopologyEntry,
        probes: Iterable[LogRecord] = (),
        *,
        plans: Sequence[Plan] | None = None,
    ) -> Router:
        """`add_model` for a topology. Without `plans` it takes every team of one model whose size
        it allows, or every team of such a size where there is none of one model."""
        return self._with_candidate("topology", profile, probes, plans)

    def with_plans(self, plans: Sequence[Plan], catalog: Catalog | None = None) -> Router:
        """A router that may also choose these plans, judged by what they share with logged ones.

        New names need a description, and a price to be routed to at a cost weight, in `catalog`.
        Where the gate takes the best fixed plan, plans without logged runs are never chosen.
        """
        trained = self._trained()
        from masrouter.adaptation import with_plans

        state = with_plans(trained, plans, catalog or self.catalog, self.encoder)
        return Router(state, self.encoder, checkpoint=self.checkpoint)

    def route(
        self,
        query: str,
        *,
        cost_weight: float | None = None,
        willingness_to_pay: float | None = None,
        max_cost_usd: float | None = None,
        max_agents: int | None = None,
        models: Sequence[str] | None = None,
        exclude_models: Sequence[str] = (),
        topologies: Sequence[str] | None = None,
        k: int = 3,
        sample: bool = False,
        seed: int | None = None,
    ) -> RoutingDecision:
        """Choose the team for one query.

        Args:
            cost_weight: lambda, score units that a US dollar is worth. Without it and without a
                budget the checkpoint's default is taken; with a budget alone, 0.
            willingness_to_pay: the same as US dollars for a whole unit of score (1 / lambda).
            max_cost_usd: plans expected to cost more are not considered.
            max_agents, models, exclude_models, topologies: what the team may be made of.
            k: alternatives on the expected cost-score frontier to return, beside the choice.
            sample: draw from the cascade, so that the decision's log can train the next router.
            seed: of the draw; needed with `sample` for a repeatable one.

        Raises:
            RoutingError: an argument that cannot be meant, or an empty query.
            ConstraintError: no plan meets the constraints; says which to relax.
        """
        return self.route_batch(
            [query],
            cost_weight=cost_weight,
            willingness_to_pay=willingness_to_pay,
            max_cost_usd=max_cost_usd,
            max_agents=max_agents,
            models=models,
            exclude_models=exclude_models,
            topologies=topologies,
            k=k,
            sample=sample,
            seed=seed,
        )[0]

    async def aroute(self, query: str, **options: object) -> RoutingDecision:
        """`route` in a worker thread, so that an event loop is not held up. Same options."""
        return await asyncio.to_thread(self.route, query, **options)  # type: ignore[arg-type]

    def route_batch(
        self,
        queries: Sequence[str],
        *,
        cost_weight: float | None = None,
        willingness_to_pay: float | None = None,
        max_cost_usd: float | None = None,
        max_agents: int | None = None,
        models: Sequence[str] | None = None,
        exclude_models: Sequence[str] = (),
        topologies: Sequence[str] | None = None,
        k: int = 3,
        sample: bool = False,
        seed: int | None = None,
    ) -> list[RoutingDecision]:
        """`route` for many queries under the same options, encoded and scored together."""
        if isinstance(queries, str):
            raise RoutingError("route_batch: expected a list of queries, got one string; use route")
        for position, query in enumerate(queries):
            if not isinstance(query, str) or not query.strip():
                raise RoutingError(f"query {position}: expected text, got {query!r}")
        constraints = Constraints(
            max_cost_usd, max_agents, _names("models", models),
            _names("exclude_models", exclude_models) or (), _names("topologies", topologies),
        )  # fmt: skip
        constraints.check(self._models, self._topologies)
        if seed is not None:
            integer("seed", seed, at_least=0)
        request = Request(
            constraints,
            self._cost_weight(cost_weight, willingness_to_pay, max_cost_usd),
            integer("k", k, at_least=0),
            self._generator(seed) if sample else None,
        )
        rows = self._scorer.rows
        return [
            decision
            for start in range(0, len(queries), rows)
            for decision in self._decider.decide(*self.read(queries[start : start + rows]), request)
        ]

    def explain(self, query: str, **options: object) -> Explanation:
        """Why this team: parts of the prediction, every plan's figures, and the decision itself.

        Takes the options of `route`. Print it to read it.
        """
        decision = self.route(query, **options)  # type: ignore[arg-type]
        return self._decider.explain(decision, *self.read([query]))

    def read(self, queries: Sequence[str]) -> tuple[Floats32, Floats32]:
        """Embeddings (B, E) and raw text statistics (B, S) of queries."""
        return self.encoder.encode(list(queries)), text_statistics(queries)

    def expect(self, embeddings: Floats32, statistics: Floats32, cost_weight: float) -> Expected:
        """What is expected of every plan: (B, E), raw statistics (B, S) -> Expected of (B, C)."""
        return self._decider.expect(embeddings, statistics, cost_weight)

    def _with_candidate(
        self, kind: Kind, profile: Profile, probes: Iterable[LogRecord],
        plans: Sequence[Plan] | None,
    ) -> Router:  # fmt: skip
        trained = self._trained()
        from masrouter.adaptation import with_candidate

        state = with_candidate(trained, self.encoder, kind, profile, probes, plans)
        return Router(state, self.encoder)  # no checkpoint holds it yet

    def _trained(self) -> RouterState:
        """The state; RoutingError where its networks are not loaded."""
        _ = self.state.networks.candidates
        return self.state

    def _cost_weight(
        self, cost_weight: float | None, willingness: float | None, budget: float | None
    ) -> float:
        if cost_weight is not None and willingness is not None:
            raise RoutingError("cost_weight and willingness_to_pay say the same thing: give one")
        if willingness is not None:
            return 1 / number("willingness_to_pay", willingness, above=1 / LARGEST)
        if cost_weight is not None:
            return number("cost_weight", cost_weight, at_least=0.0)
        return 0.0 if budget is not None else self.state.default_cost_weight

    def _generator(self, seed: int | None) -> np.random.Generator:
        if not self.state.cascade_trained:
            raise RoutingError("this checkpoint's cascade was not trained; route without sample")
        return np.random.default_rng(seed)


def _names(field: str, names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise RoutingError(f"{field}: expected a list of names, got {names!r}")
    return tuple(names)
