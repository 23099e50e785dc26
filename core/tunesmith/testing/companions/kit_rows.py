"""Build examples from the kit's rows of every kind, without a template."""

from tunesmith import Example, Plugin, hookimpl, segment

KINDS = ("text", "conversation", "pair", "labelled", "prompt", "stepwise", "scored")
plugin = Plugin(strategies={kind: (f"kit_{kind}",) for kind in KINDS})


@hookimpl
def build_dataset(run, spec, rows):
    def ids(text):
        return run.tokenizer(text, add_special_tokens=False).input_ids

    end = [run.tokenizer.eos_token_id]
    for row in rows:
        kind = spec.row_kind
        if kind == "text":
            yield Example.text(ids(row.require("text")) + end)
        elif kind == "conversation":
            yield _conversation(ids, end, row.require("messages", list))
        elif kind == "pair":
            answers = [ids(" " + row.require(name)) + end for name in ("chosen", "rejected")]
            yield Example.branches(ids(row.require("prompt")), answers)
        elif kind in ("labelled", "scored"):
            name, type_ = ("label", bool) if kind == "labelled" else ("score", float)
            answer = ids(" " + row.require("completion")) + end
            example = Example.branches(ids(row.require("prompt")), [answer])
            example.columns[name] = float(row.require(name, type_))
            yield example
        elif kind == "prompt":
            yield Example.branches(ids(row.require("prompt")), [])
        else:
            yield _stepwise(ids, row)


def _conversation(ids, end, messages):
    tokens, weights = [], []
    for message in messages:
        new = ids(message["content"]) + end
        tokens += new
        weights += [float(message["role"] == "assistant")] * len(new)
    return Example.text(tokens, weights)


def _stepwise(ids, row):
    """Return a solution that is scored at the last token of each step, with the token columns that methods read."""
    import numpy as np

    prompt, tokens, score_at, label = ids(row.require("prompt")), [], [], []
    for step, right in zip(row.require("completions", list), row.require("labels", list), strict=True):
        new = ids("\n" + step)
        tokens += new
        score_at += [0.0] * (len(new) - 1) + [1.0]
        label += [0.0] * (len(new) - 1) + [float(right)]
    columns = {"score_at": np.array(score_at, np.float32), "label": np.array(label, np.float32)}
    return Example([segment(prompt), segment(tokens, score_at, fork=len(prompt), **columns)])
