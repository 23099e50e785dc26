"""The Dockerfile builds from the wheels of this repository, with pinned versions, for a user that is not root.

Docker itself is not needed here: the file is parsed, and what it names is compared with the repository.
"""

from __future__ import annotations

import re
import shlex

from tests.repo.source import ROOT, toml

TEXT = (ROOT / "Dockerfile").read_text("utf-8")
LINES = [
    line.split(maxsplit=1) for line in TEXT.replace("\\\n", " ").splitlines() if line.strip() and line[0] not in "# "
]
ARGUMENTS = dict(line[1].partition("=")[::2] for line in LINES if line[0] == "ARG")
EXTRAS = toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]


def values(instruction: str) -> list[str]:
    return [text for name, text in LINES if name == instruction]


def last_stage() -> list[list[str]]:
    return LINES[max(n for n, line in enumerate(LINES) if line[0] == "FROM") :]


def test_base_images_are_pinned_and_supported() -> None:
    images = values("FROM")
    assert len(images) == 2 and all(re.match(r"python:\$\{PYTHON\}-slim-\w+( AS build)?$", image) for image in images)
    assert re.fullmatch(r"3\.\d+\.\d+", ARGUMENTS["PYTHON"])
    lowest = toml(ROOT / "pyproject.toml")["project"]["requires-python"].removeprefix(">=")
    assert tuple(map(int, ARGUMENTS["PYTHON"].split("."))) >= tuple(map(int, lowest.split(".")))


def test_torch_is_the_tested_version_and_its_index_is_up_to_the_user() -> None:
    pinned = re.search(r"torch==(\S+) ", (ROOT / "Makefile").read_text("utf-8"))
    assert pinned and ARGUMENTS["TORCH"] == pinned[1]
    assert ARGUMENTS["TORCH_INDEX"] == '""' and "://" not in TEXT.replace("file://", "")


def test_user_is_not_root_and_every_argument_is_used_and_documented() -> None:
    stage = last_stage()
    assert [text for name, text in stage if name == "USER"] == ["${USER_ID}"] and int(ARGUMENTS["USER_ID"]) > 0
    page = (ROOT / "docs" / "docker.md").read_text("utf-8")
    for name in ARGUMENTS:
        assert f"| `{name}` |" in page, name
        assert re.search(rf"\$\{{?{name}\b", TEXT), name


def test_what_it_copies_is_made_here_and_nothing_else_is_sent() -> None:
    copied = [text.split()[0] for text in values("COPY") if not text.startswith("--from")]
    assert copied == ["constraints.txt", "dist/*.whl"]
    assert "wheels:" in (ROOT / "Makefile").read_text("utf-8") and (ROOT / "constraints.txt").is_file()
    ignored = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[0] != "#"]
    assert ignored[0] == "*" and {line[1:] for line in ignored[1:]} == set(copied)


def test_command_and_extras_exist() -> None:
    assert values("ENTRYPOINT") == ['["tunesmith"]'] and ARGUMENTS["EXTRAS"] in EXTRAS
    scripts = toml(ROOT / "core" / "pyproject.toml")["project"]["scripts"]
    assert "tunesmith" in scripts


def test_commands_of_run_are_shell_and_keep_no_cache() -> None:
    assert "PIP_NO_CACHE_DIR=1" in " ".join(values("ENV"))
    for command in values("RUN"):
        assert shlex.split(command)
    assert not re.search(r"\b(curl|wget|sudo|chmod 777)\b", TEXT)
