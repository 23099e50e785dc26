"""Generate sample completions before, during and after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, PositiveInt

from tunesmith import ConfigError, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Policy, Run, StepRecord


class SampleSettings(Settings):
    """Settings of sample completions."""

    generate_samples: bool = False
    """Generate completions before training, after each evaluation and after training."""
    num_generation_samples: PositiveInt = 3
    """Number of distinct prompts to take from held-out examples, or from training examples if none are held out."""
    generation_max_new_tokens: PositiveInt = 50
    """Maximum length of a completion in tokens."""
    generation_temperature: NonNegativeFloat = 0.0
    """Sampling temperature. 0 always takes the most likely token."""
    generation_top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the most likely tokens whose probabilities add up to this value."""
    sample_prompts: list[str] = []
    """Your own prompts, used instead of those from examples. With a chat template, each prompt is a user turn."""


plugin = Plugin(
    settings=SampleSettings,
    switches=("generate_samples",),
    on_resume=dict.fromkeys(SampleSettings.model_fields, "free"),  # sampling does not use the random state of training
)


@hookimpl
def validate(run: Run) -> None:
    settings = run.settings(SampleSettings)
    errors = []
    if run.method.exports is not None:
        message = "has no effect: a model with a score head does not generate text"
        help = "remove the key; eval_accuracy and the reward metrics evaluate such a model"
        errors.append(run.config.error("generate_samples", message, help))
    if settings.sample_prompts and "num_generation_samples" in settings.model_fields_set:
        message = "has no effect if sample_prompts is set"
        errors.append(run.config.error("num_generation_samples", message, help="remove one of the two keys"))
    if settings.generation_top_p < 1 and settings.generation_temperature == 0:
        help = "write generation_temperature: 1.0, or remove the key"
        errors.append(run.config.error("generation_top_p", "has no effect at temperature 0", help=help))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    """Start samples.jsonl with completions of the untrained model. A resumed run keeps the existing ones."""
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
        lines = sample(run, policy, run.settings(SampleSettings), f"step {record.step}", record.step)
        if lines:
            record.tables["samples"] = [{k: v for k, v in line.items() if k not in ("when", "step")} for line in lines]


@hookimpl
def on_end(run: Run, policy: Policy) -> None:
    """Sample the trained model, and print completions before and after training side by side."""
    from tunesmith_samples.lines import read
    from tunesmith_samples.sample import PATH, sample
    from tunesmith_samples.table import show

    sample(run, policy, run.settings(SampleSettings), "after", run.step)
    if run.world.main:
        show(read(run.output_dir / PATH))
