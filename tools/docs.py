"""Write the pages of docs/ that are generated from the source (`make docs`); with --check, only compare them.

hooks.md comes from the docstrings of hookspecs/. config.md and plugins.md come from the settings, through
core/tunesmith/data/catalogue.json, which `make metadata` writes. keys-from-elsewhere.md comes from the settings and
core/tunesmith/data/foreign/, errors.md from errors.toml, adapters.md from types.json of the plugin adapters,
diagnosis.md from the rules of the plugin diagnosis, and reference.md and api.md from the exported names and their
docstrings. families.md and examples/FAMILY/ come from tools/example_families.toml. index.md and migrate.md are written
by hand, except for the parts that their comments name.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from adapters_page import adapters_page
from api_page import api_page
from config_page import config_page, ways
from diagnosis_page import diagnosis_page
from elsewhere_page import elsewhere_page
from errors_page import errors_page
from hooks_page import hooks_page
from landing import index_page
from migrate_page import migrate_page
from pictures import PICTURES
from pieces import metadata, page, points, table
from reference_page import reference_page

from examples import families_page, files
from tunesmith.plugins import discovery

ROOT = Path(__file__).resolve().parent.parent
Schema = dict[str, Any]

PLUGINS_HEAD = """
These are the plugins of this repository. Each plugin is a separate distribution, and a pip extra with the name of the
plugin: `pip install "tunesmith[lora]"`. `tunesmith[all]` installs all of them, and `tunesmith[dev]` what the tests
need. `tunesmith plugins` lists what is installed.

Some extras install only libraries: `hub` (datasets on the hub), `http`, `s3`, `gcs`, `azure` and `oci` (files on other
systems), `compressed-tensors` (checkpoints of that library), `optuna` (a search for sweeps), `torchao` (its
optimizers), `trl-math` (what some rewards of TRL need), `cut-cross-entropy` (GPU kernels), `deepspeed-library` (ZeRO),
and those of trackers: `wandb-sdk`, `mlflow-sdk`, `comet-sdk`, `trackio-sdk`, `swanlab-sdk`, and `trackers` for all of
them. `math` is another name of `mathreward`, and `code` of `codereward`.
The packages in `contrib/` are not extras. They show what a third party publishes. A plugin can also declare hooks and
offer functions for others ([write-a-plugin.md](write-a-plugin.md#a-hook-for-others)).
"""


def plugin_section(name: str, info: Schema, brought: set[str]) -> str:
    own = list(info["schema"].get("properties", {}))
    entry = [f"datasets[].{key}" for key in info["dataset_schema"].get("properties", {})]
    facts = {
        "Distribution": f"`tunesmith-{name}`, {'part of' if name in brought else 'an extra of'} `tunesmith`",
        **{fact: text for fact, text in ways(info).items() if fact != "Types"},
        "Trains on rows of": ", ".join((info["method"] or {}).get("rows", [])),
        "Turns into examples": "; ".join(f"{kind}: {', '.join(types)}" for kind, types in info["strategies"].items()),
        "Keys": ", ".join(f"`{key}`" for key in [*own, *entry]),
        "Hooks": ", ".join(
            f"`{hook}`{' (wraps)' if kind == 'wrapper' else ''}" for hook, kind in info["hooks"].items()
        ),
        "Declares hooks": "; ".join(
            f"`{hook}({', '.join(one['parameters'])})`, {one['arity']}: {one['summary']}"
            for hook, one in info["hookspecs"].items()
        ),
        "Offers": "; ".join(f"{kind}: {', '.join(names)}" for kind, names in info["offers"].items()),
    }
    return f"## {name}\n\n{info['summary']} [README](../plugins/{name}/README.md)\n\n{points(facts)}"


def plugins_page() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = {re.split(r"[<>=]", line)[0].removeprefix("tunesmith-") for line in project["dependencies"]}
    rows = [[f"`{r['plugin']}`", f"`{r['hook']}`", r["replaced_by"] or "nothing"] for r in discovery.defaults()]
    return page(
        "Plugins",
        PLUGINS_HEAD,
        "## Defaults\n\nThese plugins are active by default, unless something replaces them. "
        "`plugins: [-console]` switches off a default that nothing has to replace:",
        table(["plugin", "for the hook", "replaced by"], rows),
        *(plugin_section(name, info, brought) for name, info in metadata().items()),
    )


PAGES = {
    "index": index_page,
    "migrate": migrate_page,
    "families": families_page,
    "hooks": hooks_page,
    "config": config_page,
    "keys-from-elsewhere": elsewhere_page,
    "plugins": plugins_page,
    "errors": errors_page,
    "adapters": adapters_page,
    "diagnosis": diagnosis_page,
    "reference": reference_page,
    "api": api_page,
}


def main() -> int:
    stale = []
    builders = {f"{name}.md": build for name, build in PAGES.items()}
    builders |= {f"{name}.svg": build for name, build in PICTURES.items()}
    pages = [(ROOT / "docs" / name, build()) for name, build in builders.items()]
    for path, text in [*pages, *files()]:
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print("\n".join(stale) or "the pages are up to date with the source")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
