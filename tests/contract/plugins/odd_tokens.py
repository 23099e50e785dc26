"""A reward: the share of odd token ids in a completion."""

import numpy as np

from tunesmith import Plugin, hookimpl

plugin = Plugin(offers={"rewards": {"odd_tokens": None}})


@hookimpl
def score_rewards(groups):
    return [[float(np.mean(completion.tokens % 2)) for completion in group.completions] for group in groups]
