"""Measure how often the greedy completion of a prompt is exactly its answer; keep rows' answers with `keep:`."""

from tunesmith import Example, Plugin, Request, Sampling, hookimpl

plugin = Plugin(strategies={"text": ("asked",)}, metrics=("exact_match",))
QUESTIONS = {"the cat": " sees"}


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        prompt, answer = (run.tokenizer(row.require(k)).input_ids for k in ("prompt", "answer"))
        yield Example.branches(prompt, [[*answer, run.tokenizer.eos_token_id]])


@hookimpl
def evaluate(run, policy, examples):
    asked = [(e.prompt, e.fields["answer"]) for e in examples]
    asked = asked or [(run.tokenizer(prompt).input_ids, answer) for prompt, answer in QUESTIONS.items()]
    requests = [Request(prompt, 4, sampling=Sampling(temperature=0.0)) for prompt, _ in asked]
    texts = [run.tokenizer.decode(c.tokens, skip_special_tokens=True) for [c] in policy.generate(requests)]
    return {"exact_match": sum(t == a for t, (_, a) in zip(texts, asked, strict=True)) / len(asked)}
