"""The README of a checkpoint: what it was trained on, what was measured, what it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masrouter.gate import FIXED

if TYPE_CHECKING:
    from masrouter.router_state import RouterState


def model_card(state: RouterState) -> str:
    """Markdown, made of the state alone: the same training writes the same card."""
    training, gate = state.training, state.gate
    lines = [
        "---",
        "library_name: masrouter",
        "tags: [llm-routing, multi-agent]",
        "---",
        "",
        "# masrouter checkpoint",
        "",
        f"Trained on {training.get('queries', '?')} queries and {training.get('cells', '?')} "
        f"query-plan outcomes of {len(state.plans)} plans from: "
        f"{', '.join(map(str, training.get('datasets', []))) or 'unnamed data'}.",
        "",
        f"The logs are **{training.get('kind', '?')}**: {training.get('why', '')}.",
        "",
    ]
    if any("synthetic" in str(name) for name in training.get("datasets", [])):
        lines += ["**The data are synthetic**: nothing here says anything of real models.", ""]
    lines += [
        "## What held-out queries allowed",
        "",
        "| cost weight (score per US dollar) | decides | gain over the best fixed plan |",
        "|---|---|---|",
    ]
    for node in gate.nodes:
        if node.head == FIXED:
            row = "best fixed plan | 0"
        else:
            name = state.networks.heads[node.head]
            row = f"critic ({name}) | {node.gain:+.4f} +- {1.96 * node.gain_error:.4f}"
        lines.append(f"| {node.cost_weight:.6g} | {row} |")
    lines += [
        "",
        "Gains are cross-fitted on the training queries and were used to choose, so they flatter a "
        "little; `masrouter evaluate` measures on queries that nothing was chosen on.",
        "",
        "## Known limits",
        "",
        "- Plans that the logs do not hold are judged by what they share with logged ones.",
        "- The encoder reads the query alone, not the conversation around it.",
        "- `model.safetensors` holds embeddings of training queries as evidence (no texts). "
        "Embeddings can leak what a text was about: treat the checkpoint as private as its logs.",
        "",
    ]
    return "\n".join(lines)
