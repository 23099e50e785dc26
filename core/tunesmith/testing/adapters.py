"""Checks of adapters: only the adapter is trained, and it can be switched off, saved and loaded."""

from __future__ import annotations

from tunesmith.testing import losses, running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.subject import Subject


@check("adapter")
def only_the_adapter_is_trained(subject: Subject) -> None:
    """Check that training changes the adapter's parameters and none of the base model."""
    for case in losses.cases(subject):
        one = losses.outcome(subject, case)
        if one.policy.run.adapter is None:
            raise Failure("run.adapter is not set", "set run.adapter = Adapter(...) in patch_model")
        before = losses.initial(subject, case)
        changed = {name for name in one.weights if not one.weights[name].equal(before[name])}
        base = {name for name in one.weights if name not in one.trained}
        if changed & base:
            raise Failure(f"{min(changed & base)} has changed, but is frozen", "do not write to weights of the base")
        if not changed:
            raise Failure("no parameter of the adapter has changed", "leave requires_grad set on the adapter")
        if not base:
            raise Failure("every parameter is trained", "freeze the parameters of the base model in patch_model")


@check("adapter")
def disabled_is_the_base_model(subject: Subject) -> None:
    """Check that with the adapter switched off, a trained policy computes what the base model computes."""
    for case in losses.cases(subject):
        one = losses.outcome(subject, case)
        base_run, base = running.built(subject.write(f"{case[0]}-base", case[2], {}))
        theirs = running.outputs(base_run, base)
        with one.policy.run.adapter.disabled():
            ours = running.outputs(one.policy.run, one.policy)
        again = running.outputs(one.policy.run, one.policy)
        for name, value in theirs.items():
            if float((ours[name] - value).abs().max()) > 1e-6:
                raise Failure(f"switched off, the adapter still changes {name}", "make Adapter.disabled bypass it")
            if again[name].equal(ours[name]):
                raise Failure(f"the adapter does not change {name}, or stays off", "make disabled() a context manager")


@check("adapter")
def saved_adapter(subject: Subject) -> None:
    """Check that a saved adapter loads again, by the plugin's key for it, and gives the same values."""
    key = next((key for key in subject.info["schema"].get("properties", {}) if key.endswith("_model_dir")), None)
    if key is None:
        change = "add a key NAME_model_dir that continues to train the adapter in a folder"
        raise Failure("no key of the plugin loads a saved adapter", change)
    for name, way, kind in losses.cases(subject):
        one = losses.outcome(subject, (name, way, kind))
        own = set(subject.info["schema"]["properties"])
        kept = {k: v for k, v in subject.setup.keys.items() if k not in own}
        path = subject.write(f"{name}-loaded", kind, way, **(dict.fromkeys(own) | kept | {key: str(one.folder)}))
        run, policy = running.built(path)
        ours, theirs = running.outputs(run, policy), running.outputs(one.policy.run, one.policy)
        for output, value in theirs.items():
            difference = float((ours[output] - value).abs().max())
            if difference > 1e-6:
                message = f"{output} differ by {difference:.1e} after saving and loading the adapter"
                raise Failure(message, "write every trained weight in save_model, and load it in patch_model")


@check("adapter")
def resumed_adapter(subject: Subject) -> None:
    """Check that a run that is interrupted and resumed ends with the same adapter, bit for bit."""
    for case in losses.cases(subject):
        losses.require_resumed(subject, case)


@check("adapter")
def adapter_on_packs(subject: Subject) -> None:
    """Check that an adapter trains the same on packed rows and on repeated prompts: no token sees another example."""
    for case in losses.cases(subject):
        for split in ("packed", "repeated"):
            others = losses.outcome(subject, case, split), losses.outcome(subject, case)
            promise = f"{case[1]}: {split} rows train differently"
            change = "an adapter may change layers, not the sequence: a prefix of each sequence has no place in a pack"
            running.require_close(*others, losses.initial(subject, case), promise, change)
