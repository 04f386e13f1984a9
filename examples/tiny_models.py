"""Two toy models for the examples: real Hugging Face folders, made here in a few seconds.

One translates 40 English words into German, word by word; the other keeps the first four words of a
text, which is the simplest of all summaries. They are toys: put the folders of real models, or
their names on the hub, in their place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

GERMAN = {
    "the": "die", "pump": "Pumpe", "valve": "Klappe", "lamp": "Lampe", "battery": "Batterie",
    "line": "Leitung", "machine": "Maschine", "panel": "Tafel", "clock": "Uhr", "switch": "Taste",
    "heats": "heizt", "cools": "kühlt", "opens": "öffnet", "closes": "schließt", "turns": "dreht",
    "stops": "stoppt", "starts": "startet", "fills": "füllt", "empties": "leert", "checks": "prüft",
    "red": "rote", "blue": "blaue", "small": "kleine", "large": "große", "old": "alte",
    "new": "neue", "hot": "heiße", "cold": "kalte", "first": "erste", "second": "zweite",
    "before": "bevor", "after": "nachdem", "and": "und", "or": "oder", "then": "dann",
    "always": "immer", "never": "nie", "again": "wieder", ".": ".", ",": ",",
}  # fmt: skip
LONGEST = 9
"""Words of a text that the toys read at once."""
SUMMARY = 4
"""Words that the toy summary keeps."""


def make_translator(folder: Path) -> Path:
    """A folder with the toy translator."""
    return _make(folder, list(GERMAN), lambda words: [GERMAN[word] for word in words])


def make_summariser(folder: Path) -> Path:
    """A folder with the toy that summarises German."""
    return _make(folder, sorted(set(GERMAN.values())), lambda words: list(words[:SUMMARY]))


def _make(folder: Path, words: Sequence[str], target: Callable[[Sequence[str]], list[str]]) -> Path:
    tokenizer = _tokenizer([*words, *sorted(set(target(words)) - set(words))])
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer), d_model=48, init_std=0.2, dropout=0.0,
            encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64,
            decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64,
            max_position_embeddings=LONGEST + 4,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None,
        )
    )  # fmt: skip
    threads = torch.get_num_threads()
    # So small a model gains nothing from threads, and on a busy machine they wait for each other.
    torch.set_num_threads(1)
    try:
        _train(model, tokenizer, words, target)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _train(
    model: MarianMTModel,
    tokenizer: PreTrainedTokenizerFast,
    words: Sequence[str],
    target: Callable[[Sequence[str]], list[str]],
) -> None:
    numbers = random.Random(0)
    steps = 340
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for _ in range(steps):
        texts = [numbers.choices(words, k=numbers.randint(1, LONGEST)) for _ in range(32)]
        given = tokenizer([" ".join(text) for text in texts], padding=True, return_tensors="pt")
        wanted = tokenizer(
            [" ".join(target(text)) for text in texts], padding=True, return_tensors="pt"
        )
        labels = wanted.input_ids.masked_fill(wanted.attention_mask == 0, -100)  # (B, L)
        loss = model(given.input_ids, attention_mask=given.attention_mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def _tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    names = ["<pad>", "</s>", "<unk>", *words]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=LONGEST + 1,
    )  # fmt: skip
