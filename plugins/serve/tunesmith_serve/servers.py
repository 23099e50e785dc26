"""The commands that serve a model, as each server wants them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tunesmith import ConfigError
from tunesmith_serve.facts import Facts, need_merged, rank, why_not_as_adapter

HOST = "127.0.0.1"
"""Servers listen on this machine only. A server has no password, so its user opens it to others: -- --host 0.0.0.0."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of --max-lora-rank that vLLM has."""
PORT = 8000


@dataclass(frozen=True)
class Server:
    """A program that serves models.

    Args:
        executable: its name on PATH.
        commands: return its commands for a model, to be run one after the other: (facts, executable, port, devices).
        install: how to get it.
        modules: Python modules that it needs beside its executable, in this environment.
    """

    executable: str
    commands: Callable[[Facts, str, int, int], list[list[str]]]
    install: str
    modules: tuple[str, ...] = ()

    def path(self) -> str | None:
        """Return the path of the executable; None if it is not installed."""
        if any(find_spec(module) is None for module in self.modules):
            return None
        beside = shutil.which(self.executable, path=str(Path(sys.executable).parent)) if self.modules else None
        return beside or shutil.which(self.executable)


def parallel(facts: Facts, devices: int) -> int:
    """Return the number of devices that share a model: as many as divide its attention heads."""
    heads = facts.heads or 1
    return max((n for n in range(1, devices + 1) if heads % n == 0), default=1)


def vllm(facts: Facts, executable: str, port: int, devices: int) -> list[list[str]]:
    """Return the command of vLLM."""
    words = [executable, "serve", facts.model, "--host", HOST, "--port", str(port)]
    words += ["--dtype", _dtype(facts)]
    if facts.context:
        words += ["--max-model-len", str(facts.context)]
    if (size := parallel(facts, devices)) > 1:
        words += ["--tensor-parallel-size", str(size)]
    if facts.adapter:
        if reason := why_not_as_adapter(facts):
            raise need_merged(facts, "vLLM", reason)
        if rank(facts) > RANKS[-1]:
            raise need_merged(facts, "vLLM", f"its rank is {rank(facts)}, and the largest one there is {RANKS[-1]}")
        words += ["--enable-lora", "--lora-modules", f"{facts.name}={facts.adapter}"]
        words += ["--max-lora-rank", str(next(one for one in RANKS if one >= rank(facts)))]
    else:
        words += ["--served-model-name", facts.name]
    if facts.head:
        words += ["--runner", "pooling", "--convert", "classify"]
    if facts.template:
        words += ["--chat-template", str(facts.template)]
    return [words]


def sglang(facts: Facts, executable: str, port: int, devices: int) -> list[list[str]]:
    """Return the command of SGLang."""
    words = [executable, "serve", "--model-path", facts.model, "--host", HOST, "--port", str(port)]
    words += ["--dtype", _dtype(facts)]
    if facts.context:
        words += ["--context-length", str(facts.context)]
    if (size := parallel(facts, devices)) > 1:
        words += ["--tp", str(size)]
    if facts.adapter:
        if reason := why_not_as_adapter(facts):
            raise need_merged(facts, "SGLang", reason)
        words += ["--enable-lora", "--lora-paths", f"{facts.name}={facts.adapter}", "--max-lora-rank", str(rank(facts))]
    else:
        words += ["--served-model-name", facts.name]
    if facts.head:
        words += ["--is-embedding"]
    if facts.template:
        words += ["--chat-template", str(facts.template)]
    return [words]


def transformers(facts: Facts, executable: str, port: int, devices: int) -> list[list[str]]:
    """Return the command of the server of transformers, which needs no GPU."""
    if facts.adapter:
        raise need_merged(facts, "transformers serve", "it loads full models only")
    if facts.head:
        raise _generates_only(facts, "transformers serve")
    model = str(Path(facts.model).absolute()) if Path(facts.model).exists() else facts.model
    device = "auto" if devices else "cpu"
    return [[executable, "serve", model, "--host", HOST, "--port", str(port), "--device", device]]


def llamacpp(facts: Facts, executable: str, port: int, devices: int) -> list[list[str]]:
    """Return the command of llama.cpp for an exported GGUF file."""
    if facts.head:
        raise _generates_only(facts, "llama.cpp")
    if facts.gguf is None:
        raise _export_first(facts, "a GGUF file", "gguf")
    words = [executable, "-m", str(facts.gguf), "--alias", facts.name, "--host", HOST, "--port", str(port), "--jinja"]
    return [words + (["--n-gpu-layers", "999"] if devices else [])]


def ollama(facts: Facts, executable: str, port: int, devices: int) -> list[list[str]]:
    """Return the commands that make a model of Ollama from an exported folder, and talk to it."""
    if facts.head:
        raise _generates_only(facts, "Ollama")
    if facts.modelfile is None:
        raise _export_first(facts, "a Modelfile", "ollama")
    name = facts.name.lower()
    return [[executable, "create", name, "-f", str(facts.modelfile)], [executable, "run", name]]


SERVERS = {
    "vllm": Server("vllm", vllm, "pip install vllm, in an environment of its own"),
    "sglang": Server("sglang", sglang, "pip install sglang, in an environment of its own"),
    "llama.cpp": Server("llama-server", llamacpp, "get llama-server from the releases of llama.cpp"),
    "ollama": Server("ollama", ollama, "install Ollama from ollama.com"),
    "transformers": Server(
        "transformers", transformers, 'pip install "transformers[serving]"', ("fastapi", "uvicorn", "openai")
    ),
}
"""Servers by name, the preferred ones first."""


def choose(facts: Facts) -> str:
    """Return the name of the first installed server that can serve a model. Raises ConfigError if there is none."""
    problems = []
    for name, server in SERVERS.items():
        path = server.path()
        if path is None:
            continue
        try:
            server.commands(facts, path, PORT, 0)
        except ConfigError as error:
            problems += error.problems
        else:
            return name
    if problems:
        raise ConfigError(problems)
    help = "; or ".join([SERVERS["vllm"].install, SERVERS["transformers"].install])
    raise ConfigError("no server is installed", where="command line", code="usage", help=help)


def _dtype(facts: Facts) -> str:
    return facts.dtype if facts.dtype in ("bfloat16", "float16", "float32") else "auto"


def _generates_only(facts: Facts, server: str) -> ConfigError:
    message = f"{server} generates text, and {facts.name} is a model with a score head"
    return ConfigError(message, where="command line", code="usage", help="write --with vllm or --with sglang")


def _export_first(facts: Facts, what: str, form: str) -> ConfigError:
    help = f"tunesmith export {facts.adapter or facts.model} --to {form}"
    return ConfigError(
        f"{facts.name} has no {what} yet".replace("no a ", "no "), where="command line", code="usage", help=help
    )
