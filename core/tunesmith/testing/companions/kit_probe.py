"""Write the metrics of each step to kit.jsonl, and interrupt the run after a step, as a signal would."""

import json
import signal

from tunesmith import Plugin, Settings, hookimpl


class ProbeSettings(Settings):
    kit_interrupt_after: int = 0
    """Step after which the process gets SIGTERM; 0 for none."""


plugin = Plugin(settings=ProbeSettings, on_resume={"kit_interrupt_after": "free"})


@hookimpl(trylast=True)
def on_step(run, record):
    if run.world.main:
        metrics = {name: float(value) for name, value in {**record.metrics, **(record.evaluation or {})}.items()}
        with (run.output_dir / "kit.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": run.step, **metrics}) + "\n")
    if run.step == run.settings(ProbeSettings).kit_interrupt_after:
        signal.raise_signal(signal.SIGTERM)
