"""Rows that nearly equal an earlier row are dropped, as a comparison of all pairs would drop them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunesmith_dedup import NearDeduplication, similar
from tunesmith_dedup.near import bands
from tunesmith_dedup.texts import Splitter, texts

VOCABULARY = [f"w{n}" for n in range(3000)]


def grams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(*(words[k:] for k in range(n)), strict=False)) or {tuple(words)}


def jaccard(a: str, b: str, n: int = 5) -> float:
    return len(grams(a, n) & grams(b, n)) / len(grams(a, n) | grams(b, n))


def passage(r: random.Random, words: int = 100) -> str:
    return " ".join(r.choices(VOCABULARY, k=words))


def edited(text: str, edits: int, r: random.Random) -> str:
    words = text.split()
    for place in r.sample(range(len(words)), edits):
        words[place] = r.choice(VOCABULARY)
    return " ".join(words)


def rows(*contents: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in contents]


def near(**group: Any) -> dict[str, Any]:
    return {"dataset_near_deduplication": group or True}


def test_edited_rows_of_all_entries_are_dropped_and_others_are_kept(dedup: Any) -> None:
    r = random.Random(1)
    first = [passage(r) for _ in range(200)]
    second = [edited(text, 1, r) for text in first[:50]] + [passage(r) for _ in range(50)]
    assert min(jaccard(*pair) for pair in zip(first, second[:50], strict=False)) >= 0.8
    kept = dedup.kept({"a": rows(*first), "b": rows(*second)}, **near())
    assert kept == {"a": list(range(1, 201)), "b": list(range(51, 101))}
    note = dedup.notes["datasets[1] b: rows dropped: near duplicates"]
    assert note == "50 of 100, first: b:1 is close to a:1, b:2 is close to a:2, b:3 is close to a:3"


def test_the_dropped_rows_are_those_that_a_comparison_of_all_pairs_connects(dedup: Any) -> None:
    r = random.Random(2)
    passages = [passage(r, 60) for _ in range(40)]
    for _ in range(160):
        passages.append(edited(r.choice(passages), r.randint(0, 4), r))
    first = list(range(len(passages)))
    for a, b in combinations(range(len(passages)), 2):
        if jaccard(passages[a], passages[b]) >= 0.6:
            low, high = sorted((first[a], first[b]))
            first = [low if root == high else root for root in first]
    kept = dedup.kept({"a": rows(*passages)}, **near(threshold=0.6, permutations=256))
    assert kept["a"] == sorted(root + 1 for root in set(first))


def test_a_candidate_pair_below_the_threshold_is_kept(dedup: Any) -> None:
    r = random.Random(3)
    passages = []
    for _ in range(100):
        text = passage(r)
        passages += [text, edited(text, 4, r)]
    similarities = [jaccard(*passages[n : n + 2]) for n in range(0, 200, 2)]
    assert 0.6 < np.mean(similarities) < 0.75 and max(similarities) < 0.8
    assert len(dedup.kept({"a": rows(*passages)}, **near())["a"]) == 200


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, [1]), (0.51, [1, 2])])
def test_the_threshold_is_the_least_similarity_of_duplicates(dedup: Any, threshold: float, kept: list[int]) -> None:
    pair = rows("a b c", "c b d b b")  # {a, b, c} and {b, c, d}: 2 of 4
    assert dedup.kept({"a": pair}, **near(ngram=1, threshold=threshold))["a"] == kept


def test_rows_connected_through_other_rows_are_duplicates_of_the_earliest(dedup: Any) -> None:
    words = [f"x{n}" for n in range(100)]
    chain = [" ".join(words[k : k + 60]) for k in (0, 5, 10, 15, 20)]
    assert jaccard(chain[0], chain[1]) >= 0.8 > jaccard(chain[0], chain[2])
    assert dedup.kept({"a": rows(chain[2], chain[0], chain[4], chain[3], chain[1])}, **near())["a"] == [1]


def test_an_evaluation_row_is_kept_and_a_similar_training_row_is_dropped(dedup: Any) -> None:
    r = random.Random(4)
    text = passage(r)
    files = {"a": rows(text, passage(r)), "test": rows(edited(text, 1, r), text)}
    assert dedup.kept(files, **near()) == {"a": [2], "test": [1, 2]}


def test_letter_case_and_white_space_make_no_difference_but_punctuation_does(dedup: Any) -> None:
    r = random.Random(5)
    text = passage(r)
    assert dedup.kept({"a": rows(text, text.upper().replace(" ", " \n\t"))}, **near(threshold=1))["a"] == [1]
    sums = [f"{a} {sign} {b}" for a, sign, b in zip("1234567", "+-+-+-+", "7654321", strict=True)]
    assert len(dedup.kept({"a": rows(" ".join(sums), " ".join(s.replace("+", "*") for s in sums))}, **near())["a"]) == 2


def test_conversations_are_compared_without_speakers_and_system_messages(dedup: Any) -> None:
    r = random.Random(6)
    system = {"role": "system", "content": passage(r, 500)}
    questions = [passage(r, 50) for _ in range(4)]
    chats = [
        {"messages": [system, {"role": "user", "content": s}, {"role": "assistant", "content": s[::-1]}]}
        for s in questions
    ]
    plain = {"conversations": [{"from": "human", "value": questions[0]}, {"from": "gpt", "value": questions[0][::-1]}]}
    assert dedup.kept({"a": chats, "b": [plain, *rows("other")]}, **near()) == {"a": [1, 2, 3, 4], "b": [2]}
    assert list(texts(chats[0])) == [questions[0], questions[0][::-1]] == list(texts(plain))


def test_texts_at_any_depth_are_compared_in_order() -> None:
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    row = {"a": "one", "n": 3, "b": {"c": ["two", {"role": "user", "text": "three"}], "d": None}, "e": deep, "f": b"x"}
    assert list(texts(row)) == ["one", "two", "three", "end"]


def test_rows_without_text_are_kept_and_noted(dedup: Any) -> None:
    bare = [{"input_ids": [1, 2]}, {"input_ids": [1, 2]}, {"text": "  "}, {"text": "a b"}, {"text": "A  b"}]
    assert dedup.kept({"a": bare}, **near())["a"] == [1, 2, 3, 4]
    assert dedup.notes["near duplicates: without text, not compared"] == "3 of 5 rows"


def test_ngrams_of_characters_work_without_spaces(dedup: Any) -> None:
    r = random.Random(7)
    original = "".join(chr(r.randrange(0x4E00, 0x9F00)) for _ in range(200))
    copy = original[:100] + "的" + original[100:]
    assert dedup.kept({"a": rows(original, copy)}, **near())["a"] == [1, 2]
    assert dedup.kept({"a": rows(original, copy)}, **near(unit="characters"))["a"] == [1]


def test_the_limit_of_comparisons_among_rows_below_the_threshold_is_noted(
    dedup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "COMPARISONS", 10)
    monkeypatch.setattr("tunesmith_dedup.near.COMPARISONS", 10)
    r = random.Random(8)
    template = passage(r, 80)
    family = rows(*(f"{template} {passage(r, 20)}" for _ in range(200)))
    twin = {"text": edited(family[150]["text"], 1, r)}
    assert dedup.kept({"a": [*family, twin]}, **near())["a"] == list(range(1, 201))
    assert "near duplicates: compared with only 10 similar rows" in dedup.notes


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("permutations", [64, 128, 200])
def test_a_pair_at_the_threshold_is_a_candidate_with_a_probability_of_99_percent(
    threshold: float, permutations: int
) -> None:
    number, width = bands(threshold, permutations)
    assert number * width <= permutations
    assert 1 - (1 - threshold**width) ** number >= 0.99


def test_an_ngram_is_hashed_from_n_consecutive_words_of_one_row() -> None:
    ngrams = Splitter(2)([{"t": "a b c"}, {"t": ""}, {"t": "a"}, {"t": "b c", "u": "a b"}])
    assert ngrams.counts.tolist() == [2, 0, 1, 3]
    assert ngrams.of(0).tolist() == ngrams.of(3)[[2, 0]].tolist()
    assert len(set(ngrams.hashes.tolist())) == 4
    assert Splitter(2, short=False)([{"t": "a"}]).counts.tolist() == [0]


def test_signatures_are_the_same_in_every_process(dedup: Any) -> None:
    code = (
        "import random, sys; from tunesmith import Row\n"
        "from tunesmith_dedup import NearDeduplication as N; from tunesmith_dedup.near import _signatures\n"
        "from tunesmith_dedup.texts import Splitter; r = random.Random(0)\n"
        "rows = [{'t': ' '.join(r.choices('abcdefgh', k=50))} for _ in range(50)]\n"
        "print(_signatures(Splitter(5)(rows), N()).tobytes().hex())"
    )
    outputs = set()
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": str(1 + int(seed))}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, timeout=60)
        outputs.add(done.stdout)
    assert len(outputs) == 1 and NearDeduplication().permutations == 128


values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.text(max_size=2), values, max_size=3), min_size=1, max_size=8),
    st.sampled_from(["words", "characters"]),
    st.integers(1, 4),
)
def test_any_row_is_accepted_and_the_first_is_always_kept(
    dedup: Any, records: list[dict[str, Any]], unit: str, n: int
) -> None:
    keys = {"dataset_exact_deduplication": True, **near(unit=unit, ngram=n, threshold=0.5)}
    kept = dedup.kept({"a": records, "b": [*records, {"of": "its own"}]}, **keys)
    assert kept["a"][0] == 1 and kept["b"][-1] == len(records) + 1


def test_rows_of_one_bucket_are_connected_through_other_rows() -> None:
    ngrams = [np.array(hashes, np.uint64) for hashes in ([1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [7])]
    candidates = similar.SimilarRows(np.array([10, 20, 30, 40, 50]), ngrams, 0.5)
    candidates.connect([np.array([10, 20, 30, 40, 50])])
    rows, twins = candidates.repeated()
    assert (rows.tolist(), twins.tolist()) == ([20, 30, 40], [10, 10, 10])
