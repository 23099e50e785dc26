"""Code that comes with a model runs only if the YAML names its model, commit and hash, and no other code runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunesmith_hf.trust import hash_of, read_code

from tests import tiny
from tunesmith import SafetyError
from tunesmith.api import prepare

CONFIGURATION = """
from transformers import LlamaConfig

class OwnConfig(LlamaConfig):
    model_type = "own"
"""
MODELING = """
from pathlib import Path
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
from .words import WORD

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
    word = WORD
"""
CODE = {"configuration_own.py": CONFIGURATION, "modeling_own.py": MODELING, "words.py": "WORD = 'hashed'\n"}
AUTO_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    """Write a config whose model folder has three files of code and is loaded through its auto_map."""
    path = tiny.sft_config(tmp_path, max_steps=1)
    model = tmp_path / "model-llama"
    for name, content in CODE.items():
        (model / name).write_text(content, encoding="utf-8")
    edit(model / "config.json", auto_map=AUTO_MAP, model_type="own", architectures=["OwnForCausalLM"])
    return path


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def permission(model: Path | str, **changes: Any) -> str:
    """Return the override that permits the current code of a folder."""
    values = {"name": str(model), "sha256": hash_of(read_code(Path(model)))} | changes
    return f"trust_remote_code={json.dumps({k: v for k, v in values.items() if v is not None})}"


def word_of(run: Any) -> str:
    from tunesmith import build_policy

    return build_policy(prepare(run)).model.word


def test_permitted_code_trains_and_is_saved_with_the_model(run_yaml: Path, tmp_path: Path) -> None:
    result = tiny.train(run_yaml, permission(tmp_path / "model-llama"))
    assert type(result.policy.model).__name__ == "OwnForCausalLM" and result.policy.model.word == "hashed"
    assert (tmp_path / "out/modeling_own.py").read_text() == MODELING
    assert str(tmp_path / "model-llama") == result.policy.model.config.name_or_path


def test_custom_tokenizer_runs_with_the_same_permission(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    code = "from transformers import PreTrainedTokenizerFast\nclass OwnTokenizer(PreTrainedTokenizerFast): ...\n"
    (model / "tokenization_own.py").write_text(code)
    own = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    edit(model / "tokenizer_config.json", auto_map=own, tokenizer_class="OwnTokenizer")
    run = prepare(tiny.start(run_yaml, permission(model)))
    assert type(run.tokenizer).__name__ == "OwnTokenizer" and run.tokenizer.name_or_path == str(model)
    (model / "tokenization_own.py").write_text(code + "# edited\n")
    with pytest.raises(SafetyError, match="does not match sha256"):
        prepare(tiny.start(run_yaml, permission(model, sha256="1" * 64)))


def test_error_without_permission_shows_what_to_write(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    for overrides in ([], ["trust_remote_code=false"]):
        with pytest.raises(SafetyError, match=r"config\.json: auto_map\.\w+ asks for code") as caught:
            tiny.start(run_yaml, *overrides)
        assert f"trust_remote_code: {{name: {model}, sha256: " in str(caught.value)
    with pytest.raises(SafetyError, match="trust_remote_code: true would run whatever") as caught:
        tiny.start(run_yaml, "trust_remote_code=true")
    assert "command line (trust_remote_code)" in str(caught.value) and "{name: " in str(caught.value)


def test_error_for_a_hash_lists_the_files_and_the_current_hash(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    for sha256 in (None, "0" * 64):
        with pytest.raises(SafetyError) as caught:
            tiny.start(run_yaml, permission(model, sha256=sha256))
        message = str(caught.value)
        assert f"'words.py': {len(CODE['words.py'])} bytes" in message and "modeling_own.py" in message
        (now,) = re.findall(r"write sha256: (\w{64})$", message)
        tiny.start(run_yaml, permission(model, sha256=now))


def test_hash_equals_the_output_of_sha256sum(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    (model / "below").mkdir()
    (model / "below/more.py").write_text("pass\n")
    command = "find . -name '*.py' -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum here")
    done = subprocess.run(["sh", "-c", command], cwd=model, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == hash_of(read_code(model))


@pytest.mark.parametrize("change", ["edited", "added", "renamed", "below"])
def test_changed_code_is_refused(change: str, run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    allowed = permission(model)
    if change == "edited":
        (model / "words.py").write_text("WORD = 'edited'\n")
    elif change == "renamed":
        (model / "words.py").rename(model / "sword.py")
    else:
        (model / "below").mkdir()
        (model / ("below/x.py" if change == "below" else "x.py")).write_text("")
    with pytest.raises(SafetyError, match="does not match sha256"):
        tiny.start(run_yaml, allowed)


def test_code_that_changes_after_the_check_never_runs(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    run = tiny.start(run_yaml, permission(model))
    (model / "words.py").write_text("WORD = 'edited'\n")
    with pytest.raises(SafetyError, match="does not match sha256"):
        word_of(run)


REFERENCES = {
    "of another repository": "other/repo--modeling_own.OwnForCausalLM",
    "of another folder": "../elsewhere/modeling_own.OwnForCausalLM",
    "by an absolute path": "{out}/evil.OwnForCausalLM",
    "in no file of the folder": "nothing.OwnForCausalLM",
    "of a list": ["other/repo--tok.Tokenizer", None],
}


@pytest.mark.parametrize("case", REFERENCES)
@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"]
)
def test_class_from_elsewhere_is_refused_despite_the_right_hash(
    case: str, file: str, run_yaml: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model-llama"
    reference = REFERENCES[case]
    reference = reference.format(out=tmp_path) if isinstance(reference, str) else reference
    edit(model / file, vision_config={"deep": [{"auto_map": {"AutoModel": reference}}]})
    with pytest.raises(SafetyError, match=rf"{re.escape(file)}: vision_config\.deep\.auto_map"):
        tiny.start(run_yaml, permission(model))


def test_permission_applies_only_to_base_model(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    with pytest.raises(SafetyError, match=r"trust_remote_code\.name is other/model, but base_model"):
        tiny.start(run_yaml, permission(model, name="other/model"))
    other = shutil.copytree(model, tmp_path / "tokenizer")
    edit(other / "config.json", auto_map={}, model_type="llama")
    edit(other / "tokenizer_config.json", auto_map={"AutoTokenizer": ["words.Tokenizer", None]})
    with pytest.raises(SafetyError, match=r"tokenizer_config\.json: auto_map"):
        prepare(tiny.start(run_yaml, permission(model), f"tokenizer_config={other}"))


def test_folder_takes_no_revision_and_hub_id_needs_a_full_commit(run_yaml: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-llama"
    with pytest.raises(SafetyError, match="is a folder, which has no revision"):
        tiny.start(run_yaml, permission(model, revision=COMMIT))
    for revision in ("main", "v1.0", COMMIT[:12], COMMIT.upper()):
        with pytest.raises(SafetyError, match="is not a full commit, so its code may change"):
            tiny.start(run_yaml, permission(model, revision=revision))
    hub = ["base_model=owner/own", permission(model, name="owner/own")]
    with pytest.raises(SafetyError, match="trust_remote_code has no revision, the commit of owner/own"):
        tiny.start(run_yaml, *hub)


def test_code_in_the_shared_module_cache_never_runs(
    run_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers would accept a file of the same name, size and time in its own cache as the model's."""
    from transformers import dynamic_module_utils

    model, cache = tmp_path / "model-llama", tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(cache))
    monkeypatch.setattr(sys, "path", [str(cache), *sys.path])
    assert word_of(tiny.start(run_yaml, permission(model))) == "hashed"
    files_hash = dynamic_module_utils._compute_local_source_files_hash(model, model / "modeling_own.py")
    planted = cache / "transformers_modules" / "model_hyphen_llama" / files_hash / "words.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("WORD = 'tamper'\n")
    os.utime(planted, ns=(time := (model / "words.py").stat().st_mtime_ns, time))
    assert word_of(tiny.start(run_yaml, permission(model))) == "hashed"
    assert not any(name.startswith("transformers_modules") for name in sys.modules)


