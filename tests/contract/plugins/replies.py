"""A tool that replies to every turn of the model with the same tokens, up to three turns."""

from tunesmith import Plugin, Settings, hookimpl, roll_out_turns


class Replies(Settings):
    reply_tokens: list[int] = [7, 8, 9]
    """Tokens of each reply."""
    reply_turns: int = 3
    """Most turns of the model."""


plugin = Plugin(settings=Replies, offers={"rewards": {"even_tokens": ":even_tokens"}})


@hookimpl
def rollout(run, generator, prompts):
    keys = run.settings(Replies)
    return roll_out_turns(run, generator, prompts, lambda prompt, completion: keys.reply_tokens, keys.reply_turns)


def even_tokens(completion_ids, **columns):
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]
