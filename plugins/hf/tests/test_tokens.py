"""Tokens that a config adds, renames or gives a role: what trains is what is saved, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_hf import vocabulary
from tunesmith_hf.vocabulary import misspelt

from tests import tiny
from tunesmith import ConfigError
from tunesmith.api import prepare, start
from tunesmith.config.load import load_config

TEXT = "a cat<think> sees</think><|turn|> a[[filler]] dog"
RESERVED = ["<unk>", "<s>", "</s>", "<unused0>", "<unused1>", "<pad>", "<bos>", "<eos>", "<mask>"]
KEYS: dict[str, Any] = {
    "tokens": ["<think>", "</think>"],
    "special_tokens": {"pad_token": "[[filler]]", "eos_token": "<|turn|>"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which model and data are made once; configs are written over each other."""
    return tmp_path_factory.mktemp("home")


def loaded(path: Path, *overrides: str) -> Any:
    """A run with its tokenizer, and no data yet."""
    run = tiny.start(path, *overrides)
    run.tokenizer = run.hooks.load_tokenizer(run)
    return run


def sentencepiece(folder: Path, kind: str) -> None:
    """Put a tokenizer of the other family into a model folder: a normalizer, bytes as words, reserved tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    words = [*RESERVED, *(f"<0x{i:02X}>" for i in range(256)), *"abcdefghijklmnopqrstuvwxyz.▁<>|[]/", "ca", "cat"]
    merges = [("c", "a"), ("ca", "t")]
    model = models.BPE({word: i for i, word in enumerate(words)}, merges, byte_fallback=True, unk_token="<unk>")
    core = Tokenizer(model)
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in RESERVED])
    core.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings["extra_special_tokens"] = ["<unused0>", "<unused1>"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_tokens_are_added_in_order_and_said(home: Path) -> None:
    run = loaded(tiny.sft_config(home, **KEYS))
    tokenizer, ids = run.tokenizer, run.tokenizer.encode(TEXT)
    assert [number for number in ids if number >= 320] == [320, 321, 322, 323] and len(tokenizer) == 324
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|turn|>", "[[filler]]")
    assert run.notes["tokens added"] == "<think> (320), </think> (321), <|turn|> (322), [[filler]] (323)"
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a cat<think> sees</think> a dog"


@pytest.mark.parametrize("kind", ["TokenizersBackend", "LlamaTokenizer", "GemmaTokenizer"])
def test_a_reserved_token_gets_another_text_and_keeps_its_id_also_when_read_again(kind: str, tmp_path: Path) -> None:
    """Two of these classes make their rules anew when they are read."""
    from transformers import AutoTokenizer

    keys = KEYS | {"added_tokens_overrides": {3: "<|turn|>"}}
    path = tiny.sft_config(tmp_path, **keys)
    sentencepiece(tmp_path / "model-llama", kind)
    run = loaded(path)
    tokenizer = run.tokenizer
    assert type(tokenizer).__name__ == kind and tokenizer.eos_token_id == 3
    ids, first = tokenizer.encode(TEXT), tokenizer.convert_tokens_to_ids("<think>")
    assert [number for number in ids if number == 3 or number >= first] == [first, first + 1, 3, first + 2]
    assert tokenizer.encode("<unused1>")[-1] == 4 and 3 not in tokenizer.encode("<unused0>")
    assert max(tokenizer.get_vocab().values()) == first + 2  # the old text is not added anew
    assert run.notes["tokens with another text"] == "<|turn|> (3)"
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode(TEXT) == ids and again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_token_that_is_there_is_not_added_again(home: Path) -> None:
    """So a config may be used again on the model that it made."""
    run = loaded(tiny.sft_config(home, tokens=["<|im_start|>"]))
    assert len(run.tokenizer) == 320 and run.notes["tokens that are there already"] == "<|im_start|> (1)"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"special_tokens": {"eos_token": "<|im_ned|>"}}, r"eos_token '<\|im_ned\|>' is not .*\n.*<\|im_end"),
    "frame": ({"special_tokens": {"pad_token": "[EndOfText]"}}, r"did you mean '<\|endoftext\|>'"),
    "twice": ({"tokens": ["<a>", "<b>", "<a>"]}, r"tokens\.2 '<a>' is named twice"),
    "in two keys": ({"tokens": ["<a>"], "added_tokens_overrides": {1: "<a>"}}, r"tokens\.0 '<a>' is named twice"),
    "empty": ({"tokens": [" "]}, r"tokens\.0 is empty"),
    "ordinary": ({"tokens": ["e"]}, r"tokens\.0 'e' is token \d+ of the vocabulary already"),
    "no id": ({"added_tokens_overrides": {"x": "<a>"}}, r"added_tokens_overrides\.x is no id"),
    "negative": ({"added_tokens_overrides": {-1: "<a>"}}, r"added_tokens_overrides\.-1 is no id"),
    "out of range": ({"added_tokens_overrides": {320: "<a>"}}, r"overrides\.320 is no token's id\n.*1 <\|im_st"),
    "far out of range": ({"added_tokens_overrides": {10**30: "<a>"}}, r"is no token's id"),
    "not added": ({"added_tokens_overrides": {7: "<a>"}}, r"overrides\.7 is no added token, but '.*' of the voc"),
    "with a role": ({"added_tokens_overrides": {2: "<a>"}}, r"overrides\.2 is '<\|im_end\|>', the eos_token"),
    "another's text": ({"added_tokens_overrides": {1: "e"}}, r"overrides\.1 'e' is token \d+ already"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_a_token_is_said_with_its_place(name: str, home: Path) -> None:
    keys, message = BAD[name]
    with pytest.raises(ConfigError, match=r"(?s)run\.yaml:\d+:\d+: .*" + message):
        loaded(tiny.sft_config(home, **keys))


def test_a_misspelt_token_that_is_meant_is_listed_as_a_token(home: Path) -> None:
    path = tiny.sft_config(home, tokens=["<|im_ned|>"], special_tokens={"eos_token": "<|im_ned|>"})
    assert loaded(path).tokenizer.eos_token_id == 320


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("<|im_ned|>", "<|im_end|>"), ("<|IM_END|>", "<|im_end|>"), ("<|im_end>", "<|im_end|>"), ("[PAD]", "<pad>"),
        ("<|eot|>", None), ("<|end|>", None), ("</s>", None), ("<|im_sep|>", None), ("<think>", None), ("[MASK]", None),
    ],
)  # fmt: skip
def test_a_new_token_is_told_from_a_misspelt_one(text: str, near: str | None) -> None:
    there = ["<|im_end|>", "<|im_start|>", "<pad>", "<s>", "<|eot_id|>", "<|endoftext|>"]
    assert misspelt(text, dict.fromkeys(there, 0)) == near


def test_a_token_that_is_lost_when_the_tokenizer_is_read_again_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "_read_again", lambda tokenizer: tiny.tokenizer())
    with pytest.raises(ConfigError, match=r"run\.yaml:\d+:\d+: .*tokens\.0 '<think>' is read as '<' "):
        loaded(tiny.sft_config(home, tokens=["<think>"]))


def test_an_id_may_be_named_on_the_command_line(home: Path) -> None:
    path = tiny.sft_config(home, added_tokens_overrides={1: "<b>"})
    assert loaded(path, "added_tokens_overrides.1=<a>").tokenizer.encode("x<a>")[-1] == 1
    with pytest.raises(ConfigError, match=r"is '<\|endoftext\|>', the pad_token"):
        loaded(path, "added_tokens_overrides.0=<a>")


def test_keys_that_a_given_tokenizer_would_not_follow_are_refused(home: Path) -> None:
    path = tiny.sft_config(home, **KEYS)
    with pytest.raises(ConfigError, match=r"tokens has no effect: the tokenizer was given(.|\n)*special_tokens has no"):
        start(load_config(path), tokenizer=tiny.tokenizer())


def test_prepared_data_is_used_again_exactly_when_the_tokens_are_the_same(home: Path) -> None:
    cache = f"dataset_prepared_path={home / 'prepared'}"
    path = tiny.sft_config(home, tokens=["<think>"], special_tokens={"pad_token": "[[filler]]"})
    first, same = (prepare(tiny.start(path, cache)).data for _ in range(2))
    assert not first.cached and same.cached and first.fingerprint == same.fingerprint
    for change in ("tokens=[<a>, <think>]", "special_tokens.pad_token=<|im_end|>", "added_tokens_overrides={1: <a>}"):
        assert not prepare(tiny.start(path, cache, change)).data.cached, change
