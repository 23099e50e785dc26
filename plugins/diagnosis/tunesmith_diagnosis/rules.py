"""Define the rules: what a metric most likely means, from which value on, and which keys to change.

docs/diagnosis.md has the same rules as a table, and docs/decisions/0037-health-rules.md where the limits come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesmith_diagnosis.measure import Condition, Measure, Side, exceeds

Kind = Literal["sft", "preference", "reward", "steps", "online"]
KINDS: dict[Kind, str] = {
    "sft": "supervised fine-tuning and pretraining",
    "preference": "preference methods (DPO, IPO, KTO, ORPO, SimPO)",
    "reward": "reward models",
    "steps": "process reward models",
    "online": "online methods (GRPO and relatives)",
}
ALL: tuple[Kind, ...] = tuple(KINDS)
GIVEN: tuple[Kind, ...] = ("sft", "preference", "reward", "steps")
"""Methods that train on given answers: their loss measures how well they learn. That of an online method does not."""
PAIRS: tuple[Kind, ...] = ("preference",)
ONLINE: tuple[Kind, ...] = ("online",)


@dataclass(frozen=True)
class Rule:
    """A rule: what to measure, the limits, and what to say.

    Args:
        id: the name of its findings.
        kinds: the kinds of methods that it applies to.
        measure, side: the number, and on which side of a limit it is wrong.
        note, warning: the limits. Beyond `warning`, a finding is also printed while the run goes on.
        message: what was seen. {value} is the measure, {start} and {now} are the medians of the first and of the last
            values, {name} is the metric, and {part} the part of its name after the first "/".
        advice: what to change.
        after: the share of all steps before which the rule is not applied.
        also: conditions on this or other metrics that have to hold as well.
        unless: findings that explain this one, so that it is not raised.
    """

    id: str
    kinds: tuple[Kind, ...]
    measure: Measure
    side: Side
    message: str
    advice: str
    note: float | None = None
    warning: float | None = None
    after: float = 0.0
    also: tuple[Condition, ...] = ()
    unless: tuple[str, ...] = ()

    def severity(self, value: float) -> tuple[str | None, float]:
        """Return the severity of a value and the limit that it exceeds, or (None, 0)."""
        for name, limit in (("warning", self.warning), ("note", self.note)):
            if limit is not None and exceeds(value, self.side, limit):
                return name, limit
        return None, 0.0

    def say(self, name: str, value: float, start: float, now: float) -> str:
        part = name.partition("/")[2].rpartition("/")[0] or name
        return self.message.format(name=name, part=part, value=value, start=start, now=now)

    @property
    def reads_start(self) -> bool:
        """True if the rule needs the first values of the run."""
        measures = (self.measure, *(condition.measure for condition in self.also))
        return any(one.statistic in ("first", "rise") or one.of == "start" for one in measures)


EVERY_METHOD = (
    Rule(
        "gradient-zero", ALL, Measure("grad_norm"), "below", warning=1e-12,
        message="the gradient was 0, so nothing was trained",
        advice="Check that rows have trained tokens (tunesmith preprocess --debug), that the adapter's target modules "
        "exist, and for rewards that they differ within a group.",
        unless=("reward-constant", "dead-groups", "entropy-collapse"),
    ),
    Rule(
        "gradient-exploding", ALL, Measure("grad_norm", of="start"), "above", warning=10,
        message="the gradient norm grew {value:.3g}-fold, from {start:.3g} to {now:.3g}",
        advice="Lower learning_rate, raise warmup_ratio, or use more gradient_accumulation_steps.",
    ),
    Rule(
        "gradient-clipped", ALL, Measure("grad_norm", window=20, of="max_grad_norm"), "above", note=10,
        message="the gradient norm was {now:.3g}, and clipping scaled it down {value:.3g}-fold",
        advice="The size of a step then hardly depends on its gradient. Lower learning_rate, or raise max_grad_norm if "
        "the norm is steady.",
    ),
    Rule(
        "loss-not-finite", ALL, Measure("loss", "not finite", window=20), "above", warning=2,
        message="the loss was not finite in {value:.0f} of 20 logged steps",
        advice="Lower learning_rate, use bf16: auto instead of fp16, and look at the rows that the notes name.",
    ),
    Rule(
        "learning-rate-zero", ALL, Measure("learning_rate"), "below", warning=1e-30,
        message="the learning rate was 0",
        advice="Check learning_rate, lr_scheduler and warmup_steps: the schedule ends before the training does.",
    ),
)  # fmt: skip

LOSS = (
    Rule(
        "first-loss-random", ("sft",), Measure("loss", "first", window=3, of="ln_vocabulary"), "above", warning=0.9,
        message="the loss began at {now:.3g}, that of random predictions",
        advice="The weights of base_model may not have been loaded, or attention is broken. Write reinit_weights: true "
        "if you train from random weights.",
    ),
    Rule(
        "first-loss-high", ("sft",), Measure("loss", "first", window=3, of="ln_vocabulary"), "above", note=0.5,
        message="the loss began at {now:.3g}, {value:.0%} of that of random predictions",
        advice="The chat template may not be that of base_model, or prompts are trained on: look at the tokens with "
        "tunesmith preprocess --debug.",
        unless=("first-loss-random",),
    ),
    Rule(
        "loss-zero", ("sft", "steps"), Measure("loss", window=5), "below", warning=1e-6,
        message="the loss was exactly 0",
        advice="Check the labels with tunesmith preprocess --debug, and try another attn_implementation.",
    ),
    Rule(
        "loss-near-zero", ("sft", "steps"), Measure("loss"), "below", note=0.02,
        message="the loss fell to {now:.2g}: the answers are known by heart, or are in their prompts",
        advice="Use fewer num_epochs or more data, and look for duplicates (plugin dedup). Very short answers may "
        "rightly have such a loss.",
        unless=("loss-zero",),
    ),
    Rule(
        "loss-above-random", ("sft",), Measure("loss", of="ln_vocabulary"), "above", warning=1.2,
        message="the loss was {now:.3g}, {value:.3g} times that of random predictions: training diverged",
        advice="Lower learning_rate, by a factor of 10 or more, and raise warmup_ratio.",
        unless=("first-loss-random",),
    ),
    Rule(
        "loss-spike", GIVEN, Measure("loss", window=3, of="before"), "above", warning=2,
        message="the loss jumped to {now:.3g}, {value:.3g} times that of the steps before",
        advice="Lower learning_rate 2- to 5-fold or raise warmup_ratio, and look at the rows of these steps.",
        also=(Condition(Measure("loss", window=3, of="start"), "above", 0.1),),
    ),
    Rule(
        "loss-rising", GIVEN, Measure("loss", window=20, of="start"), "above", warning=1.1,
        message="the loss rose from {start:.3g} to {now:.3g}",
        advice="Lower learning_rate, and check that the rows of the end are like those of the start.",
        also=(Condition(Measure("loss", "rise", window=20), "above", 3),),
        unless=("loss-spike", "loss-above-random"),
    ),
    Rule(
        "loss-flat", GIVEN, Measure("loss", window=20, of="start", start=3), "above", note=0.98, after=0.5,
        message="the loss did not fall: {start:.4g} at the start, {now:.4g} now",
        advice="Raise learning_rate 2- to 5-fold, and check which tokens are trained (tunesmith preprocess --debug).",
        also=(Condition(Measure("loss", "rise", window=20), "above", -2),),
        unless=("loss-zero", "loss-spike", "loss-rising", "loss-above-random"),
    ),
    Rule(
        "overfitting", GIVEN, Measure("eval_loss", window=3, of="lowest"), "above", note=1.02, warning=1.1,
        message="the evaluation loss rose to {value:.3g} times its lowest value, while the training loss did not",
        advice="Use fewer num_epochs, load_best_model_at_end, a smaller lora_r, lora_dropout or weight_decay.",
        also=(Condition(Measure("loss", of="before"), "below", 1.05),),
    ),
)  # fmt: skip

PREFERENCES = (
    Rule(
        "accuracy-below-chance", PAIRS, Measure("rewards/accuracies", "distance", 20, reference=0.5), "below",
        warning=-3, after=0.1,
        message="the rejected answer was preferred in most pairs: the accuracy is {now:.2g}",
        advice="Check that chosen and rejected are not swapped: look at the field names of the datasets entry.",
        also=(Condition(Measure("rewards/accuracies", "rise", 20), "below", 2),),
    ),
    Rule(
        "reward-accuracy-below-chance", ("reward",), Measure("accuracy", "distance", 20, reference=0.5), "below",
        warning=-3, after=0.1,
        message="the rejected answer was preferred in most pairs: the accuracy is {now:.2g}",
        advice="Check that chosen and rejected are not swapped, and lower learning_rate.",
        also=(Condition(Measure("accuracy", "rise", 20), "below", 2),),
    ),
    Rule(
        "margins-negative", PAIRS, Measure("rewards/margins", "distance", 20), "below", warning=-3, after=0.1,
        message="rejected answers get higher rewards than chosen ones: the margin is {now:.3g}",
        advice="Check that chosen and rejected, or the labels, are not swapped.",
        also=(Condition(Measure("rewards/margins", "rise", 20), "below", 2),),
        unless=("accuracy-below-chance",),
    ),
    Rule(
        "chosen-less-likely", PAIRS, Measure("logps/chosen", "rise", 20), "below", note=-3, after=0.3,
        message="chosen answers became less likely: their log-probability went from {start:.4g} to {now:.4g}",
        advice="This is common. If answers get worse, raise rl_beta, lower learning_rate, or add the loss sft to "
        "dpo_loss_type.",
    ),
)  # fmt: skip

REWARDS = (
    Rule(
        "entropy-collapse", ONLINE, Measure("entropy", of="start"), "below", note=0.25, warning=0.1,
        message="the entropy fell from {start:.3g} to {now:.3g} nats, so completions hardly differ any more",
        advice="Lower learning_rate, write trl.temperature: 1.0, raise trl.epsilon_high (0.28), trl.beta or "
        "trl.num_generations.",
    ),
    Rule(
        "reward-constant", ONLINE, Measure("rewards/*/std"), "below", warning=1e-9,
        message="the reward {part} was the same for all completions of a prompt",
        advice="Call the reward on some completions by hand: it may read a column that the rows do not have, or the "
        "task may be too hard or too easy.",
        unless=("entropy-collapse",),
    ),
    Rule(
        "dead-groups", ONLINE, Measure("frac_reward_zero_std"), "above", warning=0.8,
        message="{now:.0%} of the groups had equal rewards, so they train nothing",
        advice="Use prompts of medium difficulty, raise trl.num_generations or trl.temperature, write "
        "trl.dead_groups: redraw, or use a reward with more levels.",
        unless=("reward-constant", "entropy-collapse"),
    ),
    Rule(
        "reward-falling", ONLINE, Measure("reward", "rise", 20), "below", warning=-3,
        message="the reward fell from {start:.3g} to {now:.3g}",
        advice="Lower learning_rate, raise trl.beta, or lower trl.num_iterations.",
    ),
    Rule(
        "reward-flat", ONLINE, Measure("reward", "rise", 20), "below", note=2, after=0.5,
        message="the reward did not rise: {start:.3g} at the start, {now:.3g} now",
        advice="Raise learning_rate or trl.num_generations, and read some completions in report.html.",
        unless=("reward-falling", "reward-constant"),
    ),
    Rule(
        "entropy-rising", ONLINE, Measure("entropy", of="start"), "above", note=2, warning=4,
        message="the entropy rose from {start:.3g} to {now:.3g} nats: the policy becomes random",
        advice="Lower learning_rate or trl.entropy_coef, or raise trl.beta.",
    ),
    Rule(
        "kl-diverged", ONLINE, Measure("kl", window=5), "above", note=0.5, warning=2,
        message="the policy is {now:.3g} nats per token away from the reference",
        advice="Lower learning_rate or raise trl.beta, and look for a reward that is exploited: read some completions.",
    ),
    Rule(
        "kl-jump", ONLINE, Measure("kl", window=3, of="before"), "above", warning=10,
        message="the KL divergence jumped {value:.3g}-fold to {now:.3g}",
        advice="Lower learning_rate and max_grad_norm.",
        also=(Condition(Measure("kl", window=3), "above", 0.1),),
    ),
    Rule(
        "ratio-clipped", ONLINE, Measure("clip_ratio/region_mean"), "above", note=0.1, warning=0.3,
        message="the ratio of {now:.0%} of the tokens was clipped",
        advice="Lower learning_rate or trl.num_iterations, or take fewer steps in each round.",
    ),
)  # fmt: skip

COMPLETIONS = (
    Rule(
        "clipped-completions", ONLINE, Measure("completions/clipped_ratio", window=5), "above", note=0.3, warning=0.8,
        message="{now:.0%} of the completions did not end within the longest allowed length",
        advice="Raise trl.max_completion_length, check that the chat template's end of turn is an end token, or reward "
        "shorter answers.",
    ),
    Rule(
        "length-runaway", ONLINE, Measure("completions/mean_length", of="start"), "above", warning=1.5,
        message="completions grew from {start:.0f} to {now:.0f} tokens, close to the longest allowed",
        advice="A reward may favor length: penalize it. If the reward rises rightly, raise trl.max_completion_length.",
        also=(Condition(Measure("completions/mean_length", of="max_new_tokens"), "above", 0.8),),
    ),
    Rule(
        "length-collapse", ONLINE, Measure("completions/mean_length", of="start"), "below", note=0.5, warning=0.2,
        message="completions shrank from {start:.0f} to {now:.0f} tokens",
        advice="A reward may favor short or empty answers: read some completions with their rewards.",
    ),
    Rule(
        "sampler-differs", ONLINE, Measure("sampling/sampling_logp_difference/mean", window=5), "above",
        note=0.1, warning=1,
        message="the generator and the policy differ by {now:.3g} nats per token",
        advice="The generator may have old weights or another precision: synchronize more often, and check that both "
        "load the same model.",
    ),
    Rule(
        "rollouts-unused", ONLINE, Measure("rollout/unused"), "above", note=0.5, warning=0.8,
        message="{now:.0%} of the generated completions were not trained on",
        advice="The report lists where they went. Use prompts of medium difficulty, lower trl.oversample, or write "
        "trl.dead_groups: keep.",
    ),
)  # fmt: skip

RULES: tuple[Rule, ...] = LOSS + PREFERENCES + REWARDS + COMPLETIONS + EVERY_METHOD
"""All rules, in the order in which they are applied: one that explains others comes before them."""
