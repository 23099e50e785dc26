"""The tools of the server: their descriptions and their arguments. This module needs only the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PATH = {"type": "string", "description": "Path of a YAML file, below the folders of the server."}
YAML = {"type": "string", "description": "The content of a YAML file, instead of its path."}
OVERRIDES = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Keys to replace: key=value, group.key=value, datasets.0.path=value.",
}
CONFIG = {"path": PATH, "yaml": YAML, "overrides": OVERRIDES}
SAFE = "Reads files only below the folders of the server, runs no code of files, writes nothing, uses no network."


@dataclass(frozen=True)
class ToolSpec:
    """A tool: what it does, and the JSON schemas of its arguments by name."""

    description: str
    arguments: dict[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments."""
        return {
            "type": "object",
            "properties": self.arguments,
            "required": list(self.required),
            "additionalProperties": False,
        }


TOOLS = {
    "schema": ToolSpec(
        "Describe the keys of a config. Without a name: the names of all keys by section (core, datasets, and each "
        "plugin). With a section: the JSON schemas of its keys. With a key (learning_rate, trl.beta, datasets.path): "
        "its JSON schema, its owner and what selects it. With all: one JSON schema of everything.",
        {"name": {"type": "string", "description": "A key, a section, or all."}},
    ),
    "check": ToolSpec(
        "Check a config and the files that it names, as `tunesmith check` does: all problems with code, place and "
        "help. " + SAFE,
        CONFIG,
    ),
    "plan": ToolSpec(
        "Predict steps, tokens, parameters, memory and stages of a run, without reading weights. Takes seconds to "
        "minutes, depending on the data. " + SAFE,
        CONFIG,
    ),
    "lint": ToolSpec(
        "Read all rows of the data of a config, and report those that train the wrong thing, or nothing. " + SAFE,
        CONFIG
        | {
            "off": {"type": "array", "items": {"type": "string"}, "description": "Names of rules to leave out."},
            "rows": {"type": "integer", "minimum": 1, "description": "Rows to read from each streamed entry."},
        },
    ),
    "explain": ToolSpec(
        "Explain an error code, a key, a hook or a plugin. With a config: also the value of the key and the place that "
        "sets it, or the plugins that answer the hook in this run, in call order.",
        {"name": {"type": "string", "description": "An error code, a key, a hook or a plugin."}} | CONFIG,
        ("name",),
    ),
    "runs": ToolSpec(
        "List the run folders below a folder, with status, step, last metrics and checkpoints.",
        {
            "folder": {
                "type": "string",
                "description": "A folder below those of the server. Default: the first of them.",
            }
        },
    ),
    "agent_docs": ToolSpec(
        "Return a page for coding agents, with the facts of what is installed. Without a topic: the overview, which "
        "lists the topics.",
        {"topic": {"type": "string"}},
    ),
}
"""Name -> tool."""
