"""Each patch has one owner and a target that exists, and all patches are undone."""

from __future__ import annotations

import colorsys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import BASE, error_of, load, local_plugin
from tunesmith import api
from tunesmith.errors import PluginError
from tunesmith.plugins.patches import Patches
from tunesmith.run import Run


class Library:
    """A class of another library."""

    scale = 2

    def forward(self) -> str:
        return "library"

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def created(cls) -> str:
        return cls.__name__


class Child(Library): ...


HOME = f"{__name__}.Library"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what a failing test leaves patched."""
    for holder in (Library, colorsys):
        for name in ("forward", "static", "created", "scale", "rgb_to_hsv", "hsv_to_rgb"):
            if name in vars(holder):
                monkeypatch.setattr(holder, name, vars(holder)[name])


def patches_of(*owners: str) -> Patches:
    """Return a ledger whose patches belong to the given owners, one owner per patch."""
    names = iter(owners)
    patches = Patches()
    patches.owner = lambda: next(names)
    return patches


def test_patch_is_recorded_with_target_owner_and_count_and_undone() -> None:
    patches = patches_of("liger", "tiled", "tiled")
    instances = [Library(), Library()]
    before = dict(vars(Library))
    patches.replace(Library, "forward", lambda self: "patched")
    patches.replace(colorsys, "hsv_to_rgb", lambda *value: "patched")
    patches.replace_in(instances, "scale", lambda library: library.scale * 10, "scale of 2 libraries")
    assert [(p.target, p.owner, p.applied) for p in patches.entries] == [
        (f"{HOME}.forward", "liger", 1), ("colorsys.hsv_to_rgb", "tiled", 1), ("scale of 2 libraries", "tiled", 2),
    ]  # fmt: skip
    assert (Library().forward(), colorsys.hsv_to_rgb(0, 0, 0), [i.scale for i in instances]) == (
        "patched",
        "patched",
        [20, 20],
    )
    patches.undo()
    assert (Library().forward(), colorsys.hsv_to_rgb(0, 0, 0), [i.scale for i in instances]) == (
        "library",
        (0, 0, 0),
        [2, 2],
    )
    assert dict(vars(Library)) == before
    assert [vars(i) for i in instances] == [{}, {}]
    assert patches.entries == []


@pytest.mark.parametrize("name", ["static", "created", "forward"])
def test_undo_restores_static_and_class_methods(name: str) -> None:
    patches, before = Patches(), vars(Library)[name]
    patches.replace(Library, name, None)
    patches.undo()
    assert vars(Library)[name] is before


def test_undo_removes_a_patched_inherited_attribute_from_the_child() -> None:
    patches = Patches()
    patches.replace(Child, "forward", lambda self: "patched")
    assert (Child().forward(), Library().forward()) == ("patched", "library")
    patches.undo()
    assert "forward" not in vars(Child)


def test_two_owners_of_a_target_are_an_error_that_names_both() -> None:
    patches = patches_of("liger", "tiled")
    patches.replace(Library, "forward", lambda self: "first")
    error = error_of(patches.replace, Library, "forward", lambda self: "second")
    assert error.exit_code == 6
    assert all(word in str(error) for word in ("liger", "tiled", f"{HOME}.forward"))
    assert Library().forward() == "first"
    patches.undo()
    assert Library().forward() == "library"


def test_two_owners_of_a_target_in_instances_are_an_error() -> None:
    patches = patches_of("liger", "tiled")
    patches.replace_in([Library()], "forward", lambda _: None)
    error = error_of(patches.replace_in, [Library()], "forward", lambda _: None)
    assert "liger" in str(error) and "tiled" in str(error)


def test_patch_that_matches_nothing_is_an_error() -> None:
    patches = Patches()
    for call in (
        lambda: patches.replace(Library, "backward", None),
        lambda: patches.replace(colorsys, "no_such_function", None),
        lambda: patches.replace_in([], "forward", lambda _: None, "forward of the layers"),
        lambda: patches.replace_in((m for m in [1, 2] if m > 2), "forward", lambda _: None),
    ):
        error = error_of(call)
        assert error.exit_code == 6
        assert "no such attribute" in str(error) or "matched nothing" in str(error)
    assert patches.entries == []
    assert not hasattr(Library, "backward")


def test_patches_of_one_attribute_are_undone_in_reverse_order() -> None:
    patches, library = Patches(), Library()
    patches.replace(Library, "scale", 3)
    patches.replace_in([library], "scale", lambda instance: instance.scale + 1)
    patches.replace_in([library], "scale", lambda instance: instance.scale + 1, "scale again")
    assert library.scale == 5
    patches.undo()
    assert (library.scale, vars(library)) == (2, {})


def test_partially_applied_patch_is_undone() -> None:
    patches, instances = Patches(), [Library(), Library()]

    def make(library: Library) -> int:
        if library is instances[1]:
            raise RuntimeError("does not fit")
        return 7

    with pytest.raises(RuntimeError):
        patches.replace_in(instances, "scale", make)
    patches.undo()
    assert [vars(i) for i in instances] == [{}, {}]


PATCHING = """
import {module}
plugin = Plugin({declaration})

