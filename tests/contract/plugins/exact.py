"""Measure how often the greedy completion of a prompt is exactly its answer; keep rows' answers with `keep:`."""

from tunesmith import Example, Plugin, hookimpl

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
    prompts = [prompt for prompt, _ in asked]
    # policy.generate returns list[list[Completion]] once it takes requests; then this reads [c[0].tokens for c in ...].
    generated = policy.generate(prompts, seed=0, max_new_tokens=4, temperature=0.0)
    texts = [run.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in generated]
    return {"exact_match": sum(t == a for t, (_, a) in zip(texts, asked, strict=True)) / len(asked)}
