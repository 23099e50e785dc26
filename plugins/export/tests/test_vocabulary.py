"""A tokenizer in a GGUF file splits texts as the model's own, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_export import llamacpp, pretokenizers
from tunesmith_export.ggufwriter import write_gguf
from tunesmith_export.parity import TEXTS
from tunesmith_export.vocabulary import BYTE, CONTROL, SPACE, UNUSED, USER_DEFINED, read_vocabulary

from tests import tiny
from tunesmith import ModelError


def byte_level(folder: Path, regex: str | None, ignore_merges: bool, digits: bool = False) -> Path:
    """Write a byte-level tokenizer that splits texts by a regular expression, or by that of GPT-2."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = tiny.tokenizer()._tokenizer.__class__.from_str(tiny.tokenizer().backend_tokenizer.to_str())
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    first: Any = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    first = [pre_tokenizers.Split(Regex(regex), "isolated")] if regex else first
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.save_pretrained(folder)
    if ignore_merges:
        content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        content["model"]["ignore_merges"] = True
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


KINDS = {
    "gpt-2": (None, False, False),
    "smollm": (None, False, True),
    "llama-bpe": (pretokenizers.LLAMA3, True, False),
    "dbrx": (pretokenizers.LLAMA3, False, False),
    "qwen2": (pretokenizers.QWEN2, False, False),
    "tekken": (pretokenizers.TEKKEN, True, False),
}


@pytest.mark.parametrize("name", KINDS)
def test_pre_tokenizers_are_recognized_by_their_rules(name: str, tmp_path: Path) -> None:
    assert read_vocabulary(byte_level(tmp_path, *KINDS[name]), 320).pre == name


HARD = (
    *TEXTS,
    "a\r\n\r\n  b\t c   ",
    "I'LL we've 1234567 x86_64 3.14",
    "ABCdef GHI ÀÉÎ ǅ ß",
    "  \n \n x",
    "e\u0301 \u00a0 ½ ²",
)


@pytest.mark.skipif(not llamacpp.installed(), reason="xllamacpp is not installed")
@pytest.mark.parametrize("name", KINDS)
def test_llamacpp_splits_texts_by_the_same_rules(name: str, tmp_path: Path) -> None:
    from tunesmith_export.folders import read_tokenizer

    folder = tiny.model_folder(tmp_path / "model")
    byte_level(folder, *KINDS[name])
    write_gguf(folder, tmp_path / "x.gguf", "F32", "tiny")
    tokenizer = read_tokenizer(folder)
    with llamacpp.loaded(tmp_path / "x.gguf") as model:
        for text in HARD:
            assert model.tokens(text) == tokenizer(text)["input_ids"], text


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}},
    ],
)  # fmt: skip
def test_an_unknown_pre_tokenizer_is_refused_unless_it_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    folder = byte_level(tmp_path, None, False)
    content = json.loads((folder / "tokenizer.json").read_text("utf-8")) | change
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="would split texts differently") as error:
        read_vocabulary(folder, 320)
    assert "--pre NAME" in str(error.value.problems[0].help)
    assert read_vocabulary(folder, 320, "tekken").pre == "tekken"


def sentencepiece(folder: Path, prefix: bool) -> Path:
    """Write a tokenizer as transformers converts those of SentencePiece: merges of all pairs, bytes as a fallback."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    pieces = [f"<0x{number:02X}>" for number in range(256)]
    letters = [SPACE, *"abcdefghijklmnopqrstuvwxyz.,"]
    unions = [
        f"{SPACE}t",
        "he",
        f"{SPACE}a",
        "in",
        f"{SPACE}the",
        "er",
        "the",
        "ow",
        "qu",
        "ck",
        "ick",
        "ing",
        "own",
        "jump",
    ]
    unions = ["um", "ju", "jum", *unions]
    vocab = {piece: number for number, piece in enumerate([*special, *pieces, *letters, *unions])}
    merges = [(u[:cut], u[cut:]) for u in unions for cut in range(1, len(u)) if u[:cut] in vocab and u[cut:] in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend(SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.ByteFallback()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("prefix", [True, False])
def test_scores_follow_the_order_of_merges(prefix: bool, tmp_path: Path) -> None:
    vocabulary = read_vocabulary(sentencepiece(tmp_path, prefix), 330)
    assert vocabulary.model == "llama" and vocabulary.prefix is prefix
    score = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    assert score["um"] > score["jum"] > score["he"] > score[f"{SPACE}the"] > score["jump"]
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert (kinds["<0x41>"], kinds["</s>"], kinds["[PAD329]"]) == (BYTE, CONTROL, UNUSED)


@pytest.mark.skipif(not llamacpp.installed(), reason="xllamacpp is not installed")
@pytest.mark.parametrize("prefix", [True, False])
def test_llamacpp_merges_as_sentencepiece_does(prefix: bool, tmp_path: Path) -> None:
    from tunesmith_export.folders import read_tokenizer

    folder = tiny.model_folder(tmp_path / "model", vocab_size=330)
    sentencepiece(folder, prefix)
    write_gguf(folder, tmp_path / "x.gguf", "F32", "tiny")
    tokenizer = read_tokenizer(folder)
    with llamacpp.loaded(tmp_path / "x.gguf") as model:
        for text in (*TEXTS, "the quick brown fox jumping", " the  in the"):
            assert model.tokens(text) == tokenizer(text)["input_ids"], text


def test_merges_that_no_score_gives_are_refused(tmp_path: Path) -> None:
    folder = sentencepiece(tmp_path, True)
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    merges = content["model"]["merges"]
    content["model"]["merges"] = [merge for merge in merges if merge != ["t", "he"]]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="the merge of 't' and 'he' is missing"):
        read_vocabulary(folder, 330)
    double = next(merge for merge in merges if "".join(merge) == "the")
    content["model"]["merges"] = [double, *(merge for merge in merges if merge != double), double]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="are not together"):
        read_vocabulary(folder, 330)


def test_added_tokens_and_rows_without_a_token_have_their_types(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer().__class__.from_pretrained(tiny_saved(tmp_path))
    tokenizer.add_tokens(["<tool>"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|extra|>"]})
    tokenizer.save_pretrained(tmp_path)
    vocabulary = read_vocabulary(tmp_path, 330)
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert (kinds["<tool>"], kinds["<|extra|>"], kinds["[PAD329]"]) == (USER_DEFINED, CONTROL, UNUSED)
    with pytest.raises(ModelError, match="322 tokens, and the embeddings have 321 rows"):
        read_vocabulary(tmp_path, 321)


def tiny_saved(folder: Path) -> Path:
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        read_vocabulary(tmp_path, 320)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}', encoding="utf-8")
    with pytest.raises(ModelError, match="type Unigram are not written"):
        read_vocabulary(tmp_path, 320)
