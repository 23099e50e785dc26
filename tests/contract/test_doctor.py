"""`doctor`: what a config needs of this machine, each thing found alone, and the line to type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from packaging.specifiers import SpecifierSet

from tests import tiny
from tests.contract.fakes import distribution, load, loaded, local, managed, write
from tunesmith.cli import doctor, main
from tunesmith.errors import ConfigError, DataError, SafetyError
from tunesmith.finding import Finding
from tunesmith.plugins import discovery
from tunesmith.plugins.plugin import hookimpl
from tunesmith.run import Run

BASE = "base_model: nobody/nothing\ndatasets: [{path: x.jsonl, type: chat_template}]\n"


def command(*words: str | Path) -> Result:
    result = CliRunner().invoke(main, ["doctor", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def of_packages(folder: Path, text: str = BASE) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor.packages(Run(*load(folder, text)))}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions, first on sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder


def pretend(site: Path, name: str, version: str, *requires: str) -> None:
    """Metadata of a distribution that has no code."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


# packages


def test_an_old_version_with_a_known_harm_is_a_problem_and_the_line_to_type_mends_it(
    site: Path, tmp_path: Path
) -> None:
    assert [f.status for f in of_packages(tmp_path).values()] == ["ok"]
    pretend(site, "torch", "2.9.1")
    found = of_packages(tmp_path)["torch"]
    assert (found.status, found.exit_code) == ("problem", 5)
    assert "2.9.1" in found.detail and "CVE" in found.detail
    tiny.write_rows(tmp_path / "x.jsonl", tiny.rows("conversation", 2))
    result = command(write(tmp_path, BASE.replace("x.jsonl", str(tmp_path / "x.jsonl"))))
    assert result.exit_code == 5
    assert result.stdout.rstrip().endswith('next: pip install "torch>=2.10"')


def test_harm_in_a_package_that_the_run_does_not_use_is_a_warning(site: Path, tmp_path: Path) -> None:
    pretend(site, "vllm", "0.11.0")
    assert of_packages(tmp_path)["vllm"].status == "warning"


def test_the_list_of_known_harms_holds_the_floors_and_says_why_and_what_to_type() -> None:
    rows = {row["package"]: row for row in discovery.data_file("known_bad.json")}
    for package, (old, new) in {
        "torch": ("2.9.9", "2.10"),
        "transformers": ("5.2", "5.3"),
        "vllm": ("0.13", "0.14"),
    }.items():
        specifier = SpecifierSet(rows[package]["specifier"])
        assert specifier.contains(old) and not specifier.contains(new)
    assert all(row["why"] and row["help"] for row in rows.values())


def test_a_requirement_that_is_missing_or_out_of_range_says_who_needs_it_and_what_to_install(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "plugin = Plugin(answers={'optimizer': ('fake_sgd',)})\n@hookimpl\ndef build_optimizer(): ...\n"
    distribution(site, "sgd", source, requires=["no-such-package>=2", "click<1", 'nothing; extra == "more"'])
    pretend(site, "peft", "0.1")
    found = of_packages(tmp_path, BASE + "optimizer: fake_sgd\nadapter: lora\n")
    assert found["no-such-package"].detail == "not installed; fake-sgd needs no-such-package>=2"
    assert found["no-such-package"].help == 'pip install "no-such-package>=2"'
    assert found["click"].detail.endswith("fake-sgd needs click<1")
    assert (found["peft"].status, found["peft"].help) == ("problem", 'pip install "tunesmith[lora]"')
    assert "nothing" not in found and "packages" not in found
    assert doctor.next_line(list(found.values()), "train") == (
        'pip install "click<1" "no-such-package>=2" "tunesmith[lora]"'
    )


def test_what_other_packages_ask_of_each_other_is_a_warning(site: Path, tmp_path: Path) -> None:
    pretend(site, "peft", "0.21.0", "torch<1", "unheard-of")
    found = of_packages(tmp_path, BASE + "adapter: lora\n")
    assert found["torch"].status == found["unheard-of"].status == "warning"
    assert found["torch"].detail.endswith("peft needs torch<1")


def test_a_package_that_is_missing_is_told_once_also_where_its_plugin_would_tell_it_too(
    site: Path, tmp_path: Path
) -> None:
    source = "plugin = Plugin()\n@hookimpl\ndef diagnose():\n    from tunesmith import Finding\n"
    source += "    return [Finding('no-such-package', 'problem', 'again'), Finding('server', 'ok', 'answers')]\n"
    distribution(site, "mine", source, requires=["no-such-package"])
    found = doctor.diagnose(str(write(tmp_path, BASE + "plugins: [mine]\n")))
    assert [f.detail for f in found if f.what == "no-such-package"] == [
        "not installed; fake-mine needs no-such-package"
    ]
    assert "server" in {f.what for f in found}


def test_distributions_of_ours_from_two_releases_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = discovery.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: "0.1.9" if name == "tunesmith-chat" else real(name))
    found = of_packages(tmp_path)["tunesmith-chat"]
    assert (found.status, found.help) == ("warning", f'pip install "tunesmith-chat=={discovery.core_version()}"')


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.python().status == "ok"
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    assert doctor.python().status == "problem" and ">=3.11" in doctor.python().detail


# the config