@hookimpl
def configure(run):
    run.patches.replace({module}, "rgb_to_hsv", lambda r, g, b: "{word}")
"""


def patching(folder: Path, word: str, declaration: str = "") -> None:
    """Write a plugin that patches colorsys.rgb_to_hsv in configure."""
    local_plugin(folder, word, PATCHING.format(module="colorsys", word=word, declaration=declaration))


def test_owner_is_the_plugin_of_the_running_hook(tmp_path: Path) -> None:
    patching(tmp_path, "mine")
    run = Run(*load(tmp_path, BASE + "plugins: [./mine.py]"))
    with run.alive():
        run.hooks.configure(run)
        run.patches.replace(Library, "scale", 3)
        assert colorsys.rgb_to_hsv(0, 0, 0) == "mine"
        assert [p.owner for p in run.patches.entries] == ["mine", "the core"]
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_wrapper_owns_its_patches(tmp_path: Path) -> None:
    source = """
    import colorsys
    plugin = Plugin()
    @hookimpl(wrapper=True)
    def load_tokenizer(run):
        tokenizer = yield
        run.patches.replace(colorsys, "rgb_to_hsv", None)
        return tokenizer
    """
    local_plugin(tmp_path, "wraps", source)
    local_plugin(tmp_path, "token", "plugin = Plugin()\n@hookimpl\ndef load_tokenizer():\n    return dict\n")
    run = Run(*load(tmp_path, BASE + "plugins: [./wraps.py, ./token.py]"))
    with run.alive():
        assert run.hooks.load_tokenizer(run) is dict
        assert [p.owner for p in run.patches.entries] == ["wraps"]


def test_two_plugins_with_one_target_end_the_run_without_a_patch(tmp_path: Path) -> None:
    original = colorsys.rgb_to_hsv
    patching(tmp_path, "one")
    patching(tmp_path, "two")
    run = Run(*load(tmp_path, BASE + "plugins: [./one.py, ./two.py]"))
    with pytest.raises(PluginError, match=r"colorsys\.rgb_to_hsv is patched by both one and two"), run.alive():
        run.hooks.configure(run)
    assert colorsys.rgb_to_hsv is original


def test_patches_are_undone_if_training_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    original = colorsys.rgb_to_hsv
    seen: list[Any] = []
    patching(tmp_path, "mine")
    failing = (
        "plugin = Plugin(models=('hub',))\n@hookimpl\n"
        "def load_model(run):\n    run.seen.append(len(run.patches.entries))\n    1 / 0\n"
    )
    local_plugin(tmp_path, "failing", failing)
    run = Run(*load(tmp_path, BASE + "plugins: [./mine.py, ./failing.py]\ndevice: cpu"))
    run.data, run.seen = types.SimpleNamespace(), seen  # type: ignore[assignment,attr-defined]
    error = error_of(api.train, run)
    assert "plugin failing" in str(error) and "ZeroDivisionError" in str(error)
    assert seen == [1]
    assert colorsys.rgb_to_hsv is original


def test_submodule_of_a_torch_module_is_restored() -> None:
    import torch

    layer = torch.nn.Sequential()
    layer.act = torch.nn.ReLU()
    before, patches = layer.act, Patches()
    patches.replace_in([layer], "act", lambda _: torch.nn.GELU(), "act")
    assert isinstance(layer.act, torch.nn.GELU)
    patches.undo()
    assert layer.act is before
