"""Write the pages: prose from pages/TOPIC.md, in which each line `{{ name arguments }}` is replaced by facts.

Other plugins add topics: `Plugin(offers={"agent_docs": {"my_topic": ":function"}})`, a function that takes nothing and
returns a page.
"""

from __future__ import annotations

import re
from functools import cache, partial
from importlib import resources

from tunesmith.errors import PluginError
from tunesmith.plugins.discovery import installed
from tunesmith.plugins.offers import find, offers
from tunesmith_agentdocs import TOPICS, facts

KIND = "agent_docs"
"""The kind of offers of pages."""
FACT = re.compile(r"^\{\{ (\w+)((?: \S+)*) \}\}$", re.M)


@cache
def prose(topic: str) -> str:
    """Return the text of a page of this package, with its `{{ ... }}` lines."""
    return resources.files(__package__).joinpath("pages", f"{topic}.md").read_text("utf-8")


def filled(topic: str) -> str:
    """Return a page of this package, with the facts of the installed plugins."""
    return FACT.sub(lambda line: facts.fact(line[1], line[2].split()), prose(topic))


def topics() -> dict[str, str]:
    """Return topic -> what it is about. That of another plugin has the summary of its plugin."""
    available = installed()
    own = {name: prose(name).partition("\n\n")[2].partition("\n")[0] for name in TOPICS}
    others = {name: offer.plugin.info["summary"] for name, (offer, *_) in sorted(offers(available, KIND).items())}
    return own | {name: summary for name, summary in others.items() if name not in own}


def page(topic: str) -> str:
    """Return the page of a topic. Raises PluginError if several plugins have the topic, or if one fails."""
    offer = find(installed(), KIND, topic)
    if offer is None:
        raise PluginError(f"no plugin has the topic {topic!r}", code="plugin-shape")
    return str(offer.load()()).rstrip("\n") + "\n"


overview = partial(filled, "overview")
sft = partial(filled, "sft")
preference_tuning = partial(filled, "preference_tuning")
grpo = partial(filled, "grpo")
ebft = partial(filled, "ebft")
reward_modelling = partial(filled, "reward_modelling")
pretraining = partial(filled, "pretraining")
model_architectures = partial(filled, "model_architectures")
new_model_support = partial(filled, "new_model_support")
debugging = partial(filled, "debugging")
