"""A sentence-transformers model small enough to export in a test."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = """
the sum of two even odd numbers is prove that a b merge sorted lists what capital france banana
query : . , ? ! def return ( ) [ ] 1 2 3 ünïcödé 漢 字
"""
PROMPT = "query: "
WINDOW = 24
"""Tokens that it reads, two of them special."""


def write_tiny_model(folder: Path, *, prompt: str = PROMPT, padding_side: str = "right") -> Path:
    """A BERT of 2 layers with made-up weights, mean pooling and a prompt; always the same."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    pieces = [*specials, *"abcdefghijklmnopqrstuvwxyz", *letters, *WORDS.split()]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", padding_side=padding_side,
        model_max_length=WINDOW,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, initializer_range=0.4,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)

    def write(name: str, value: object) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")

    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind}" if at else "",
         "type": f"sentence_transformers.models.{kind}"}
        for at, kind in enumerate(kinds)
    ]  # fmt: skip
    write("modules.json", modules)
    write("sentence_bert_config.json", {"max_seq_length": WINDOW, "do_lower_case": False})
    write("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode": "mean"})
    settings = {"prompts": {"query": prompt}, "default_prompt_name": "query"} if prompt else {}
    write("config_sentence_transformers.json", settings)
    return folder
