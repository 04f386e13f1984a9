"""Workers that are Hugging Face models: made here, loaded by the real code, offline."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from examples.tiny_models import GERMAN, LONGEST, make_summariser, make_translator
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.tasks import Batch
from masrouter.delegation.workers.hugging_face import CUT, summarisation_worker, translation_worker
from masrouter.delegation.workers.matching import plan_steps
from masrouter.delegation.workers.text_model import Generation, TextModel
from masrouter.delegation.workers.worker import Produced, Worker
from masrouter.encoder import load_encoder
from masrouter.errors import ConfigError
from masrouter.llms.simulated import SimulatedProvider


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_translator(tmp_path_factory.mktemp("models") / "translator")


@pytest.fixture(scope="module")
def summariser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_summariser(tmp_path_factory.mktemp("models") / "summariser")


@pytest.fixture
def copy(translator: Path, tmp_path: Path) -> Path:
    """A model folder to be damaged."""
    return Path(shutil.copytree(translator, tmp_path / "copy"))


def said(worker: Worker, text: str) -> Produced:
    produced = worker.run(text)
    assert isinstance(produced, Produced)
    return produced


def german(line: str) -> str:
    return " ".join(GERMAN[word] for word in line.split())


def random_t5(folder: Path, tokenizer: Path) -> Path:
    """Weights that mean nothing, of a model without a limit of its own."""
    shutil.copytree(tokenizer, folder)
    torch.manual_seed(0)
    words = len(json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"])
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=words, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    (folder / "generation_config.json").unlink()
    return folder


class TestTranslation:
    def test_a_document_is_translated_line_by_line_and_keeps_its_shape(
        self, translator: Path
    ) -> None:
        lines = ["the red pump heats the line .", "", "  ---", "\tthe lamp stops , never the clock"]
        produced = said(translation_worker(translator, local_files_only=True), "\n".join(lines))
        assert produced.text.split("\n") == [
            german(lines[0]), "", "  ---", "\t" + german(lines[3]),
        ]  # fmt: skip
        assert produced.finish_reason == "stop, 2 parts translated one by one"
        assert produced.prompt_tokens == 7 + 1 + 7 + 1
        assert produced.completion_tokens == produced.prompt_tokens  # word by word, and an end

    def test_a_text_longer_than_the_model_reads_is_parted_and_nothing_is_lost(
        self, translator: Path
    ) -> None:
        text = "the pump stops . " * 20 + "the lamp turns and the clock starts again and again then"
        produced = said(translation_worker(translator), text)
        assert produced.text == german(text)
        assert "parts translated one by one" in str(produced.finish_reason)

    def test_words_that_the_model_does_not_know_are_counted(self, translator: Path) -> None:
        produced = said(translation_worker(translator), "the xylophone and the zebra")
        assert produced.finish_reason == "stop, 2 tokens that the model does not know"

    def test_a_translation_without_room_says_where_it_was_cut(self, translator: Path) -> None:
        short = translation_worker(translator, generation=Generation(new_tokens=2))
        produced = said(short, "the red pump heats the line")
        assert produced.text == f"die rote {CUT}"
        assert produced.finish_reason == "length"

    def test_beams_and_batches_change_nothing_that_is_clear(self, translator: Path) -> None:
        text = "the pump stops\nthe red lamp never turns again\nthe clock"
        for how in Generation(beams=3), Generation(batch=1), Generation(read_tokens=4):
            assert said(translation_worker(translator, generation=how), text).text == "\n".join(
                german(line) for line in text.split("\n")
            )


class TestSummaries:
    def test_a_short_text_has_one_summary(self, summariser: Path) -> None:
        produced = said(summarisation_worker(summariser), "die rote Pumpe heizt die Leitung .")
        assert (produced.text, produced.finish_reason) == ("die rote Pumpe heizt", "stop")

    def test_summaries_of_parts_are_joined_and_numbered(self, summariser: Path) -> None:
        text = "die rote Pumpe heizt die Leitung .\nnachdem die Uhr stoppt , startet die Lampe ."
        produced = said(summarisation_worker(summariser), text)
        assert produced.text == (
            "(part 1 of 2) die rote Pumpe heizt\n\n(part 2 of 2) nachdem die Uhr stoppt"
        )
        assert produced.finish_reason == "stop, 2 parts summarised one by one"


class TestRequest:
    def test_translate_this_document_and_summarise_it(
        self, translator: Path, summariser: Path
    ) -> None:
        """By their descriptions alone: the translator first, then the summariser on its text."""
        workers = (summarisation_worker(summariser), translation_worker(translator))
        document = "the red pump heats the line .\nthe battery never stops ."
        tasks = plan_steps(
            "translate this technical document and summarise it",
            workers, load_encoder(), context=document,
        )  # fmt: skip
        delegator = Delegator(SimulatedProvider([]), workers=workers)

        async def run() -> Batch:
            return await delegator.delegate_tasks(tasks, budget_usd=0.0)

        first, second = asyncio.run(run()).results
        assert first.models == ("translator",)
        assert first.answer == "\n".join(german(line) for line in document.split("\n"))
        assert second.models == ("summariser",)
        assert second.answer == (
            "(part 1 of 2) die rote Pumpe heizt\n\n(part 2 of 2) die Batterie nie stoppt"
        )
        assert second.usage.cost_usd == 0.0
        assert second.run is not None
        assert second.run.calls[0].finish_reason == "stop, 2 parts summarised one by one"


class TestLimits:
    def test_the_model_says_how_much_it_reads(self, translator: Path) -> None:
        model = TextModel(translator)
        assert (model.window, model.room) == (LONGEST + 1, LONGEST + 3)
        longest = " ".join(["pump"] * LONGEST)
        assert model.fits(longest)
        assert not model.fits(f"{longest} pump")
        with pytest.raises(ConfigError, match=f"longer than the {LONGEST + 1} tokens"):
            model.write([f"{longest} pump"])

    def test_a_prefix_takes_room_of_every_part(self, translator: Path) -> None:
        model = TextModel(translator, Generation(prefix="then then "))
        assert not model.fits(" ".join(["pump"] * (LONGEST - 1)))
        assert model.fits(" ".join(["pump"] * (LONGEST - 2)))

    @pytest.mark.parametrize(
        ("generation", "why"),
        [
            ({"read_tokens": 500}, "read_tokens: it reads at most 10, got 500"),
            ({"new_tokens": 500}, "new_tokens: it writes at most 12, got 500"),
            ({"read_tokens": 1}, "leave no room beside the prefix"),
            ({"source_code": "eng_Latn"}, "takes no source_code"),
            ({"target_code": "deu_Latn"}, "target_code: it has no token 'deu_Latn'"),
        ],
    )
    def test_what_a_model_cannot_do_is_refused(
        self, translator: Path, generation: Any, why: str
    ) -> None:
        with pytest.raises(ConfigError, match=why):
            translation_worker(translator, generation=Generation(**generation))

    @pytest.mark.parametrize("key", ["beams", "batch", "read_tokens", "new_tokens"])
    @pytest.mark.parametrize("value", [0, 1.5, True])
    def test_settings_that_cannot_be_meant_are_refused(self, key: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=f"generation: {key}: expected a number >= 1"):
            Generation(**{key: value})

    def test_a_model_without_a_limit_needs_one(self, translator: Path, tmp_path: Path) -> None:
        folder = random_t5(tmp_path / "t5", translator)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["model_max_length"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(
            ConfigError, match=r"nothing says how much it reads .* give read_tokens"
        ):
            translation_worker(folder)
        model = TextModel(folder, Generation(read_tokens=40, new_tokens=5))
        (written,) = model.write(["the pump"])
        assert (model.window, model.room) == (40, 5)
        assert 1 <= written.written <= 5


class TestLoading:
    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such folder"):
            translation_worker(tmp_path / "none")
        with pytest.raises(ConfigError, match=r"'someone/none': cannot be loaded"):
            translation_worker("someone/none", local_files_only=True)

    def test_pickled_weights_are_not_loaded(self, copy: Path) -> None:
        torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
        (copy / "model.safetensors").unlink()
        with pytest.raises(ConfigError, match=r"\.safetensors weights"):
            translation_worker(copy)

    def test_weights_that_lack_a_part_are_not_filled_up(self, copy: Path) -> None:
        weights = load_file(copy / "model.safetensors")
        lost = next(name for name in weights if "decoder.layers.0.fc1.weight" in name)
        rest = {name: tensor for name, tensor in weights.items() if name != lost}
        save_file(rest, copy / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ConfigError, match=r"its weights lack 1 parts .* 'model\.decoder"):
            translation_worker(copy)

    def test_code_of_a_model_is_not_run(self, copy: Path) -> None:
        (copy / "own.py").write_text("raise SystemExit('it was run')")
        settings = json.loads((copy / "config.json").read_text())
        settings |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
        (copy / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match="cannot be loaded"):
            translation_worker(copy)

    def test_a_chat_model_is_none_for_this(self, copy: Path) -> None:
        GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1, n_positions=16)
        ).save_pretrained(copy)
        with pytest.raises(ConfigError, match="expected a sequence-to-sequence model"):
            translation_worker(copy)

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
    @pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff junk"])
    def test_damaged_files_are_told(self, copy: Path, name: str, content: bytes) -> None:
        (copy / name).write_bytes(content)
        with pytest.raises(ConfigError, match="copy"):
            translation_worker(copy)

    def test_a_tokenizer_of_another_model_is_told(
        self, copy: Path, translator: Path, tmp_path: Path
    ) -> None:
        settings = json.loads((copy / "tokenizer.json").read_text())
        vocabulary = settings["model"]["vocab"]
        vocabulary |= {f"word{i}": len(vocabulary) + i for i in range(10)}
        (copy / "tokenizer.json").write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match="they do not belong"):
            translation_worker(copy)