def test_a_plugin_that_is_not_installed_is_a_finding_and_the_line_installs_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {name: c for name, c in discovery.installed().items() if name not in ("lora", "earlystop")}
    monkeypatch.setattr(discovery, "installed", lambda: dict(rest))
    path = write(tmp_path, BASE + "adapter: lora\nearly_stopping_patience: 3\nval_set_size: 0.1\n")
    result = command(path)
    assert result.exit_code == 2
    assert f"{path}:3:1: adapter: lora needs the plugin 'lora'" in result.stdout
    assert 'help: pip install "tunesmith[lora]"' in result.stdout
    line = result.stdout.rstrip().rpartition("\n")[2]
    assert line.startswith("next: pip install") and {"tunesmith[lora]", "tunesmith[earlystop]"} <= set(
        re.findall(r'"(.*?)"', line)
    )


@pytest.mark.parametrize("text", ["base_model: [", BASE + "sede: 1\n", "base_model: !!python/name:os.system"])
def test_a_config_that_cannot_be_read_fails_as_in_check(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    checked = CliRunner().invoke(main, ["check", str(path)])
    result = command(path)
    assert checked.exit_code != 0
    assert (result.exit_code, result.stdout, result.stderr) == (checked.exit_code, "", checked.stderr)


CHECKS = """
from tunesmith import {error}, Finding
plugin = Plugin()
@hookimpl
def inspect(run):
    raise {error}("not there", where="run.yaml:7:3", help="write it")
@hookimpl
def diagnose(run):
    yield Finding("the server", "ok", "answers")
"""


@pytest.mark.parametrize("error", [ConfigError, DataError, SafetyError])
def test_what_inspect_refuses_is_a_finding_with_its_place_and_exit_code_and_the_rest_is_looked_at(
    error: type[ConfigError], tmp_path: Path
) -> None:
    tiny.write_rows(tmp_path / "x.jsonl", tiny.rows("conversation", 2))
    local(tmp_path, "mine", CHECKS.format(error=error.__name__))
    found = doctor.diagnose(
        str(write(tmp_path, BASE.replace("x.jsonl", f"{tmp_path}/x.jsonl") + "plugins: [./mine.py]"))
    )
    assert found[0] == Finding(error.code, "problem", "run.yaml:7:3: not there", "write it", error.exit_code)
    assert {"packages", "CPU", "the server"} <= {f.what for f in found if f.status == "ok"}
    assert doctor.exit_code(found) == error.exit_code
    assert doctor.next_line(found, "train") is None


def test_a_refusal_for_safety_outranks_an_earlier_problem() -> None:
    found = [
        Finding("a", "warning", ""),
        Finding("b", "problem", "", exit_code=3),
        Finding("c", "problem", "", None, 9),
    ]
    assert [doctor.exit_code(part) for part in (found, found[:2], found[:1])] == [9, 3, 0]
    assert [doctor.next_line(part, "train") for part in (found, found[:1])] == [None, "train"]


def test_what_is_most_likely_a_mistake_is_a_warning(tmp_path: Path) -> None:
    found = doctor.diagnose(str(write(tmp_path, BASE + "learning_rate: 50\n")))
    assert any(f.status == "warning" and "learning_rate" in f.detail for f in found)


# plugins


def looks(*functions: Callable[..., Any]) -> list[Finding]:
    """What some implementations of diagnose find, each a plugin of its own."""
    made = managed(*(loaded(f"p{n}", f, best_effort=True) for n, f in enumerate(functions)))
    checked = zip(made.calls("diagnose"), made.diagnose(None), strict=True)  # type: ignore[arg-type]
    return [finding for call, look in checked for finding in doctor.tried(f"plugin {call.plugin}", look)]


def test_a_look_that_fails_is_a_finding_with_its_place_and_the_others_go_on() -> None:
    there = Finding("a", "ok", "there")

    def diagnose() -> Iterator[Finding]:
        yield there
        raise KeyError("no")

    def late() -> list[Finding]:
        return [there]

    def at_once() -> None:
        raise KeyError("no")

    late.__name__ = at_once.__name__ = "diagnose"
    first, failed, also, last = looks(hookimpl(diagnose), hookimpl(at_once), hookimpl(late))
    assert first == last == there
    assert (also.what, also.status) == ("plugin p1", "problem")
    assert (failed.what, failed.status, failed.exit_code) == ("plugin p0", "problem", 6)
    assert (
        "p0 (dist-p0 4.5.6) failed in diagnose: KeyError: 'no'" in failed.detail
        and Path(__file__).name in failed.detail
    )


def test_nothing_to_say_is_fine_and_something_else_than_a_finding_is_not() -> None:
    def nothing() -> None: ...

    def wrong() -> list[str]:
        return ["all is well"]

    nothing.__name__ = wrong.__name__ = "diagnose"
    assert looks(hookimpl(nothing)) == []
    [found] = looks(hookimpl(wrong))
    assert found.status == "problem" and "'all is well'" in found.detail


def test_a_module_that_cannot_be_imported_is_told_with_its_error(site: Path) -> None:
    (site / "fake_broken.py").write_text("raise OSError('libcudart.so: no such file')\n", encoding="utf-8")
    assert Finding.of_module("json") == Finding("json", "ok", "can be imported")
    found = Finding.of_module("fake_broken", "pip install it")
    assert (found.status, found.help, found.exit_code) == ("problem", "pip install it", 5)
    assert "OSError: libcudart.so" in found.detail
