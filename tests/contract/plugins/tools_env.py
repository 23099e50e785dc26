"""Declare the hook `run_tool`, which other plugins answer for the tools that they have, and call it."""

from tunesmith import Plugin, Settings, hookimpl, spec


@spec("keyed", keys="offers.tools")
def run_tool(run, name, text):
    """Return what a tool answers to a text. Keyed by the name of the tool."""


@spec("chain")
def shorten(run, text):
    """Return a shorter text."""


@spec("one")
def choose_tool(run):
    """Return the name of the tool to use first."""


@spec("all")
def tool_notes(run):
    """Return a note."""


class ToolSettings(Settings):
    first_text: str = "hello there"
    """Text of the first call."""


plugin = Plugin(settings=ToolSettings, hookspecs={f.__name__: f for f in (run_tool, shorten, choose_tool, tool_notes)})


@hookimpl
def on_start(run):
    name = run.hooks.ask("choose_tool", run=run)
    text = run.hooks.ask("shorten", run=run, text=run.settings(ToolSettings).first_text)
    run.note("tool", run.hooks.ask("run_tool", name, run=run, name=name, text=text))
