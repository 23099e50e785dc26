"""Score the completions of groups with the rewards that a method names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import errors
from tunesmith.completions import has_column
from tunesmith.errors import ConfigError, DataError, PluginError, Problem, TunesmithError
from tunesmith.plugins.rewards import GIVEN, RewardSource, resolve
from tunesmith.plugins.rollout import Reward, Rollout
from tunesmith.run import Run
from tunesmith.spelling import nearest
from tunesmith_engine.rewards.pool import Function, Pool, Share, ShareFailed
from tunesmith_engine.rewards.signature import missing
from tunesmith_engine.rewards.worker import Failed, in_words
from tunesmith_engine.rounds.arguments import columns_of
from tunesmith_engine.rounds.groups import Group
from tunesmith_engine.runtime.rng import random_state, set_random_state

Rows = Sequence[Mapping[str, Any]]
"""The columns of rows, by name."""

Scores = list[list[float | None]]
"""For each group, one score per completion, or None where the reward does not apply."""


class Rewards:
    """The rewards of a run, and the processes that call those that are functions: `run.owned(Rewards)`.

    Processes that differ only in how they share a model score the same groups; the first of them calls the functions.

    seconds, printed: of each reward's last call in this process, by label; what it printed, or the end of that.
    """

    def __init__(self, run: Run):
        assert run.rollout is not None
        self.run, self.spec = run, run.rollout
        self.sources = [resolve(run, reward) for reward in self.spec.scored]
        self.functions = [source for source in self.sources if not source.by_hook]
        self.signatures: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.printed: dict[str, str] = {}
        self.pool: Pool | None = None
        self.ranks: list[int] = run.world.gather(run.world.data.rank)
        self.calls = self.ranks.index(run.world.data.rank) == run.world.rank
        if self.functions and self.calls:
            functions = [Function(s.module, s.file, s.function, dict(s.reward.options)) for s in self.functions]
            self.pool = Pool(functions, run.config.base, self.spec.reward_workers)

    def ready(self) -> None:
        """Wait until the functions are imported. Raises ConfigError for wrong options, on all processes."""
        if self.functions and not self.signatures:
            self.signatures = self._everywhere(self._imported)[0]

    def _imported(self) -> list[dict[str, Any]]:
        assert self.pool is not None
        signatures, problems, error = [], list[Problem](), self.run.config.error
        data, rows = self.run.data, None  # a stream, or the rollout of an environment, may have any columns
        if data is not None and data.train is not None and not self.run.hooks.has("rollout"):
            rows = data.train.fields or ()
        columns = {name for row in rows or () for name in row}
        for number, source in enumerate(self.functions):
            reward = source.reward
            try:
                answer = self.pool.imported(number)
            except Failed as failed:
                if own := _own(failed, self.run.config.place(reward.key) if source.offer else None):
                    raise own from failed
                late = "its process did not answer in time" if failed.timed_out else str(failed)
                message, where = f"reward {reward.name!r} can't be imported: {late}", failed.where
                raise PluginError(message, where=where, help=in_words(failed), code="plugin-import") from failed
            for message, help in answer["problems"]:
                problems += error(reward.key, f"{reward.label} {message}", help).problems
            signatures.append(signature := answer["signature"])
            if rows is not None:
                problems += self.lacking(source, signature, columns) + self.misread(source, signature, rows)
        if problems:
            raise ConfigError(problems)
        return signatures

    def lacking(self, source: RewardSource, signature: Mapping[str, Any], columns: set[str]) -> list[Problem]:
        """Return a problem for each argument that a function needs, and that is neither a column nor an option."""
        problems = []
        for name in missing(signature, columns, source.reward.options):
            message = f"{source.reward.label} needs {name!r}, which is neither a column of the rows nor an option"
            help = f"columns: {', '.join(sorted(columns)) or 'none besides the prompt'}"
            if name in ("trainer_state", "log_extra", "log_metric"):
                help = "it is not passed: give the parameter a default; `step` is the number of the step"
            problems += self.run.config.error(source.reward.key, message, help).problems
        return problems

    def misread(self, source: RewardSource, signature: Mapping[str, Any], rows: Rows) -> list[Problem]:
        """Return a problem if the option `column` of a plugin's function names a column that no row has."""
        reward, column = source.reward, source.reward.options.get("column", signature["column"])
        if source.offer is None or not isinstance(column, str) or column in GIVEN:
            return []
        if any(has_column(row, column) for row in rows):
            return []
        columns = sorted({name for row in rows for name in row})
        close = nearest(column, columns)
        help = f"did you mean {close!r}?" if close else f"columns: {', '.join(columns) or 'none'}"
        message = f"{reward.label} reads the column {column!r}, which no row has, so it would score nothing"
        return list(self.run.config.error(reward.key, message, f"{help}; write column: NAME").problems)

    def _everywhere(self, action: Callable[[], Any]) -> list[Any]:
        """Return what the processes that call functions return from an action. Raises the error of the first of them.

        If only one process raised it, the others would wait for that one.
        """
        outcome: Any = None
        if self.calls:
            try:
                outcome = action()
            except TunesmithError as error:
                outcome = error
        outcomes = self.run.world.gather(outcome)
        firsts = [outcomes[self.ranks.index(rank)] for rank in sorted(set(self.ranks))]
        for one in firsts:
            if isinstance(one, TunesmithError):
                raise one
        return firsts

    def score(self, source: RewardSource, groups: Sequence[Group], seed: Sequence[int]) -> Scores:
        """Return the scores of a reward. A function scores this process's share, and the scores are exchanged."""
        label, started = source.reward.label, time.perf_counter()
        if source.by_hook:
            scores = by_hook(self.run, source.reward, groups)
            self.seconds[label] = time.perf_counter() - started
            return scores
        self.ready()
        data = self.run.world.data
        shares = self._everywhere(lambda: self._call(source, groups[data.rank :: data.size], seed))
        return [shares[i % data.size][i // data.size] for i in range(len(groups))]

    def _call(self, source: RewardSource, groups: Sequence[Group], seed: Sequence[int]) -> Scores:
        """Return the scores of a reward function, called in the worker processes with whole groups each."""
        assert self.pool is not None
        number, reward = self.functions.index(source), source.reward
        parts = [part for part in _divided(groups, len(self.pool.workers)) if part]
        signature = self.signatures[number]
        columns = {name for group in groups for name in group.prompt.fields}
        if groups and (problems := self.lacking(source, signature, columns)):
            raise ConfigError(problems)
        identity = [*seed, reward.label, self.run.world.data.rank]
        shares = [
            Share(sum(len(g.completions) for g in part), *columns_of(self.run, part, signature), _seed([*identity, i]))
            for i, part in enumerate(parts)
        ]
        try:
            answers = self.pool.call(number, shares, self.spec.reward_timeout)
        except ShareFailed as error:
            raise self._failure(reward, parts[error.share], error.failed) from error
        self.seconds[reward.label] = max((answer.seconds for answer in answers), default=0.0)
        self.printed[reward.label] = "\n".join(answer.printed for answer in answers if answer.printed)
        if warnings := list(dict.fromkeys(text for answer in answers for text in answer.warnings)):
            self.run.warn(reward.key, f"{reward.label}: {'; '.join(warnings)}")
        if self.pool.printed():
            self.run.note("output of rewards", "is not shown; tunesmith rewards test shows it")
        scores = iter([score for answer in answers for score in answer.scores])
        return [[next(scores) for _ in group.completions] for group in groups]

    def _failure(self, reward: Reward, groups: Sequence[Group], failed: Failed) -> TunesmithError:
        """Return the error for a call that failed, with the row and the line as far as they are known."""
        where = failed.where or self.run.config.place(reward.key)
        if failed.timed_out:
            message = f"reward {reward.label!r} did not return within {self.spec.reward_timeout:g} s"
            failed.help = "limit the time of what it waits for, score in more processes (reward_num_workers), or raise "
            failed.help += "reward_timeout"
            return PluginError(message, where=where, help=in_words(failed), code="reward-timeout")
        if own := _own(failed):
            return own
        row = ""
        if failed.index is not None:
            places = [(group, k) for group in groups for k in range(len(group.completions))]
            row = f" on {place_of(*places[failed.index])}"
        message = f"reward {reward.label!r} failed{row}: {failed}"
        return PluginError(message, where=where, help=in_words(failed), code="reward-failed")

    def close(self) -> None:
        """End the worker processes."""
        if self.pool is not None:
            self.pool.close()


def score(run: Run, spec: Rollout, groups: Sequence[Group], seed: Sequence[int] = ()) -> None:
    """Set `rewards` and `reward` of each group. Raises PluginError for a reward that fails or returns something else.

    Call it on all processes with the same groups and seed, from which functions draw random numbers. A reward function
    scores this process's share of the groups; a plugin's score_rewards gets all of them, because a model may need every
    process.
    """
    rewards = run.owned(Rewards)
    for source in rewards.sources:
        name = source.reward.label
        scores = rewards.score(source, groups, seed)
        for group, values in zip(groups, scores, strict=True):
            group.rewards[name] = np.array([np.nan if v is None else float(v) for v in values])
    for group in groups:
        group.reward = weighted_sum(spec, group)


def by_hook(run: Run, reward: Reward, groups: Sequence[Group]) -> Scores:
    """Return the scores of a plugin's score_rewards, which leaves the random numbers of training as they are."""
    state = random_state()
    try:
        scores: Any = run.hooks.score_rewards(run, reward.name, groups, reward.options)
    finally:
        set_random_state(state)
    if len(scores) != len(groups):
        raise PluginError(f"score_rewards returned {len(scores)} rows for {len(groups)} groups: {reward.label}")
    for group, values in zip(groups, scores, strict=True):
        if len(values) != len(group.completions):
            message = f"reward {reward.label!r} returned {len(values)} scores for {len(group.completions)} completions"
            raise PluginError(message)
        for k, value in enumerate(values):
            if value is not None and not np.isfinite(value):
                kind = "NaN" if np.isnan(value) else "an infinite score"
                message = f"reward {reward.label!r} returned {kind} for {place_of(group, k)}"
                raise PluginError(message, help="return None where the reward does not apply", code="reward-failed")
    return [[None if value is None else float(value) for value in values] for values in scores]


def weighted_sum(spec: Rollout, group: Group) -> NDArray[np.float64]:
    """Return the sum [n] of rewards times their weights, over those that apply; NaN where none does.

    Without rewards it is 0. Raises DataError if that is an error of the method.
    """
    if not spec.rewards:
        return np.zeros(len(group.completions))
    values = np.stack([group.rewards[reward.label] for reward in spec.scored])
    total: NDArray[np.float64] = np.nansum(values * np.array([[r.weight] for r in spec.scored]), axis=0)
    unscored = np.isnan(values).all(0)
    if unscored.any() and spec.abstained == "error":
        message = f"no reward scores a completion: {', '.join(group.rewards)} returned None"
        help = "fix the column that they compare with, drop the row, or mask such completions"
        where = place_of(group, int(np.flatnonzero(unscored)[0]))
        raise DataError(message, where=where, code="abstained", help=help)
    return np.where(unscored, np.nan, total)


def place_of(group: Group, number: int) -> str:
    """Return the place of a completion in words."""
    entry, row = group.prompt.origin
    return f"row {row + 1} of entry {entry} (completion {number + 1} of {len(group.completions)})"


def _own(failed: Failed, where: str | None = None) -> TunesmithError | None:
    """Return the error of Tunesmith that a function raised, such as EnvironmentProblem for a missing package."""
    kind = getattr(errors, failed.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, TunesmithError)):
        return None
    return kind(str(failed), where=where or failed.where, help=failed.help or None, code=failed.code)


def _divided(groups: Sequence[Group], number: int) -> Iterator[Sequence[Group]]:
    """Yield the groups in `number` stretches of about equal length."""
    for i in range(number):
        yield groups[len(groups) * i // number : len(groups) * (i + 1) // number]


def _seed(parts: Sequence[Any]) -> int:
    return int.from_bytes(hashlib.sha256(repr(tuple(parts)).encode()).digest()[:7])
