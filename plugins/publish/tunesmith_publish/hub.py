"""Send an upload to the hub, through huggingface_hub."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tunesmith import EnvironmentProblem
from tunesmith.redact import redact
from tunesmith_publish.files import Upload

TRIES = 4
"""Attempts at a request that the hub answers with an error of its own, or not at all."""
TRANSPORT = "TransportError"
"""The class of errors of httpx for requests without an answer."""
PAUSE = 2.0
"""Seconds before the second attempt; each further pause is twice as long."""


def send(
    upload: Upload, repo: str, message: str, private: bool | None = None, revision: str | None = None,
    pause: Callable[[float], Any] = time.sleep,
) -> str:  # fmt: skip
    """Create a repository if it does not exist, add the files in one commit, and return the address of the model.

    Args:
        upload: the files.
        repo: NAME or OWNER/NAME.
        message: the message of the commit.
        private: create a private repository; None for what the account sets.
        revision: the branch, which is created if it does not exist.
        pause: waits for a number of seconds.

    Raises EnvironmentProblem if the hub refuses it, or can't be reached. The token is that of huggingface_hub.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()

    def push() -> str:
        address = api.create_repo(repo, private=private, exist_ok=True)
        if revision:
            api.create_branch(address.repo_id, branch=revision, exist_ok=True)
        operations = [
            CommitOperationAdd(
                path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for name, content in upload.files.items()
        ]  # created for each attempt: they keep what was uploaded
        api.create_commit(address.repo_id, operations=operations, commit_message=message, revision=revision)
        return str(address)

    for attempt in range(1, TRIES + 1):
        try:
            return push()
        except Exception as error:  # of the network, the hub or its client, which have many kinds
            if attempt == TRIES or not temporary(error):
                raise problem(error, repo) from error
            pause(PAUSE * 2 ** (attempt - 1))
    raise AssertionError  # the last attempt returns or raises


def temporary(error: Exception) -> bool:
    """Return True for an error that may be gone after a while: too many requests, an error of the server, no answer."""
    status = status_of(error)
    if status is not None:
        return status == 429 or status >= 500
    # huggingface_hub sends requests with a library that depends on its version; httpx and httpx2 have the same classes.
    return isinstance(error, OSError) or any(cls.__name__ == TRANSPORT for cls in type(error).__mro__)


def status_of(error: Exception) -> int | None:
    """Return the status of the hub's answer, if there was one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def problem(error: Exception, repo: str) -> EnvironmentProblem:
    """Return the error for people, without secrets."""
    status = status_of(error)
    detail = redact(" ".join(str(error).split())[:300]) or type(error).__name__
    help = "try again: tunesmith push"
    if status in (401, 403):
        help = "set HF_TOKEN to a token that may write, or log in: hf auth login"
    elif status is None and not temporary(error):
        help = "check the name of the repository, and the installed version of huggingface_hub"
    answer = f" ({status})" if status else ""
    return EnvironmentProblem(f"upload to {repo} failed{answer}: {detail}", code="push", help=help)


def base_license(base: str | None) -> str | None:
    """Return the license that the card of a base model on the hub names; None if that can't be found out."""
    from huggingface_hub import HfApi

    if not base:
        return None
    try:
        data = HfApi().model_info(base, timeout=10).card_data
    except Exception:  # the license is an extra line of the card, and the upload has its own errors
        return None
    value = data.get("license") if data else None
    return value if isinstance(value, str) else None
