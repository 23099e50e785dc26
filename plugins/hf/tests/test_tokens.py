"""Tokens that a config adds, renames or gives a role are the same in training and in the saved tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_hf import vocabulary
from tunesmith_hf.vocabulary import closest_token

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
    """Return a folder that keeps its model and data between tests. Each test overwrites the config."""
    return tmp_path_factory.mktemp("home")


def loaded(path: Path, *overrides: str) -> Any:
    """Return a run with its tokenizer but without data."""
    run = tiny.start(path, *overrides)
    run.tokenizer = run.hooks.load_tokenizer(run)
    return run


def sentencepiece(folder: Path, kind: str) -> None:
    """Write a SentencePiece-like tokenizer into a folder: a normalizer, bytes as words, reserved tokens."""
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


def test_tokens_are_added_in_order_and_noted(home: Path) -> None:
    run = loaded(tiny.sft_config(home, **KEYS))
    tokenizer, ids = run.tokenizer, run.tokenizer.encode(TEXT)
    assert [number for number in ids if number >= 320] == [320, 321, 322, 323] and len(tokenizer) == 324
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|turn|>", "[[filler]]")
    assert run.notes["tokens added"] == "<think> (320), </think> (321), <|turn|> (322), [[filler]] (323)"
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a cat<think> sees</think> a dog"


@pytest.mark.parametrize("kind", ["TokenizersBackend", "LlamaTokenizer", "GemmaTokenizer"])
def test_renamed_token_keeps_its_id_and_is_saved(kind: str, tmp_path: Path) -> None:
    """Two of these classes rebuild their rules when they are loaded."""
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
    assert max(tokenizer.get_vocab().values()) == first + 2  # the old text is not added again
    assert run.notes["tokens renamed"] == "<|turn|> (3)"
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.encode(TEXT) == ids and saved.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_existing_token_is_not_added_again(home: Path) -> None:
    """A config can therefore be used again on the model that it produced."""
    run = loaded(tiny.sft_config(home, tokens=["<|im_start|>"]))
    assert len(run.tokenizer) == 320 and run.notes["tokens that already exist"] == "<|im_start|> (1)"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"special_tokens": {"eos_token": "<|im_ned|>"}}, r"eos_token '<\|im_ned\|>' is not .*\n.*<\|im_end"),
    "frame": ({"special_tokens": {"pad_token": "[EndOfText]"}}, r"did you mean '<\|endoftext\|>'"),
    "duplicate": ({"tokens": ["<a>", "<b>", "<a>"]}, r"tokens\.2 is a duplicate of '<a>'"),
    "in two keys": ({"tokens": ["<a>"], "added_tokens_overrides": {1: "<a>"}}, r"tokens\.0 is a duplicate of '<a>'"),
    "empty": ({"tokens": [" "]}, r"tokens\.0 is empty"),
    "ordinary": ({"tokens": ["e"]}, r"tokens\.0 'e' is already token \d+ of the vocabulary"),
    "not an id": ({"added_tokens_overrides": {"x": "<a>"}}, r"added_tokens_overrides\.x is not a token id"),
    "negative": ({"added_tokens_overrides": {-1: "<a>"}}, r"added_tokens_overrides\.-1 is not a token id"),
    "out of range": ({"added_tokens_overrides": {320: "<a>"}}, r"overrides\.320 is not the id of a tok.*1 <\|im_st"),
    "far out of range": ({"added_tokens_overrides": {10**30: "<a>"}}, r"is not the id of a token"),
    "not added": ({"added_tokens_overrides": {7: "<a>"}}, r"overrides\.7 is '.*', not an added token"),
    "with a role": ({"added_tokens_overrides": {2: "<a>"}}, r"overrides\.2 is '<\|im_end\|>', the eos_token"),
    "used text": ({"added_tokens_overrides": {1: "e"}}, r"overrides\.1 'e' is already token \d+"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_tokens_are_reported_with_their_place(name: str, home: Path) -> None:
    keys, message = BAD[name]
    with pytest.raises(ConfigError, match=r"(?s)run\.yaml:\d+:\d+: .*" + message):
        loaded(tiny.sft_config(home, **keys))


def test_listing_a_token_overrides_the_misspelling_check(home: Path) -> None:
    path = tiny.sft_config(home, tokens=["<|im_ned|>"], special_tokens={"eos_token": "<|im_ned|>"})
    assert loaded(path).tokenizer.eos_token_id == 320


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("<|im_ned|>", "<|im_end|>"), ("<|IM_END|>", "<|im_end|>"), ("<|im_end>", "<|im_end|>"), ("[PAD]", "<pad>"),
        ("<|eot|>", None), ("<|end|>", None), ("</s>", None), ("<|im_sep|>", None), ("<think>", None), ("[MASK]", None),
    ],
)  # fmt: skip
def test_new_tokens_are_distinguished_from_misspellings(text: str, near: str | None) -> None:
    existing = ["<|im_end|>", "<|im_start|>", "<pad>", "<s>", "<|eot_id|>", "<|endoftext|>"]
    assert closest_token(text, dict.fromkeys(existing, 0)) == near


def test_token_that_is_lost_on_reloading_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_reload", lambda tokenizer: tiny.tokenizer())
    with pytest.raises(ConfigError, match=r"run\.yaml:\d+:\d+: .*tokens\.0 '<think>' is encoded as '<' "):
        loaded(tiny.sft_config(home, tokens=["<think>"]))


def test_token_ids_work_on_the_command_line(home: Path) -> None:
    path = tiny.sft_config(home, added_tokens_overrides={1: "<b>"})
    assert loaded(path, "added_tokens_overrides.1=<a>").tokenizer.encode("x<a>")[-1] == 1
    with pytest.raises(ConfigError, match=r"is '<\|endoftext\|>', the pad_token"):
        loaded(path, "added_tokens_overrides.0=<a>")


def test_token_keys_are_refused_with_a_given_tokenizer(home: Path) -> None:
    path = tiny.sft_config(home, **KEYS)
    with pytest.raises(ConfigError, match=r"tokens has no effect: the tokenizer was given(.|\n)*special_tokens has no"):
        start(load_config(path), tokenizer=tiny.tokenizer())


def test_prepared_data_is_reused_only_with_the_same_tokens(home: Path) -> None:
    cache = f"dataset_prepared_path={home / 'prepared'}"
    path = tiny.sft_config(home, tokens=["<think>"], special_tokens={"pad_token": "[[filler]]"})
    first, same = (prepare(tiny.start(path, cache)).data for _ in range(2))
    assert not first.cached and same.cached and first.fingerprint == same.fingerprint
    for change in ("tokens=[<a>, <think>]", "special_tokens.pad_token=<|im_end|>", "added_tokens_overrides={1: <a>}"):
        assert not prepare(tiny.start(path, cache, change)).data.cached, change
