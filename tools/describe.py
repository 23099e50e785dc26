"""Write the static metadata of every plugin of this repository (`make metadata`); with --check, only compare it.

plugins/<name>/tunesmith.json is part of the plugin's distribution. core/tunesmith/data/catalogue.json outlines those
of plugins/ (names, values, keys, commands, sources), so that the core can name the extra of a missing plugin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "engine")]


def descriptions(group: str) -> dict[str, dict[str, Any]]:
    """Return folder -> metadata of its plugins by name, for a group of folders, read from the source."""
    from tunesmith.cli.plugins import of_folder

    folders = [folder for folder in sorted((ROOT / group).iterdir()) if (folder / "pyproject.toml").is_file()]
    return {folder.name: of_folder(folder) for folder in folders}


def catalogue(metadata: dict[str, Any]) -> str:
    """Return the core's catalogue as JSON, with one line per plugin."""
    from tunesmith.plugins.metadata import outline

    lines = [f"  {json.dumps(name)}: {json.dumps(outline(info), sort_keys=True)}" for name, info in metadata.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    from tunesmith.plugins.discovery import FILE
    from tunesmith.plugins.metadata import text_of

    texts = {}
    for group in ("plugins", "contrib"):
        metadata = descriptions(group)
        for folder, plugins in metadata.items():
            texts[ROOT / group / folder / FILE] = text_of(plugins)
        if group == "plugins":
            texts[ROOT / "core/tunesmith/data/catalogue.json"] = catalogue(
                {name: info for plugins in metadata.values() for name, info in plugins.items()}
            )
    stale = []
    for path, text in texts.items():
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print("\n".join(map(str, stale)) or "the metadata is up to date with the source")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
