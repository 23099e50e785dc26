"""Each conformance check fails for a plugin that breaks its promise, and the message says what to change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import HEADER, distribution
from tests.repo.source import ROOT
from tunesmith import TunesmithError
from tunesmith.testing import CHECKS, Failure, Setup, Subject, write_model
from tunesmith.testing.checks import KINDS
from tunesmith.testing.conformance import in_order

METHOD = """
plugin = Plugin(method=Method(rows=("pair",)), needs=Needs(logps=True))

@hookimpl
def compute_loss(run, out, batch):
    from tunesmith import Term
    {loss}
"""
STRATEGY = """
plugin = Plugin(strategies={{"text": ("broken",)}})

@hookimpl
def build_dataset(run, rows):
    from tunesmith import Example
    {before}
    for number, row in enumerate(rows):
        {body}
"""
SETTINGS = """
class Keys(Settings):
    {key}

plugin = Plugin(settings=Keys)

@hookimpl
def validate(run):
    {body}
"""
VALIDATED = """calm: int = 1

    @__import__("pydantic").field_validator("calm")
    def known(cls, value):
        return {1: value}[value]
"""
LOGGER = """
plugin = Plugin({declaration})

@hookimpl
def on_step(run, policy):
    {body}
"""
OPTIMIZER = """
import torch

class Counting(torch.optim.SGD):
    steps = 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.steps
        super().step()

plugin = Plugin(answers={"optimizer": ("counting",)})

