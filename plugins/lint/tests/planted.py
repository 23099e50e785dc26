"""Data with one planted fault for each rule, and good data without any."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

from tests import tiny

Rows = list[dict[str, Any]]
METHOD = """
from tunesmith import Method, Plugin, hookimpl
plugin = Plugin(answers={{"rl": ("{kind}_method",)}}, method=Method(rows=("{kind}",)))
@hookimpl
def compute_loss(run, out, batch):
    return {{}}
"""
MARKS_EARLIER_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}{{ ' before' if loop.index0 < messages | length - 2 }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Planted(NamedTuple):
    """Good and bad rows, and the settings that they are loaded with.

    type, kind: the `type:` of the entry and the row kind of the method. entry, keys: further keys of the entry and of
    the run. tests: the rows of test_datasets.
    """

    good: Rows
    bad: Rows
    type: str = "chat_template"
    kind: str = "conversation"
    entry: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    tests: Rows = []


def chat(*turns: str, roles: tuple[str, ...] = ("user", "assistant")) -> dict[str, Any]:
    return {"messages": [{"role": roles[i % len(roles)], "content": turn} for i, turn in enumerate(turns)]}


def sentences(number: int, seed: int = 0) -> list[str]:
    r = random.Random(seed)
    return [f"{i} {tiny.sentence(r, 5, 9)}" for i in range(number)]


CHATS = [chat(p, c) for p, c in zip(sentences(8), sentences(8, 1), strict=True)]
SYSTEMS = [chat("Be kind.", p, c, roles=("system", "user", "assistant"))
           for p, c in zip(sentences(4, 2), sentences(4, 3), strict=True)]  # fmt: skip
PAIRS = [{"prompt": p, "chosen": c, "rejected": r}
         for p, c, r in zip(sentences(8), sentences(8, 1), sentences(8, 2), strict=True)]  # fmt: skip
LABELLED = [{"prompt": p, "completion": c, "label": i % 2 == 0}
            for i, (p, c) in enumerate(zip(sentences(8), sentences(8, 1), strict=True))]  # fmt: skip
TEXTS = [{"text": text} for text in sentences(8)]
ALPACA = [{"instruction": p, "output": o} for p, o in zip(sentences(8), sentences(8, 1), strict=True)]
STEPS = [{"prompt": p, "completions": [a, b], "labels": [True, False]}
         for p, a, b in zip(sentences(8), sentences(8, 1), sentences(8, 2), strict=True)]  # fmt: skip
SEGMENTS = [{"segments": [{"label": False, "text": p}, {"label": True, "text": f"{o}<|im_end|>"}]}
            for p, o in zip(sentences(8), sentences(8, 1), strict=True)]  # fmt: skip
LONG = " ".join(sentences(20, 5))

GOOD = {
    "conversations": Planted(CHATS, []),
    "conversations with a system": Planted(SYSTEMS, []),
    "pairs": Planted(PAIRS, [], "passthrough.default", "pair"),
    "labelled answers": Planted(LABELLED, [], "chat_template", "labelled"),
    "texts": Planted(TEXTS, [], "completion"),
    "instructions": Planted(ALPACA, [], "alpaca", keys={"sequence_len": 512}),
    "steps": Planted(STEPS, [], "stepwise_supervised", "stepwise"),
    "prompts": Planted([{"messages": row["messages"][:1]} for row in CHATS], [], "chat_template", "prompt"),
    "segments": Planted(SEGMENTS, [], "input_output"),
    "with a held-out split": Planted(CHATS, [], keys={"val_set_size": 0.25}),
    "with evaluation rows": Planted(CHATS[:5], [], tests=CHATS[5:]),
}

BAD = {
    "row": Planted(CHATS, [{"messages": "Hello"}]),
    "template-unstable": Planted(CHATS, [chat("One?", "Two.", "Three?", "Four.")],
                                 entry={"chat_template": "jinja", "chat_template_jinja": MARKS_EARLIER_TURNS}),
    "no-rows": Planted([], []),
    "nothing-trained": Planted(SYSTEMS, [chat("Why?", "So.")], entry={"roles_to_train": ["system"]}),
    "end-never-trained": Planted([], CHATS, entry={"train_on_eos": "none"}),
    "end-sometimes-untrained": Planted(SEGMENTS, [{"segments": [{"label": False, "text": "Why?"},
                                                                {"label": True, "text": " So."}]}], "input_output"),
    "double-bos": Planted([], [{"text": f"<|im_start|><|im_start|>{text}"} for text in sentences(8)], "completion",
                          keys={"special_tokens": {"bos_token": "<|im_start|>"}}),
    "too-long": Planted(CHATS, [chat(LONG, "Yes.")]),
    "answer-lost": Planted(CHATS, [chat(LONG, "Yes.")], keys={"excess_length_strategy": "truncate"}),
    "answer-cut": Planted(CHATS, [chat("Why?", LONG)], keys={"excess_length_strategy": "truncate"}),
    "chosen-is-rejected": Planted(PAIRS, [{"prompt": "Why?", "chosen": "So.", "rejected": "So."}],
                                  "passthrough.default", "pair"),
    "empty-answer": Planted(ALPACA, [{"instruction": "Why?", "output": " \n"}], "alpaca",
                            keys={"sequence_len": 512}),
    "not-read": Planted(CHATS, [{**chat("One?", "Two."), "history": [["a", "b"]]}]),
    "answers-in-a-row": Planted(CHATS, [chat("One?", "Two.", "Three.", roles=("user", "assistant", "assistant"))]),
    "begins-with-answer": Planted(CHATS, [chat("Hello!", "One?", "Two.", roles=("assistant", "user"))]),
    "ends-unanswered": Planted(CHATS, [chat("One?", "Two.", "Three?")]),
    "tool-without-call": Planted(CHATS, [chat("One?", "1", "Two.", roles=("user", "tool", "assistant"))]),
    "empty-turn": Planted(CHATS, [chat("One?", "Two.", "Three?", "", "Five?", "Six.")]),
    "special-in-text": Planted(CHATS, [chat("Why?<|im_end|>\n<|im_start|>user\nAnd how?", "So.")]),
    "replacement-character": Planted(CHATS, [chat("Where?", "In a caf\ufffd.")]),
    "one-label": Planted([], [row | {"label": True} for row in LABELLED], "chat_template", "labelled"),
    "length-bias": Planted([], [row | {"chosen": f"{row['chosen']} {LONG}"[:200]} for row in PAIRS],
                           "passthrough.default", "pair", keys={"sequence_len": 512}),
    "duplicate": Planted(CHATS, CHATS[:2]),
    "evaluated-on-trained": Planted(CHATS, [], tests=[*CHATS[:1], chat("Who?", "I.")]),
    "evaluated-prompt-trained": Planted(CHATS, [], tests=[chat(CHATS[0]["messages"][0]["content"], "Who knows?")]),
}  # fmt: skip


def config(folder: Path, model: Path, planted: Planted) -> Path:
    """Write the rows, good ones first, and the YAML of a run that trains on them. Return the path of the YAML."""
    keys: dict[str, Any] = {}
    if planted.kind != "conversation":
        (folder / "method.py").write_text(METHOD.format(kind=planted.kind))
        keys |= {"plugins": ["./method.py"], "rl": f"{planted.kind}_method"}
    tiny.write_rows(folder / "data.jsonl", [*planted.good, *planted.bad])
    keys["datasets"] = [{"path": str(folder / "data.jsonl"), "type": planted.type, **planted.entry}]
    if planted.tests:
        tiny.write_rows(folder / "tests.jsonl", planted.tests)
        keys["test_datasets"] = [{"path": str(folder / "tests.jsonl"), "type": planted.type, **planted.entry}]
    return tiny.write_config(folder, base_model=str(model), **keys | planted.keys)
