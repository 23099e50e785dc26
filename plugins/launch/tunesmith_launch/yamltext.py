"""Write mappings as YAML that people read and change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and repeats equal values in place of aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, _represent)


def text(notes: Sequence[str], *documents: dict[str, Any]) -> str:
    """Return documents as YAML, after notes in comments."""
    head = "".join(f"# {note}\n" for note in notes)
    bodies = [yaml.dump(one, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000) for one in documents]
    return head + "---\n".join(bodies)