@hookimpl
def build_optimizer(run, model):
    return Counting([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
"""
ADAPTER = """
import contextlib
plugin = Plugin(answers={"adapter": ("half",)})

@hookimpl
def patch_model(run, model):
    from tunesmith import Adapter
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    run.adapter = Adapter("half", contextlib.nullcontext)
    return model
"""
SAVED = """
@hookimpl
def saved_parameters(policy):
    return [name for name, _ in policy.model.named_parameters()]
"""
COUNTED = "calls = []\n" + METHOD.format(
    loss="calls.append(1); return {'a': Term(-out.logps.sum() * len(calls), 'tokens')}"
)
BY_RANK = METHOD.format(loss="return {'a': Term(-out.logps.sum() * (1 + run.world.rank), 'tokens')}")
SCALED_TWICE = """
plugin = Plugin(method=Method(rows=("pair",)), needs=Needs(logps=True))

@hookimpl
def patch_model(run, model):
    model.lm_head.weight.data.mul_(1.5)
    return model

@hookimpl
def compute_loss(out):
    from tunesmith import Term
    return {"a": Term(-out.logps.sum(), "tokens")}
"""
FORGETFUL = (
    ADAPTER
    + """
calls = []

@hookimpl(wrapper=True)
def compute_loss():
    terms = yield
    calls.append(1)
    for term in terms.values():
        object.__setattr__(term, "sum", term.sum * len(calls))
    return terms
"""
)
ACROSS_THE_PACK = ADAPTER.replace(
    "    return model\n",
    """    model.model.embed_tokens.register_forward_hook(lambda m, i, out: out + 0.1 * out.cumsum(1))
    return model
""",
)
TOKENS = "run.tokenizer(row.require('text')).input_ids"
FIRST_ROW = STRATEGY.replace("{before}", "pass").replace("{body}", f"yield Example.text({TOKENS})")
FIRST_ROW += "@hookimpl\ndef check_row(row):\n    {}\n"
BAD: list[tuple[str, str, str]] = [
    ("declaration", 'plugin = Plugin(answers={"rl": ("x",)})', "answers rl.*compute_loss is not implemented"),
    ("declaration", 'plugin = Plugin(switches=("x",))', "switches names x"),
    ("hook_signatures", "plugin = Plugin()\n@hookimpl\ndef on_stepp(run): ...", "did you mean on_step"),
    ("hook_signatures", "plugin = Plugin()\n@hookimpl\ndef on_step(run, loss): ...", "asks for loss.*offers run"),
    ("hook_signatures", "plugin = Plugin()\ndef on_step(run): ...", "add @hookimpl"),
    ("hook_signatures", "plugin = Plugin()\n@hookimpl(wrapper=True)\ndef compute_loss(): ...", "does not yield"),
    ("error_codes", "plugin = Plugin()\ndef f():\n    raise ValueError(code='no-such')", "'no-such'.*errors.toml"),
    ("documented_keys", SETTINGS.format(key="calm: int = 1", body="pass"), "calm has no description"),
    ("valid_defaults", SETTINGS.format(key="calm: int = 'x'", body="pass"), "default of Keys.calm"),
    ("valid_defaults", SETTINGS.format(key="calm: int", body="pass"), "has no default"),
    ("wrong_values", SETTINGS.format(key=VALIDATED, body="pass"), "KeyError instead of a ConfigError"),
    (
        "misspelled_keys",
        SETTINGS.format(key="calmness: int = 1\n    calmnesss: int = 1", body="pass"),
        "suggest calmness",
    ),
    ("odd_values", SETTINGS.format(key="calm: float = 1.0", body="1 / run.settings(Keys).calm"), "ZeroDivisionError"),
    ("one_example_for_each_row", STRATEGY.format(before="pass", body=f"yield Example.text({TOKENS}, 0.0)"), "trained"),
    (
        "one_example_for_each_row",
        STRATEGY.format(before="pass", body=f"yield from [Example.text({TOKENS})] * 2"),
        "not one example for each row",
    ),
    (
        "same_examples_each_time",
        STRATEGY.format(before="pass", body=f"yield Example.text({TOKENS} + [number])"),
        "row 3 gives another example",
    ),
    ("first_row_is_checked", FIRST_ROW.format("row.require('nothing')"), "check_row refuses a row that build_dataset"),
    ("first_row_is_checked", FIRST_ROW.format("..."), "check_row accepts a row without columns"),
    (
        "errors_of_rows",
        STRATEGY.format(before="pass", body="yield Example.text(run.tokenizer(row['text']).input_ids)"),
        "KeyError.*row.require",
    ),
    (
        "same_examples_in_workers",
        STRATEGY.format(before="import os", body=f"yield Example.text({TOKENS} + [os.getpid() % 200])"),
        "two processes build other examples",
    ),
    (
        "finite_loss",
        METHOD.format(loss="return {'a': Term(out.logps.sum() * float('nan'), 'tokens')}"),
        "NumericalError|not finite",
    ),
    ("finite_loss", METHOD.format(loss="return {'a': Term(out.logps.sum() * 0, 'tokens')}"), "no weight has changed"),
    (
        "accumulated_is_one_batch",
        METHOD.format(loss="return {'a': Term(-out.logps.mean() * batch.examples, 'examples')}"),
        "divide by a count",
    ),
    (
        "uneven_batches",
        METHOD.format(loss="return {'a': Term(-out.logps.sum() / batch.examples, 1)}"),
        "divide by a count",
    ),
    (
        "packed_is_unpacked",
        METHOD.format(loss="return {'a': Term(-(out.logps * (batch.score_from + 1)).sum() / 100, 'tokens')}"),
        "batch.sequence",
    ),
    (
        "shared_is_repeated",
        METHOD.format(loss="return {'a': Term(-out.logps.sum() * batch.input_ids.numel() / 100, 'tokens')}"),
        "batch.sequence",
    ),
    (
        "resumed_loss",
        COUNTED,
        "register_state",
    ),
    (
        "observer_changes_no_weight",
        LOGGER.format(declaration="", body="import torch; torch.rand(1); policy.model.lm_head.weight.data.mul_(1.01)"),
        "trains differently",
    ),
    ("failing_disk", LOGGER.format(declaration="", body="(run.output_dir / 'x').write_text('x')"), "best_effort=True"),
    (
        "nothing_is_left_behind",
        LOGGER.format(declaration="", body="import os; os.environ[f'LEFT_{run.output_dir.name}'] = '1'"),
        "an environment variable",
    ),
    ("state_round_trip", OPTIMIZER, "updates differently"),
    ("resumed_optimizer", OPTIMIZER, "differs from one without interruption"),
    ("disabled_is_the_base_model", ADAPTER + SAVED, "switched off"),
    ("saved_adapter", ADAPTER, "no key"),
    ("saved_model", SCALED_TWICE, "after saving and loading"),
    ("resumed_adapter", FORGETFUL + SAVED, "differs from one without interruption"),
    ("adapter_on_packs", ACROSS_THE_PACK + SAVED, "a prefix of each sequence has no place in a pack"),
    ("trains_an_adapter", COUNTED, "packing changes training|differs from one without interruption"),
    ("two_processes_are_one", BY_RANK, "train differently from one"),
    ("only_the_adapter_is_trained", ADAPTER.replace("run.adapter = ", ""), "run.adapter is not set"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("kit") / "model")


def cases() -> list[Any]:
    """Return a test parameter for each broken plugin, marked slow where the check is."""
    slow = {name for name, check in CHECKS.items() if check.slow}
    return [
        pytest.param(*case, id=f"{number}-{case[0]}", marks=[pytest.mark.slow] if case[0] in slow else [])
        for number, case in enumerate(BAD)
    ]


@pytest.mark.parametrize(("check", "source", "message"), cases())
def test_a_broken_promise_is_a_failure(check: str, source: str, message: str, model: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(HEADER + source, encoding="utf-8")
    subject = Subject(str(plugin), Setup(), tmp_path, model)
    assert CHECKS[check].why_not(subject) is None
    with pytest.raises((Failure, TunesmithError), match=f"(?s){message}"):
        CHECKS[check].run(subject)


PACKAGED: dict[str, tuple[dict[str, Any], str]] = {
    "entry_point": ({"source": "plugin = Plugin()"}, "has no docstring"),
    "static_metadata": ({"source": "plugin = Plugin()", "described_by": "plugin = Plugin(sources=('x',))"}, "sources"),
    "version_range": ({"source": "plugin = Plugin()", "requires": ["tunesmith-core>=0.1"]}, "range of versions"),
    "light_import": ({"source": "import torch\nplugin = Plugin()"}, "imports torch"),
}


@pytest.mark.parametrize("check", PACKAGED)
def test_a_broken_package_is_a_failure(
    check: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, message = PACKAGED[check]
    monkeypatch.syspath_prepend(str(tmp_path))
    distribution(tmp_path, f"fake{check.replace('_', '')}", **options)
    subject = Subject(f"fake{check.replace('_', '')}", Setup(), tmp_path, model)
    with pytest.raises((Failure, TunesmithError), match=message):
        CHECKS[check].run(subject)


def test_every_check_is_shown_to_fail() -> None:
    assert {name for name, *_ in BAD} | set(PACKAGED) == set(CHECKS)


def test_the_page_lists_every_check_with_its_promise() -> None:
    page = (ROOT / "docs/conformance.md").read_text("utf-8")
    lines = [
        f"| `{check.name}`{' (slow)' if check.slow else ''} | {KINDS[check.kind]} | {check.promise} |"
        for check in in_order()
    ]
    assert "\n".join(lines) in page, "\n".join(lines)


@pytest.mark.slow
def test_the_command_line_checks_a_local_plugin_and_refuses_an_unknown_one(tmp_path: Path) -> None:
    (tmp_path / "quiet.py").write_text(HEADER + "plugin = Plugin()\n", encoding="utf-8")

    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tunesmith-plugin", name]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    local, unknown = run("./quiet.py"), run("loraa")
    assert local.returncode == 0 and "3 passed" in local.stdout, local.stdout
    assert unknown.returncode == 4 and "did you mean 'lora'?" in unknown.stderr, unknown.stderr
