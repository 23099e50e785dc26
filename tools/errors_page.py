"""docs/errors.md, from core/tunesmith/data/errors.toml."""

from __future__ import annotations

import textwrap

from pieces import page, table

from tunesmith.cli import explain

HEAD = """
An error is one line with its place, its code and what is wrong; often a line with what to write instead; and after the
last one what to type to read more:

```text
run.yaml:7:1: error[unknown-key]: lerning_rate is no key
  help: did you mean 'learning_rate'?
docs: tunesmith explain unknown-key
```

All that is wrong with a config is told at once. The place is file:line:column of the YAML, the row of a data file, or
the words of the command line. `tunesmith --format json COMMAND ...` prints the same for programs: `exit_code`, `docs`,
and for each of `problems` its `message`, `where`, `code` and `help`. Of several problems the first decides the exit
code, or one that is refused for safety. `--traceback` shows it; of a run that had begun it is in crash.txt, in
output_dir. What is allowed and most likely a mistake is a warning: a line `warning: run.yaml:3:16: ...` of `check`, and
a line of the summary of a run.
"""


def section(code: str, entry: explain.Entry) -> str:
    text = textwrap.fill(f"{entry['means']} {entry['do']}", 120, break_on_hyphens=False, break_long_words=False)
    return f"### {code}\n\n{text}\n\n```text\n{explain.example(entry)}\n```"


def errors_page() -> str:
    catalogue = explain.catalogue()
    parts = ["## Exit codes", table(["code", "meaning"], [list(row) for row in catalogue["exits"].items()])]
    for number in catalogue["exits"]:
        mine = {code: entry for code, entry in catalogue["codes"].items() if str(entry["exit"]) == number}
        parts += [f"## Exit {number}"] if mine else []
        parts += [section(code, entry) for code, entry in mine.items()]
    return page("Errors", HEAD, *parts)
