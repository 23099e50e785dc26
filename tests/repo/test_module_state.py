"""No plugin keeps state in its modules: it would mix up two runs in one process. `run.owned` keeps it with a run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.repo.source import python_files, short, tree

CONTAINERS = {
    "dict", "list", "set", "deque", "defaultdict", "OrderedDict", "Counter", "WeakKeyDictionary", "WeakValueDictionary",
    "WeakSet", "ContextVar", "local",
}  # fmt: skip
ALLOWED = {
    "plugins/chat/tunesmith_chat/process.py _CHILDREN": "for forked processes, which disown them; weak references",
    "plugins/hf/tunesmith_hf/private.py _copies": "by content; a model that a run returns goes on using its copy",
}


def empty_containers(module: ast.Module) -> Iterator[str]:
    """Yield the names at module level that begin as an empty container, to be filled later."""
    for node in module.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        value, targets = node.value, node.targets if isinstance(node, ast.Assign) else [node.target]
        is_empty = isinstance(value, ast.Dict | ast.List) and not (
            value.keys if isinstance(value, ast.Dict) else value.elts
        )
        if isinstance(value, ast.Call):
            is_empty = ast.unparse(value.func).rpartition(".")[2].partition("[")[0] in CONTAINERS and not any(
                isinstance(argument, ast.List | ast.Dict | ast.Set | ast.GeneratorExp) for argument in value.args
            )
        if is_empty:
            yield from (ast.unparse(target) for target in targets)


def test_plugins_have_no_containers_at_module_level_to_fill_during_a_run() -> None:
    files = [path for path in python_files("plugins", "contrib") if "tests" not in path.parts]
    state = {f"{short(path)} {name}" for path in files for name in empty_containers(tree(path))}
    assert state == set(ALLOWED), "keep it in an object that run.owned creates"


def test_empty_containers_are_seen_in_every_notation() -> None:
    source = (
        "import weakref\na = {}\nb: list[int] = []\nc = weakref.WeakKeyDictionary()\nd: dict[int, str] = dict()\n"
        "e = defaultdict(list)\nf = {'k': 1}\ng = (1,)\nh = frozenset({1})\ni = dict.fromkeys('ab')\n"
    )
    assert list(empty_containers(ast.parse(source))) == ["a", "b", "c", "d", "e"]
