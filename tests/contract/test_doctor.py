"""`doctor` checks what a config needs from this machine, one finding per check, and prints the next command."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from packaging.specifiers import SpecifierSet

from tests import tiny
from tests.contract.fakes import distribution, hooks_of, load, local_plugin, plugin_of, write
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


def package_findings(folder: Path, text: str = BASE) -> dict[str, Finding]:
    """Return the findings on the packages that a config needs, by package."""
    return {finding.what: finding for finding in doctor.packages(Run(*load(folder, text)))}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a folder for installed distributions, first on sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder


def fake_install(site: Path, name: str, version: str, *requires: str) -> None:
    """Write the metadata of a distribution without code."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


# packages


def test_vulnerable_version_is_a_problem_and_the_next_command_fixes_it(site: Path, tmp_path: Path) -> None:
    assert [f.status for f in package_findings(tmp_path).values()] == ["ok"]
    fake_install(site, "torch", "2.9.1")
    finding = package_findings(tmp_path)["torch"]
    assert (finding.status, finding.exit_code) == ("problem", 5)
    assert "2.9.1" in finding.detail and "CVE" in finding.detail
    tiny.write_rows(tmp_path / "x.jsonl", tiny.rows("conversation", 2))
    result = command(write(tmp_path, BASE.replace("x.jsonl", str(tmp_path / "x.jsonl"))))
    assert result.exit_code == 5
    assert result.stdout.rstrip().endswith('next: pip install "torch>=2.10"')


def test_vulnerable_version_of_an_unused_package_is_a_warning(site: Path, tmp_path: Path) -> None:
    fake_install(site, "vllm", "0.11.0")
    assert package_findings(tmp_path)["vllm"].status == "warning"


def test_list_of_vulnerable_versions_has_bounds_reasons_and_advice() -> None:
    rows = {row["package"]: row for row in discovery.data_file("known_bad.json")}
    for package, (old, new) in {
        "torch": ("2.9.9", "2.10"),
        "transformers": ("5.2", "5.3"),
        "vllm": ("0.13", "0.14"),
    }.items():
        specifier = SpecifierSet(rows[package]["specifier"])
        assert specifier.contains(old) and not specifier.contains(new)
    assert all(row["why"] and row["help"] for row in rows.values())


def test_unmet_requirement_names_its_package_and_what_to_install(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "plugin = Plugin(answers={'optimizer': ('fake_sgd',)})\n@hookimpl\ndef build_optimizer(): ...\n"
    distribution(site, "sgd", source, requires=["no-such-package>=2", "click<1", 'nothing; extra == "more"'])
    fake_install(site, "peft", "0.1")
    findings = package_findings(tmp_path, BASE + "optimizer: fake_sgd\nadapter: lora\n")
    assert findings["no-such-package"].detail == "not installed; fake-sgd needs no-such-package>=2"
    assert findings["no-such-package"].help == 'pip install "no-such-package>=2"'
    assert findings["click"].detail.endswith("fake-sgd needs click<1")
    assert (findings["peft"].status, findings["peft"].help) == ("problem", 'pip install "tunesmith[lora]"')
    assert "nothing" not in findings and "packages" not in findings
    assert doctor.next_line(list(findings.values()), "train") == (
        'pip install "click<1" "no-such-package>=2" "tunesmith[lora]"'
    )


def test_unmet_requirement_of_another_package_is_a_warning(site: Path, tmp_path: Path) -> None:
    fake_install(site, "peft", "0.21.0", "torch<1", "unheard-of")
    findings = package_findings(tmp_path, BASE + "adapter: lora\n")
    assert findings["torch"].status == findings["unheard-of"].status == "warning"
    assert findings["torch"].detail.endswith("peft needs torch<1")


def test_missing_package_is_reported_once_even_if_its_plugin_reports_it(site: Path, tmp_path: Path) -> None:
    source = "plugin = Plugin()\n@hookimpl\ndef diagnose():\n    from tunesmith import Finding\n"
    source += "    return [Finding('no-such-package', 'problem', 'again'), Finding('server', 'ok', 'answers')]\n"
    distribution(site, "mine", source, requires=["no-such-package"])
    findings = doctor.diagnose(str(write(tmp_path, BASE + "plugins: [mine]\n")))
    assert [f.detail for f in findings if f.what == "no-such-package"] == [
        "not installed; fake-mine needs no-such-package"
    ]
    assert "server" in {f.what for f in findings}


def test_core_and_plugin_of_two_releases_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = discovery.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: "0.1.9" if name == "tunesmith-chat" else real(name))
    finding = package_findings(tmp_path)["tunesmith-chat"]
    assert (finding.status, finding.help) == ("warning", f'pip install "tunesmith-chat=={discovery.core_version()}"')


