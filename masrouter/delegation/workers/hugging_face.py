"""Workers that are Hugging Face models: translation and summarisation.

A text longer than the model takes is parted; what was cut, joined or not understood is said, in the
text or in the call's finish reason. Needs `pip install 'masrouter[transformers]'`.

Not here: how a model is loaded and asked (`text_model`), and chat models (`masrouter.llms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from masrouter.delegation.workers.text_model import Generation, TextModel, Written
from masrouter.delegation.workers.text_parts import Piece, part_text
from masrouter.delegation.workers.worker import Produced, Worker, WorkerError

TRANSLATION = "Translates a text or document into another language, keeping its lines."
SUMMARISATION = "Summarises a text or document: gives a short summary of its main points."
TRANSLATION_REQUESTS = (
    "Translate this text into German.",
    "What is this letter in English?",
    "I need a French version of the document.",
)
SUMMARISATION_REQUESTS = (
    "Summarise this text.",
    "Give a short summary of the document.",
    "What are the main points of this report?",
)

CUT = "[cut: the model had no room to go on]"
"""Stands where a model was stopped by `Generation.new_tokens` or by its own limit."""


def translation_worker(
    model: str | Path,
    *,
    name: str = "translator",
    description: str = TRANSLATION,
    examples: tuple[str, ...] = TRANSLATION_REQUESTS,
    generation: Generation | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
    device: str = "cpu",
    usd_per_call: float = 0.0,
    deadline_s: float | None = None,
) -> Worker:
    """A worker that translates line by line; blank lines and lines without a word stay.

    model: a folder, or a name on the Hugging Face hub. description, examples: what it does, best
    with its languages, and requests for it: by them it is chosen. local_files_only: ask no network.
    Raises ConfigError, before anything runs, where the model cannot be loaded or used.
    """
    asked = TextModel(
        model, generation, local_files_only=local_files_only, revision=revision, device=device
    )
    return Worker(
        name=name,
        description=description,
        examples=examples,
        run=lambda text: _translated(asked, name, text),
        usd_per_call=usd_per_call,
        deadline_s=deadline_s,
    )


def summarisation_worker(
    model: str | Path,
    *,
    name: str = "summariser",
    description: str = SUMMARISATION,
    examples: tuple[str, ...] = SUMMARISATION_REQUESTS,
    generation: Generation | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
    device: str = "cpu",
    usd_per_call: float = 0.0,
    deadline_s: float | None = None,
) -> Worker:
    """A worker that summarises; of a text that is too long, part by part.

    The summaries of parts are joined in their order, each begun by `(part 2 of 5)`. Arguments and
    errors as of `translation_worker`.
    """
    asked = TextModel(
        model, generation, local_files_only=local_files_only, revision=revision, device=device
    )
    return Worker(
        name=name,
        description=description,
        examples=examples,
        run=lambda text: _summarised(asked, name, text),
        usd_per_call=usd_per_call,
        deadline_s=deadline_s,
    )


def _translated(model: TextModel, name: str, text: str) -> Produced:
    pieces = part_text(text, model.fits, keep_lines=True)
    written = _written(model, name, [piece for piece in pieces if _has_words(piece)])
    spoken = iter(written)
    texts = [
        f"{piece.before}{_shown(next(spoken)) if _has_words(piece) else piece.core}{piece.after}"
        for piece in pieces
    ]
    return _produced("".join(texts), written, "translated")


def _summarised(model: TextModel, name: str, text: str) -> Produced:
    pieces = [piece for piece in part_text(text, model.fits, keep_lines=False) if piece.core]
    written = _written(model, name, pieces)
    texts = [_shown(one) for one in written]
    if len(texts) > 1:
        texts = [f"(part {i} of {len(texts)}) {text}" for i, text in enumerate(texts, 1)]
    return _produced("\n\n".join(texts), written, "summarised")


def _has_words(piece: Piece) -> bool:
    """Rules, bullets and blank lines are of no language."""
    return any(map(str.isalnum, piece.core))


def _written(model: TextModel, name: str, pieces: Sequence[Piece]) -> list[Written]:
    written = model.write([piece.core for piece in pieces])
    for position, one in enumerate(written, 1):
        if not one.text:
            raise WorkerError(
                f"part {position} of {len(written)} came back without text",
                kind="empty",
                model=name,
            )
    return written


def _shown(one: Written) -> str:
    return f"{one.text} {CUT}" if one.cut else one.text


def _produced(text: str, written: Sequence[Written], how: str) -> Produced:
    said = ["length" if any(one.cut for one in written) else "stop"]
    if len(written) > 1:
        said.append(f"{len(written)} parts {how} one by one")
    if unknown := sum(one.unknown for one in written):
        said.append(f"{unknown} tokens that the model does not know")
    return Produced(
        text=text,
        prompt_tokens=sum(one.read for one in written),
        completion_tokens=sum(one.written for one in written),
        finish_reason=", ".join(said),
    )
