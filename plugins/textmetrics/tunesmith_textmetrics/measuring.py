"""Generate the answers of held-out examples, and compute the metrics of a run."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tunesmith import DataError, Example, PluginError, Policy, Request, Run, Sampling, template_variables, turn_ends
from tunesmith.engine import engine
from tunesmith_textmetrics import TextMetricSettings
from tunesmith_textmetrics.checks import correct_source, ks
from tunesmith_textmetrics.overlap import alternatives, matches, pass_at_k, rouge_l, rouge_n

RIGHT = 0.5
"""A score above it is right."""


@dataclass(frozen=True)
class Question:
    """A held-out example as a question: the tokens of its prompt, its references, and the kept columns of its row."""

    prompt: list[int]
    references: list[str]
    columns: dict[str, Any]


def measure(run: Run, policy: Policy, examples: Sequence[Example]) -> dict[str, float]:
    """Return the metrics that the run names. Call it on all processes; they share the work."""
    settings = run.settings(TextMetricSettings)
    names = settings.generation_metrics or []
    questions = questions_of(run, examples)
    values: dict[str, float] = {}
    if own := [name for name in names if not name.startswith("pass@")]:
        texts = [answers[0] for answers in generate(run, policy, questions, 1, Sampling(0.0))]
        values |= {name: _compared(name, texts, questions, settings) for name in own}
    if pass_ks := ks(run):
        samples = settings.generation_metrics_samples or 2 * max(pass_ks)
        sampling = Sampling(settings.generation_metrics_temperature)
        correct = count_correct(run, questions, generate(run, policy, questions, samples, sampling))
        for k in pass_ks:
            values[f"pass@{k}"] = fmean(pass_at_k(samples, number, k) for number in correct)
    run.progress("")
    return values


def questions_of(run: Run, examples: Sequence[Example]) -> list[Question]:
    """Return the examples that have a prompt and a reference, the first ones. Raises DataError if none has."""
    settings = run.settings(TextMetricSettings)
    questions: list[Question] = []
    for example in examples:
        if len(questions) == settings.generation_metrics_rows:
            break
        prompt, references = example.prompt, references_of(run, example)
        if prompt and references:
            questions.append(Question(prompt, references, dict(example.fields)))
    if not questions:
        where = run.config.place("generation_metrics")
        message = f"none of {len(examples):,} held-out examples has a prompt and an answer"
        raise DataError(message, where=where, help="hold out rows with answers, or drop generation_metrics")
    return questions


def references_of(run: Run, example: Example) -> list[str]:
    """Return the references of an example: its column, or the text of its answer; none for an answer that is bad."""
    column = run.settings(TextMetricSettings).generation_metrics_answer
    if column is not None:
        return alternatives(example.fields.get(column))
    if len(example.segments) < 2 or not example.columns.get("label", 1):
        return []
    answer = example.segments[1]  # of a pair, the chosen one
    trained = np.flatnonzero(answer.weights)
    if not len(trained):
        return []
    gaps = np.flatnonzero(np.diff(trained) > 1)  # a conversation has several answers; the first follows the prompt
    last = trained[gaps[0]] if len(gaps) else trained[-1]
    tokens = answer.tokens[trained[0] : last + 1].tolist()
    return [str(run.tokenizer.decode(tokens, skip_special_tokens=True)).strip()]


def generate(run: Run, policy: Policy, questions: Sequence[Question], n: int, sampling: Sampling) -> list[list[str]]:
    """Return n answers for each question. The processes share the questions."""
    longest, most = run.settings(TextMetricSettings).generation_metrics_max_new_tokens, policy.language_model.positions
    stop = turn_ends(run.tokenizer, template_variables(run))
    requests = []
    for number, question in enumerate(questions):
        # A prompt near the end of the table of positions leaves less room; without any, one token is generated.
        prompt = question.prompt if most is None else question.prompt[-(most - 1) :]
        limit = longest if most is None else min(longest, most - len(prompt))
        requests.append(Request(prompt, limit, n, sampling, stop, (run.core.seed, number)))
    data = run.world.data
    run.progress("generating answers", 0, len(requests))
    own = policy.generate(requests[data.rank :: data.size])
    texts = [[_text(run, one.tokens.tolist()) for one in completions] for completions in own]
    answers: list[list[str]] = [[] for _ in requests]
    for rank, share in enumerate(run.world.gather(texts, axis="data")):
        answers[rank :: data.size] = share
    return answers


def _text(run: Run, tokens: list[int]) -> str:
    return str(run.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _compared(name: str, texts: Sequence[str], questions: Sequence[Question], settings: TextMetricSettings) -> float:
    """Return the metric of a name over all answers. BLEU and chrF are from 0 to 100, the others from 0 to 1."""
    pairs = list(zip(texts, (question.references for question in questions), strict=True))
    if name in ("bleu", "chrf"):
        import sacrebleu

        most = max(len(references) for _, references in pairs)
        # sacrebleu reads None where a text has fewer references than another one.
        streams = [[own[i] if i < len(own) else None for _, own in pairs] for i in range(most)]
        compute: Callable[..., Any] = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
        return float(compute(list(texts), streams).score)
    if name == "exact_match":
        pattern = _pattern(settings)
        normalize = settings.generation_metrics_normalize
        return fmean(matches(text, references, pattern, normalize) for text, references in pairs)
    rouge = {
        "rouge_1": lambda text, reference: rouge_n(text, reference, 1),
        "rouge_2": lambda text, reference: rouge_n(text, reference, 2),
        "rouge_l": rouge_l,
    }[name]
    return fmean(max(rouge(text, reference) for reference in references) for text, references in pairs)


def _pattern(settings: TextMetricSettings) -> re.Pattern[str] | None:
    extract = settings.generation_metrics_extract
    return None if extract is None else re.compile(extract)


def count_correct(run: Run, questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> list[int]:
    """Return the number of right answers to each question: by exact match, or by the function that the run names."""
    settings = run.settings(TextMetricSettings)
    if settings.generation_metrics_correct is None:
        pattern, normalize = _pattern(settings), settings.generation_metrics_normalize
        return [
            sum(matches(text, question.references, pattern, normalize) for text in own)
            for question, own in zip(questions, answers, strict=True)
        ]
    scores = iter(_scores(run, questions, answers))
    return [sum((next(scores) or 0.0) > RIGHT for _ in own) for own in answers]


def _scores(run: Run, questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> list[float | None]:
    """Call the function that decides, as rewards are called: with lists over all answers, by name.

    Raises PluginError if it fails, or if it does not return one number per answer.
    """
    source = correct_source(run)
    function = _function(source)
    signature, results = engine("rewards.signature"), engine("rewards.scores")
    options = dict(source.reward.options)
    flat = [(question, text) for question, own in zip(questions, answers, strict=True) for text in own]
    columns = {name for question in questions for name in question.columns}
    given: dict[str, Any] = {name: [question.columns.get(name) for question, _ in flat] for name in columns}
    given |= {
        "prompts": [str(run.tokenizer.decode(question.prompt, skip_special_tokens=True)) for question, _ in flat],
        "completions": [text for _, text in flat],
        "step": run.step,
    }
    known = signature.describe(function)
    if missing := signature.missing(known, columns, options):
        message = f"{source.reward.name} needs {missing[0]}, which is neither a kept column nor an option"
        raise run.config.error("generation_metrics_correct", message, f"write keep: [{missing[0]}] in the entry")
    taken = given if known["any"] else {name: value for name, value in given.items() if name in known["names"]}
    try:
        scores: list[float | None] = results.plain(function(**(taken | options)), len(flat))
    except Exception as error:  # a function of the user
        message = f"{source.reward.name} failed: {type(error).__name__}: {error}"
        raise PluginError(message, where=run.config.place("generation_metrics_correct")) from error
    if abstained := sum(score is None for score in scores):
        run.note("pass@k", f"{abstained:,} of {len(scores):,} answers have no score, and count as wrong")
    return scores


def _function(source: Any) -> Callable[..., Any]:
    """Import the function of a reward: that of a plugin, or of the file that the YAML names."""
    if source.offer is not None:
        return source.offer.load()  # type: ignore[no-any-return]
    spec = importlib.util.spec_from_file_location(f"tunesmith_correct_{source.file.stem}", source.file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, source.function)  # type: ignore[no-any-return]
