"""`tunesmith init` writes a config from a model and data; `examples`, `fetch` and `completion` help to start."""

from __future__ import annotations

from tunesmith import Plugin

plugin = Plugin(
    commands={
        "init": ("tunesmith_starter.init:init", "Look at a model and data, and write a config that trains on them."),
        "examples": ("tunesmith_starter.fetch:examples", "List the examples, or print or copy one of them."),
        "fetch": ("tunesmith_starter.fetch:fetch", "Copy the examples or the documentation into a folder."),
        "completion": (
            "tunesmith_starter.completion:completion",
            "Print the script that completes commands in a shell.",
        ),
    }
)