def test_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.python().status == "ok"
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    assert doctor.python().status == "problem" and ">=3.11" in doctor.python().detail


# the config


def test_missing_plugins_are_findings_and_one_command_installs_them(
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
def test_unreadable_config_fails_as_in_check(text: str, tmp_path: Path) -> None:
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
def test_error_of_inspect_is_a_finding_and_the_other_checks_still_run(error: type[ConfigError], tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "x.jsonl", tiny.rows("conversation", 2))
    local_plugin(tmp_path, "mine", CHECKS.format(error=error.__name__))
    findings = doctor.diagnose(
        str(write(tmp_path, BASE.replace("x.jsonl", f"{tmp_path}/x.jsonl") + "plugins: [./mine.py]"))
    )
    assert findings[0] == Finding(error.code, "problem", "run.yaml:7:3: not there", "write it", error.exit_code)
    assert {"packages", "CPU", "the server"} <= {f.what for f in findings if f.status == "ok"}
    assert doctor.exit_code(findings) == error.exit_code
    assert doctor.next_line(findings, "train") is None


def test_safety_error_outranks_earlier_problems() -> None:
    findings = [
        Finding("a", "warning", ""),
        Finding("b", "problem", "", exit_code=3),
        Finding("c", "problem", "", None, 9),
    ]
    assert [doctor.exit_code(part) for part in (findings, findings[:2], findings[:1])] == [9, 3, 0]
    assert [doctor.next_line(part, "train") for part in (findings, findings[:1])] == [None, "train"]


def test_likely_mistake_is_a_warning(tmp_path: Path) -> None:
    findings = doctor.diagnose(str(write(tmp_path, BASE + "learning_rate: 50\n")))
    assert any(f.status == "warning" and "learning_rate" in f.detail for f in findings)


# plugins


def findings_of(*functions: Callable[..., Any]) -> list[Finding]:
    """Return the findings of some implementations of diagnose, each in its own plugin."""
    hooks = hooks_of(*(plugin_of(f"p{n}", f, best_effort=True) for n, f in enumerate(functions)))
    results = zip(hooks.calls("diagnose"), hooks.diagnose(None), strict=True)  # type: ignore[arg-type]
    return [finding for call, result in results for finding in doctor.collect(f"plugin {call.plugin}", result)]


def test_failing_check_is_a_finding_and_the_other_checks_still_run() -> None:
    expected = Finding("a", "ok", "there")

    def diagnose() -> Iterator[Finding]:
        yield expected
        raise KeyError("no")

    def late() -> list[Finding]:
        return [expected]

    def at_once() -> None:
        raise KeyError("no")

    late.__name__ = at_once.__name__ = "diagnose"
    first, failed, also, last = findings_of(hookimpl(diagnose), hookimpl(at_once), hookimpl(late))
    assert first == last == expected
    assert (also.what, also.status) == ("plugin p1", "problem")
    assert (failed.what, failed.status, failed.exit_code) == ("plugin p0", "problem", 6)
    assert (
        "p0 (dist-p0 4.5.6) failed in diagnose: KeyError: 'no'" in failed.detail
        and Path(__file__).name in failed.detail
    )


def test_diagnose_may_return_none_but_only_findings_otherwise() -> None:
    def nothing() -> None: ...

    def wrong() -> list[str]:
        return ["all is well"]

    nothing.__name__ = wrong.__name__ = "diagnose"
    assert findings_of(hookimpl(nothing)) == []
    [finding] = findings_of(hookimpl(wrong))
    assert finding.status == "problem" and "'all is well'" in finding.detail


def test_module_that_cannot_be_imported_is_reported_with_its_error(site: Path) -> None:
    (site / "fake_broken.py").write_text("raise OSError('libcudart.so: no such file')\n", encoding="utf-8")
    assert Finding.of_module("json") == Finding("json", "ok", "can be imported")
    finding = Finding.of_module("fake_broken", "pip install it")
    assert (finding.status, finding.help, finding.exit_code) == ("problem", "pip install it", 5)
    assert "OSError: libcudart.so" in finding.detail