class Hub:
    """A stand-in for huggingface_hub with snapshots of one model by commit, and a tag that points to one of them."""

    def __init__(self, folder: Path):
        self.folder, self.tag, self.requests = folder, COMMIT, []

    def add(self, commit: str, model: Path) -> None:
        shutil.copytree(model, self.folder / "snapshots" / commit)

    def snapshot_download(self, name: str, revision: str | None = None, **patterns: Any) -> str:
        self.requests.append((name, revision, patterns["allow_patterns"]))
        return str(self.folder / "snapshots" / (revision if revision in self.commits() else self.tag))

    def commits(self) -> list[str]:
        return [path.name for path in (self.folder / "snapshots").iterdir()]


@pytest.fixture
def hub(run_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    stand_in.add(COMMIT, tmp_path / "model-llama")
    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in.snapshot_download)
    return stand_in


def test_hub_code_is_taken_from_the_named_commit(hub: Hub, run_yaml: Path, tmp_path: Path) -> None:
    moved = "f" * 40
    edited = shutil.copytree(tmp_path / "model-llama", tmp_path / "edited")
    (edited / "words.py").write_text("WORD = 'edited'\n")
    hub.add(moved, edited)
    hub.tag = moved
    allowed = permission(tmp_path / "model-llama", name="owner/own", revision=COMMIT)
    run = tiny.start(run_yaml, "base_model=owner/own", allowed)
    assert word_of(run) == "hashed"
    assert {revision for _, revision, _ in hub.requests} == {COMMIT}
    assert run.notes["owner/own"] == f"commit {COMMIT} of the hub"
    with pytest.raises(SafetyError, match="does not match sha256"):
        word_of(tiny.start(run_yaml, "base_model=owner/own", allowed.replace(COMMIT, moved)))


def test_hub_that_returns_another_commit_is_refused(hub: Hub, run_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "hub/snapshots" / COMMIT).rename(tmp_path / "hub/snapshots" / ("e" * 40))
    hub.tag = "e" * 40
    allowed = permission(tmp_path / "model-llama", name="owner/own", revision=COMMIT)
    with pytest.raises(Exception, match=f"asked for commit {COMMIT}, but got eeee"):
        word_of(tiny.start(run_yaml, "base_model=owner/own", allowed))


def test_no_pickles_and_no_unpermitted_code_are_downloaded(hub: Hub, run_yaml: Path, tmp_path: Path) -> None:
    with pytest.raises(SafetyError, match="auto_map"):
        prepare(tiny.start(run_yaml, "base_model=owner/own"))
    assert hub.requests and not any(
        re.search(r"py$|bin|pt|pkl", p) for _, _, patterns in hub.requests for p in patterns
    )


def test_tokenizer_and_weights_share_one_commit_when_a_branch_moves(hub: Hub, run_yaml: Path, tmp_path: Path) -> None:
    edit(tmp_path / "hub/snapshots" / COMMIT / "config.json", auto_map={}, model_type="llama")
    run = prepare(tiny.start(run_yaml, "base_model=owner/own", "revision_of_model=main"))
    hub.tag = "d" * 40
    from tunesmith import build_policy

    assert build_policy(run).model.name_or_path == "owner/own"
    assert [revision for _, revision, _ in hub.requests] == ["main", COMMIT]
