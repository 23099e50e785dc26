"""Sample completions before, during and after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, PositiveInt

from tunesmith import ConfigError, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Policy, Run, StepRecord


class SampleSettings(Settings):
    """What is generated, and how."""

    generate_samples: bool = False
    """Generate completions before training, after each evaluation and after training."""
    num_generation_samples: PositiveInt = 3
    """Different prompts taken from held-out examples, or from training examples where none are held out."""
    generation_max_new_tokens: PositiveInt = 50
    """Longest completion in tokens."""
    generation_temperature: NonNegativeFloat = 0.0
    """Temperature of sampling; 0 takes the likeliest token."""
    generation_top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    sample_prompts: list[str] = []
    """Prompts of one's own, all of them used, instead of those from examples; user turns where there is a template."""


plugin = Plugin(
    settings=SampleSettings,
    switches=("generate_samples",),
    on_resume=dict.fromkeys(SampleSettings.model_fields, "free"),  # it has random numbers of its own
)


@hookimpl
def validate(run: Run) -> None:
    settings = run.settings(SampleSettings)
    errors = []
    if run.method.head != "lm":
        help = "drop the key: eval_accuracy and the rewards say how it does"
        errors.append(run.config.error("generate_samples", "has no effect: a model of scores writes no text", help))
    if settings.sample_prompts and "num_generation_samples" in settings.model_fields_set:
        message = "counts examples, and sample_prompts takes their place"
        errors.append(run.config.error("num_generation_samples", message, help="drop one of the two"))
    if settings.generation_top_p < 1 and settings.generation_temperature == 0:
        help = "write generation_temperature: 1.0, or drop the key"
        errors.append(run.config.error("generation_top_p", "has no effect at temperature 0", help=help))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    """Begin samples.jsonl with what the untrained model says; a resumed run finds that there."""
    from tunesmith_samples.lines import rewind
    from tunesmith_samples.sample import PATH, sample

    if run.world.main:
        rewind(run.output_dir / PATH, run.step)
    if run.step == 0:
        sample(run, policy, run.settings(SampleSettings), "before", 0)


@hookimpl
def on_step(run: Run, policy: Policy, record: StepRecord) -> None:
    from tunesmith_samples.sample import sample

    if record.evaluation is not None:
        sample(run, policy, run.settings(SampleSettings), f"step {record.step}", record.step)


@hookimpl
def on_end(run: Run, policy: Policy) -> None:
    """Sample the trained model, and show both side by side."""
    from tunesmith_samples.lines import read
    from tunesmith_samples.sample import PATH, sample
    from tunesmith_samples.table import show

    sample(run, policy, run.settings(SampleSettings), "after", run.step)
    if run.world.main:
        show(read(run.output_dir / PATH))
