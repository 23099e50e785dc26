"""Answer the hooks that tools_env declares, with a tool that shouts."""

from tunesmith import Plugin, hookimpl

plugin = Plugin(offers={"tools": {"shout": None}, "greetings": {"hi": ":hi"}})


def hi(name):
    """Return a greeting, which others look up by its name."""
    return f"hi {name}"


@hookimpl
def run_tool(text):
    return text.upper()


@hookimpl
def shorten(text):
    return text[:5]


@hookimpl
def choose_tool():
    return "shout"


@hookimpl(wrapper=True)
def tool_notes():
    return [*(yield), "shouts"]
