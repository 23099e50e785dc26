"""The reward `llm_judge`: the rating of each completion by a language model, from 0 to 1."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tunesmith import EnvironmentProblem
from tunesmith.completions import Completion, column_of, text_of
from tunesmith_judge.prompt import RUBRIC, TEMPLATE, check_template, conversation_text, filled, rating
from tunesmith_judge.server import Server, ServerFailed


def llm_judge(
    prompts: Sequence[Completion],
    completions: Sequence[Completion],
    *,
    url: str,
    model: str,
    rubric: str = RUBRIC,
    template: str | None = None,
    template_file: str | None = None,
    column: str | None = None,
    scale: float = 10.0,
    api_key_env: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 1024,
    concurrency: int = 8,
    timeout: float = 30.0,
    retries: int = 3,
    **columns: Any,
) -> list[float | None]:
    """Return the rating of each completion, from 0.0 to 1.0; None where the server gives none.

    Args:
        prompts, completions: texts, or conversations.
        url: the address of the API, such as http://localhost:8000/v1.
        model: the name of the model on the server.
        rubric: what to rate, for the default template.
        template: the request, with {prompt}, {completion}, {answer}, {rubric} and {scale}.
        template_file: a file with the template; a relative path begins in the working folder of the command.
        column: the column with a reference answer for {answer}. Rows without it abstain.
        scale: the best rating; the worst is 0.
        api_key_env: the name of the environment variable with the key of the API.
        temperature, max_tokens: how the judge answers.
        concurrency: requests at the same time.
        timeout: seconds for a request.
        retries: how often a request that failed is repeated.

    Raises ValueError for options that make no sense, EnvironmentProblem if the server refuses the request, or answers
    none of them.
    """
    if not scale > 0 or concurrency < 1 or not timeout > 0 or retries < 0 or max_tokens < 1:
        raise ValueError("scale, concurrency, timeout and max_tokens must be positive, and retries at least 0")
    text = _template(template, template_file)
    check_template(text, column, rubric)
    server = Server(url, _key(api_key_env), timeout, retries)
    options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
    answers = column_of(columns, column, completions) if column else [""] * len(completions)
    requests = [
        None if answer is None else _request(text, prompt, completion, answer, rubric, scale)
        for prompt, completion, answer in zip(prompts, completions, answers, strict=True)
    ]
    with ThreadPoolExecutor(concurrency) as pool:  # equal completions of a group are rated once
        unique = dict.fromkeys(request for request in requests if request is not None)
        replies = dict(zip(unique, pool.map(lambda request: _asked(server, request, options), unique), strict=True))
    ratings = {request: rating(reply, scale) for request, reply in replies.items() if isinstance(reply, str)}
    _report(list(replies.values()), list(ratings.values()), server)
    return [None if request is None else ratings.get(request) for request in requests]


def _request(template: str, prompt: Completion, completion: Completion, answer: Any, rubric: str, scale: float) -> str:
    return filled(
        template,
        prompt=conversation_text(prompt),
        completion=text_of(completion),
        answer=str(answer),
        rubric=rubric.strip(),
        scale=f"{scale:g}",
    )


def _asked(server: Server, request: str, options: dict[str, Any]) -> str | ServerFailed:
    try:
        return server.reply(request, options)
    except ServerFailed as error:
        return error


def _report(replies: Sequence[str | ServerFailed], ratings: Sequence[float | None], server: Server) -> None:
    """Warn about requests without a rating. Raise EnvironmentProblem if no request was answered."""
    failures = [reply for reply in replies if isinstance(reply, ServerFailed)]
    if failures and len(failures) == len(replies):
        help = "start the server, or correct url and model of the reward llm_judge"
        raise EnvironmentProblem(f"{server} rated no completion: {failures[0]}", help=help)
    if failures:
        warnings.warn(f"llm_judge: {len(failures)} of {len(replies)} requests failed: {failures[0]}", stacklevel=3)
    if unread := sum(value is None for value in ratings):
        message = f"llm_judge: {unread} of {len(replies)} replies do not end with a line such as 'Score: 7'"
        warnings.warn(f"{message}; their completions have no score", stacklevel=3)


def _template(template: str | None, template_file: str | None) -> str:
    if template is not None and template_file is not None:
        raise ValueError("template and template_file are both set: drop one of them")
    if template_file is None:
        return TEMPLATE if template is None else template
    try:
        return Path(template_file).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"template_file: {template_file} can't be read: {error}") from error


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        # A key that was written here instead of a name must not be printed.
        shown = name if name.isupper() and len(name) < 40 else "that api_key_env names"
        message = f"the environment variable {shown} is not set"
        raise EnvironmentProblem(message, help="export it, or drop api_key_env if the server needs no key")
    if not key.isascii() or not key.isprintable():  # http.client would print it
        message = f"the key in the environment variable {name} has characters that a header can't have, or two lines"
        raise EnvironmentProblem(message, help="copy the key again")
    return key
