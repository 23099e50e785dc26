"""Check each key of a configuration of DeepSpeed with the run. Without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunesmith import ConfigError, Problem, Run
from tunesmith.spelling import nearest
from tunesmith_deepspeed import rules
from tunesmith_deepspeed.zero import AUTO, KEY, Zero


class Checker:
    """The check of one configuration. `place` is the file that it is from, or None for a mapping in the YAML file."""

    def __init__(self, run: Run, values: dict[str, Any], place: str | None):
        self.run, self.values, self.place = run, values, place
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.kept: dict[str, Any] = {}

    def wrong(self, path: tuple[str, ...], message: str, help: str | None = None, code: str = "config") -> None:
        """Report a problem with a key of the configuration."""
        name = ".".join(path)
        if self.place is None:
            where = self.run.config.place((KEY, *path))
        else:
            where, name = f"{self.run.config.place(KEY)}", f"{self.place}: {name}"
        self.problems.append(Problem(f"{name} {message}", where, code, help))

    def idle(self, path: tuple[str, ...], why: str) -> None:
        self.notes.append(f"{'.'.join(path)} has no effect: {why}")

    def check(self) -> Zero:
        for name, value in self.values.items():
            self.top(name, value)
        zero = self.values.get("zero_optimization")
        stage = self.stage(zero)
        if isinstance(zero, dict):
            self.kept["zero_optimization"] = self.zero(zero, stage)
        if self.problems:
            raise ConfigError(self.problems)
        return Zero(stage, self.kept, tuple(self.notes))

    # the keys of the top

    def top(self, name: str, value: Any) -> None:
        """Check one key of the top."""
        if name == "zero_optimization":
            return
        if name in rules.STEP:
            self.same((name,), value, rules.STEP[name], getattr(self.run.core, rules.STEP[name]))
        elif name == "train_batch_size":
            self.batch(value)
        elif name in ("bf16", "bfloat16", "fp16"):
            self.precision(name, value)
        elif name == "optimizer":
            self.optimizer(value)
        elif name == "data_types":
            if value not in ({}, {"grad_accum_dtype": None}, {"grad_accum_dtype": "fp32"}):
                self.wrong((name,), "is decided by the run: gradients are added up in float32", "drop it")
        elif name in rules.PASSED:
            self.kept[name] = value
        elif name in rules.IDLE:
            self.idle((name,), rules.IDLE[name])
        elif name in rules.REFUSED:
            if not _off(value):
                self.wrong((name,), "is not supported here", rules.REFUSED[name])
        else:
            known = {*rules.STEP, *rules.PASSED, *rules.REFUSED, "zero_optimization", "bf16", "fp16", "optimizer"}
            self.unknown((name,), known)

    def same(self, path: tuple[str, ...], value: Any, key: str, decided: Any) -> None:
        """Check that a value is "auto", or the one that a key of the run has."""
        if value != AUTO and (isinstance(value, bool) or value != decided):
            written = key in self.run.config.document.values
            reason = f"{key} is {decided}" if written else f"{key} is {decided} by default"
            self.wrong(path, f"is {value!r}, but {reason}", f'write "auto", or {key}: {value} in the YAML file')

    def batch(self, value: Any) -> None:
        """Check the size of a step as far as it does not depend on the number of processes."""
        one = self.run.core.micro_batch_size * self.run.core.gradient_accumulation_steps
        if value != AUTO and (not isinstance(value, int) or value < one or value % one):
            message = f"is {value!r}, which is not {one} (micro_batch_size x gradient_accumulation_steps) per process"
            self.wrong(("train_batch_size",), message, 'write "auto"')
        elif value != AUTO:
            self.kept["train_batch_size"] = value

    def precision(self, name: str, value: Any) -> None:
        """Check a section for a number format: the keys `bf16` and `device` of the run decide."""
        if not isinstance(value, dict):
            return self.wrong((name,), "must be an object", 'write {"enabled": "auto"}')
        enabled = value.get("enabled", name != "fp16" and AUTO)
        if enabled not in (AUTO, True, False):
            return self.wrong((name, "enabled"), f"is {enabled!r}", 'write "auto"')
        if name == "fp16":
            if enabled is True:
                self.wrong((name, "enabled"), "is not supported", 'write "bf16": {"enabled": "auto"} in its place')
            return None
        core = self.run.core.bf16
        if (enabled is True and core is False) or (enabled is False and core is True):
            message = f"is {str(enabled).lower()}, but bf16 is {str(core).lower()} in the YAML file"
            self.wrong((name, "enabled"), message, 'write "auto"')
        if enabled != AUTO:
            self.kept["bf16"] = {"enabled": enabled}
        for key in value.keys() - {"enabled"}:
            self.wrong((name, key), "is not supported: trained weights and their gradients stay in float32", "drop it")
        return None

    def optimizer(self, value: Any) -> None:
        """Accept the section of an optimizer that leaves every value of an AdamW to the run."""
        section = value if isinstance(value, dict) else {}
        left = all(number == AUTO for number in section.get("params", {}).values())
        same = str(section.get("type", "")).lower() in ("adam", "adamw") and "adamw" in self.run.core.optimizer
        if not (left and same):
            help = "drop it; optimizer, learning_rate and weight_decay in the YAML file decide"
            self.wrong(("optimizer",), "is decided by the run", help)

    # zero_optimization

    def stage(self, zero: Any) -> int:
        """Return the stage; 0 after a problem."""
        path = ("zero_optimization", "stage")
        help = 'write "zero_optimization": {"stage": 2}'
        if not isinstance(zero, dict):
            message = "is missing" if zero is None else "must be an object"
            self.wrong(("zero_optimization",), message, help)
        elif "stage" not in zero:
            self.wrong(path, "is missing", help)
        elif zero["stage"] == 0 and zero["stage"] is not False:
            self.wrong(path, "is 0, which divides nothing", "drop deepspeed: several processes train with DDP")
        elif zero["stage"] not in (1, 2, 3) or isinstance(zero["stage"], bool):
            self.wrong(path, f"is {zero['stage']!r}", "write 1, 2 or 3")
        else:
            return int(zero["stage"])
        return 0

    def zero(self, zero: dict[str, Any], stage: int) -> dict[str, Any]:
        """Return what is kept of zero_optimization."""
        kept: dict[str, Any] = {"stage": stage}
        types = rules.ZERO | rules.ZERO3
        for name, value in zero.items():
            path = ("zero_optimization", name)
            if name == "stage":
                continue
            if name in ("offload_optimizer", "offload_param"):
                section = self.offload(path, value)
                if section and name == "offload_param" and stage != 3:
                    self.wrong(path, f"needs stage 3, and the stage is {stage}", "drop it, or write stage: 3")
                elif section:
                    kept[name] = section
            elif name in rules.IDLE_ZERO:
                self.idle(path, rules.IDLE_ZERO[name])
            elif name in rules.REFUSED_ZERO:
                if not _off(value) and (value is True or value != 1):  # 1 divides the weights once, as without the key
                    self.wrong(path, "is not supported", rules.REFUSED_ZERO[name])
            elif name in types:
                self.typed(path, value, types[name], auto=name in rules.BY_WIDTH)
                if name in rules.ZERO3 and stage != 3:
                    self.idle(path, f"it is for stage 3, and the stage is {stage}")
                else:
                    kept[name] = int(value) if isinstance(value, float) else value
            else:
                self.unknown(path, {*types, "stage", "offload_optimizer", "offload_param"})
        return kept

    def offload(self, path: tuple[str, ...], value: Any) -> dict[str, Any]:
        """Return what is kept of a section that offloads; empty if it offloads nothing."""
        if not isinstance(value, dict):
            if value is not None:
                self.wrong(path, "must be an object", 'write {"device": "cpu"}')
            return {}
        device = value.get("device", "none")
        if device == "nvme":
            self.wrong((*path, "device"), "is nvme, which is not supported", 'write "cpu"')
        elif device not in ("cpu", "none", None):
            self.wrong((*path, "device"), f"is {device!r}", 'write "cpu"')
        kept = {}
        for name, item in value.items():
            if name in rules.IDLE_OFFLOAD or name == "nvme_path":
                self.idle((*path, name), "it is for NVMe")
            elif name not in rules.OFFLOAD:
                self.unknown((*path, name), rules.OFFLOAD)
            elif item is not None:
                self.typed((*path, name), item, rules.OFFLOAD[name])
                kept[name] = item
        return kept if device == "cpu" else {}

    def typed(self, path: tuple[str, ...], value: Any, types: tuple[type, ...], auto: bool = False) -> None:
        """Report a value of another type. Whole numbers may be written as 5e8."""
        if auto and value == AUTO:
            return
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and value >= 0 and value == int(value) if int in types else isinstance(value, types)
        if not fits:
            wanted = {int: "a whole number", bool: "true or false", str: "a text"}[types[0]]
            self.wrong(path, f"must be {wanted}{' or auto' if auto else ''}, got {value!r}", code="wrong-type")

    def unknown(self, path: tuple[str, ...], known: Iterable[str]) -> None:
        close = nearest(path[-1], known)
        self.wrong(path, "is not a key that is read here", f"did you mean {close!r}?" if close else "drop it")


def _off(value: Any) -> bool:
    """Return True for a section that is switched off."""
    if isinstance(value, dict):
        return not value or value.get("enabled") is False or value.get("disable") is True
    return value in (None, False)
