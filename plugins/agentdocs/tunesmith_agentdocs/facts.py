"""The facts of the pages, from the metadata of what is installed. Nothing is imported but the command `examples`."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterable, Sequence

import click

from tunesmith.cli import explain
from tunesmith.cli.commands import import_command, plugin_commands
from tunesmith.config import keys
from tunesmith.config.keys import DROP, selects
from tunesmith.errors import TunesmithError
from tunesmith.plugins.discovery import Candidate, catalogue, core_version, defaults, installed
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith_agentdocs.lines import LONGEST, first_sentence, key_lines, table

CLASSIFIERS = ("sequence_classifier", "token_classifier")


def fact(name: str, arguments: Sequence[str]) -> str:
    """Return the text that stands for `{{ name arguments }}` in a page."""
    return FACTS[name](*arguments).rstrip("\n")


# keys


def core(*names: str) -> str:
    """Return these keys of the core. Raises LookupError for one that does not exist."""
    schema = keys.core_schema()
    if unknown := set(names) - set(schema["properties"]):
        raise LookupError(f"no keys of the core: {', '.join(sorted(unknown))}")
    return "\n".join(key_lines(schema, schema, only=names))


def entry(*names: str) -> str:
    """Return these keys of a dataset entry, or all of them."""
    schema = keys.dataset_schema()
    return "\n".join(key_lines(schema, schema, only=names))


def own_keys(candidate: Candidate) -> str:
    """Return the keys of a plugin, and of the dataset entries that select it, after what selects the plugin."""
    info = candidate.info
    way = selects(info).removesuffix(DROP).removeprefix("write ")
    lines = [f"Plugin {candidate}. It is selected by: {way}.", ""]
    lines += key_lines(info["schema"], info["schema"])
    if info["dataset_schema"].get("properties"):
        lines += ["", f"In a dataset entry whose `type:` belongs to {candidate.name}:", ""]
        lines += key_lines(info["dataset_schema"], info["dataset_schema"])
    return "\n".join(lines)


def plugin(*names: str) -> str:
    """Return the keys of these plugins; for one that is not installed, what to install."""
    available = installed()
    parts = [
        own_keys(available[n]) if n in available else f'Not installed: pip install "tunesmith[{n}]"' for n in names
    ]
    return "\n\n".join(parts)


# methods


def methods() -> list[Candidate]:
    """Return the installed plugins that are training methods."""
    return [candidate for candidate in installed().values() if candidate.info["method"]]


def of_rows(*kinds: str) -> list[Candidate]:
    """Return the methods that train a language model on rows of these kinds."""
    candidates = [c for c in methods() if set(c.info["method"]["rows"]) & set(kinds)]
    return [c for c in candidates if c.info["method"].get("exports") not in CLASSIFIERS]


def classifiers() -> list[Candidate]:
    """Return the methods whose result is a model that scores."""
    return [c for c in methods() if c.info["method"].get("exports") in CLASSIFIERS]


def method_rows(candidates: Iterable[Candidate]) -> str:
    """Return a table of methods: what to write, the kinds of rows, the plugin."""
    rows = []
    for one in candidates:
        values = one.info["answers"].get("rl", [])
        ways = [f"`rl: {value}`" for value in values] or [f"`{switch}: true`" for switch in one.info["switches"]]
        ways = ways or (
            ["nothing (default)"] if one.name in {row["plugin"] for row in defaults()} else [f"`plugins: [{one.name}]`"]
        )
        rows.append(
            [", ".join(ways), ", ".join(one.info["method"]["rows"]), f"{one}", first_sentence(one.info["summary"])]
        )
    return table(["write", "kinds of rows", "plugin", "what it is"], rows)


def missing_methods() -> str:
    """Return the values of `rl:` of plugins of this project that are not installed."""
    available = installed()
    lines = [
        f'- `rl: {value}`: pip install "tunesmith[{name}]"'
        for name, info in catalogue().items()
        if name not in available
        for value in info["answers"].get("rl", ())
    ]
    return "\n".join(["Not installed here:", "", *lines]) if lines else "All methods of this project are installed."


def method_keys(*kinds: str) -> str:
    """Return the keys of the methods that train on rows of these kinds, or of the classifiers."""
    candidates = classifiers() if kinds == ("classifiers",) else of_rows(*kinds)
    return "\n\n".join(f"### {c.name}\n\n{own_keys(c)}" for c in candidates if c.info["schema"].get("properties"))


def types(*kinds: str) -> str:
    """Return the types of dataset entries for rows of these kinds, by plugin."""
    rows = [
        [", ".join(f"`{name}`" for name in named if name not in IMPLICIT) or IMPLICIT[named[0]], kind, str(c)]
        for kind in kinds
        for c in installed().values()
        if (named := c.info["strategies"].get(kind))
    ]
    return table(["type", "kind of rows", "plugin"], rows)


IMPLICIT = {"user_defined": "a mapping instead of a name", "function": "`./rows.py:function`, a function in your file"}


def answers(key: str) -> str:
    """Return the values of a selector, with their plugins."""
    rows = [
        [", ".join(f"`{value}`" for value in values), str(candidate)]
        for candidate in installed().values()
        if (values := candidate.info["answers"].get(key))
    ]
    return table([f"`{key}:`", "plugin"], rows)


def answered(key: str, value: str) -> str:
    """Return whether an installed plugin answers a value of a selector."""
    owners = [c for c in installed().values() if value in c.info["answers"].get(key, ())]
    if owners:
        return f"`{key}: {value}` is answered by the plugin {' and '.join(map(str, owners))}.\n\n" + "\n\n".join(
            map(own_keys, owners)
        )
    return f"No installed plugin answers `{key}: {value}`. `tunesmith check` refuses it with `unknown-value` (exit 2)."


def metrics(*kinds: str) -> str:
    """Return the names of the metrics that the methods on rows of these kinds declare."""
    candidates = classifiers() if kinds == ("classifiers",) else of_rows(*kinds)
    rows = [
        [c.name, ", ".join(f"`{m}`" for m in c.info["metrics"] or ()) or "depend on its settings; see metrics.jsonl"]
        for c in candidates
    ]
    return table(["plugin", "metrics"], rows)


def offered(kind: str) -> str:
    """Return what plugins offer of a kind, by plugin."""
    rows = [
        [", ".join(f"`{name}`" for name in names), str(c)]
        for c in installed().values()
        if (names := c.info["offers"].get(kind))
    ]
    return table([kind, "plugin"], rows)


# commands, plugins, errors, hooks, examples


def commands() -> str:
    """Return every command with the first sentence of its help."""
    from tunesmith.cli.main import main

    context = click.Context(main)
    lines = []
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if command is not None and not command.hidden:
            lines.append(f"- `tunesmith {name}`: {command.get_short_help_str(LONGEST)}")
    return "\n".join(lines)


def plugins() -> str:
    """Return the version of the core, and the installed plugins with their summaries."""
    lines = [f"- {c.name} {c.version}: {first_sentence(c.info['summary'])}" for c in installed().values()]
    return "\n".join([f"tunesmith-core {core_version()}.", "", *lines])


def extras() -> str:
    """Return the plugins of this project that are not installed."""
    available = installed()
    names = [name for name in catalogue() if name not in available]
    return f"Not installed: {', '.join(names)}." if names else "Every plugin of this project is installed."


def exits() -> str:
    """Return the exit codes."""
    return "\n".join(f"- {number}: {meaning}" for number, meaning in explain.catalogue()["exits"].items())


def errors(*codes: str) -> str:
    """Return what these error codes mean and what to do, or the meaning of all.

    A code that no installed plugin has is left out.
    """
    known = explain.catalogue()["codes"]
    if not codes:
        return "\n".join(f"- `{code}` (exit {one['exit']}): {one['means']}" for code, one in sorted(known.items()))
    shown = {code: known[code] for code in codes if code in known}
    return "\n".join(f"- `{code}` (exit {e['exit']}): {e['means']} {e['do']}" for code, e in shown.items())


def summary_of(hook: Callable[..., object]) -> str:
    return first_sentence((inspect.getdoc(hook) or "").partition("\n\n")[0])


def hooks() -> str:
    """Return the hooks in the order of a run, with their parameters and arity."""
    lines = [
        f"- `{name}({', '.join(inspect.signature(hook).parameters)})`, {hook.arity}: {summary_of(hook)}"
        for name, hook in HOOKS.items()
    ]
    return "\n".join(lines)


def examples(*words: str) -> str:
    """Return the examples that the command `examples` lists, those with one of these words in their line."""
    owner = plugin_commands().get("examples")
    if owner is None:
        return 'No examples are installed: pip install "tunesmith[starter]"'
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            import_command(owner, "examples").main(args=[], standalone_mode=False)
    except TunesmithError as error:
        return f"The examples can't be listed: {error.problems[0].message}"
    lines = [line for line in printed.getvalue().splitlines() if not line.startswith("next:")]
    kept = [line for line in lines if not words or any(word in line.lower() for word in words)]
    return "\n".join(f"- {' '.join(line.split())}" for line in kept)


FACTS: dict[str, Callable[..., str]] = {
    "answered": answered,
    "answers": answers,
    "commands": commands,
    "core": core,
    "entry": entry,
    "errors": errors,
    "examples": examples,
    "exits": exits,
    "extras": extras,
    "hooks": hooks,
    "method_keys": method_keys,
    "methods": lambda *kinds: method_rows(
        classifiers() if kinds == ("classifiers",) else of_rows(*kinds) if kinds else methods()
    ),
    "metrics": metrics,
    "missing_methods": missing_methods,
    "offered": offered,
    "plugin": plugin,
    "plugins": plugins,
    "types": types,
}
"""Name in a page -> the function that returns its text."""
