"""Build docs/errors.md from the error codes of the core, the engine and the plugins."""

from __future__ import annotations

import textwrap

from pieces import metadata, page, table

from tunesmith.cli import explain

HEAD = """
An error message has up to three parts:

```text
run.yaml:7:1: error[unknown-key]: unknown key: lerning_rate
  help: did you mean 'learning_rate'?
docs: tunesmith explain unknown-key
```

1. the place, the error code, and the problem;
2. a line with what to write instead, if there is one;
3. after the last error, the command that explains the codes.

Tunesmith reports all problems of a config at once. The place is file:line:column in the YAML file, the row of a data
file, or the argument on the command line.

`tunesmith --format json COMMAND ...` prints the same for programs: `exit_code`, `docs`, and for each of `problems` its
`message`, `where`, `code` and `help`. If there are several problems, the first one determines the exit code, unless
another one is refused for safety.

`--traceback` shows the traceback. If a run had begun, crash.txt in output_dir has it too.

A setting that is allowed but most likely a mistake is a warning: `check` prints a line `warning: run.yaml:3:16: ...`,
and the summary of a run contains it.
"""


def section(code: str, entry: explain.Entry, plugin: str | None) -> str:
    """Return the section of an error code, which a plugin may own."""
    text = textwrap.fill(f"{entry['means']} {entry['do']}", 120, break_on_hyphens=False, break_long_words=False)
    owner = f"\n\nFrom the plugin [{plugin}](../plugins/{plugin}/README.md)." if plugin else ""
    return f"### {code}\n\n{text}{owner}\n\n```text\n{explain.example(entry)}\n```"


def errors_page() -> str:
    """Return docs/errors.md."""
    core = explain.core_catalogue()
    codes: dict[str, tuple[explain.Entry, str | None]] = {code: (entry, None) for code, entry in core["codes"].items()}
    for plugin, info in metadata().items():
        codes |= {code: (entry, plugin) for code, entry in info["errors"].items()}
    parts = ["## Exit codes", table(["code", "meaning"], [list(row) for row in core["exits"].items()])]
    for number in core["exits"]:
        entries = {code: owned for code, owned in codes.items() if str(owned[0]["exit"]) == number}
        parts += [f"## Exit {number}"] if entries else []
        parts += [section(code, entry, plugin) for code, (entry, plugin) in entries.items()]
    return page("Errors", HEAD, *parts)
