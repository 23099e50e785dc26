"""Write the static metadata of every plugin of this repository (`make metadata`); with --check, only compare.

plugins/<word>/tunesmith.json goes into the plugin's distribution; core/tunesmith/data/catalogue.json holds the
first-party ones together, so that the core can say which extra to install.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "engine")]


def descriptions(group: str) -> dict[str, dict[str, object]]:
    """Word -> metadata of each plugin in a folder of the repository, from its source."""
    from tunesmith.plugins.plugin import describe

    found = {}
    for folder in sorted((ROOT / group).iterdir()):
        if (folder / "pyproject.toml").is_file():
            sys.path.insert(0, str(folder))
            found[folder.name] = describe(folder.name, importlib.import_module(f"tunesmith_{folder.name}"))
    return found


def main() -> int:
    files = {}
    for group in ("plugins", "contrib"):
        found = descriptions(group)
        files |= {ROOT / group / name / "tunesmith.json": info for name, info in found.items()}
        if group == "plugins":
            files[ROOT / "core/tunesmith/data/catalogue.json"] = found  # type: ignore[assignment]
    stale = []
    for path, content in files.items():
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print("\n".join(map(str, stale)) or "metadata is in step with the source")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
