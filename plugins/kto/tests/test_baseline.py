"""The baseline of a step equals the formula, and is removed from the micro-batch before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tunesmith_kto.step import prepare as prepare_step

from plugins.kto.tests.test_parity import ABOVE
from tests import one_step, rows, tiny
from tunesmith import DataError, Example, Needs, PluginError, collate
from tunesmith.api import prepare, verify

ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox")


def plain(policy, example: Example, which: int) -> torch.Tensor:
    """Return the log-probability of an answer by transformers' own forward pass over its tokens."""
    tokens = torch.tensor(example.path_tokens(which))
    logps = policy.inside(lambda: policy.language_model.plain_logits(tokens)).log_softmax(-1)
    start = len(tokens) - len(example.segments[which].tokens)
    return logps[start - 1 : -1].gather(-1, tokens[start:, None]).sum()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_the_baseline_is_the_mean_over_the_step(architecture: str, tmp_path: Path) -> None:
    """In one micro-batch and in two uneven ones, with shared and with repeated prompts."""
    run, policy = one_step.started(rows.config(tmp_path, "kto", architecture=architecture), ABOVE)
    one_step.perturb(policy.model, 3, 0.02)
    examples = list(run.data.train)
    with policy.reference() as reference:
        ratios = [plain(policy, e, 2) - plain(reference, e, 2) for e in examples]
    expected = max(0.0, float(torch.stack(ratios).mean()))
    for groups in ([examples], [examples[:2], examples[2:]]):
        for share in (True, False):
            batches = [collate(group, share=share) for group in groups]
            prepare_step(run, policy, batches)
            for batch, group in zip(batches, groups, strict=True):
                assert batch.columns["kl"].shape == (len(group),)
                assert batch.columns["kl"].tolist() == pytest.approx([expected] * len(group), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("share", [True, False])
@torch.no_grad()
def test_the_trained_batch_has_no_baselines(share: bool, tmp_path: Path) -> None:
    """After prepare_step, counts and log-probabilities are those of a batch that never had baselines."""
    run, policy = one_step.started(rows.config(tmp_path, "kto"))
    examples = list(run.data.train)
    own = collate([Example(e.segments[:2], e.columns) for e in examples], share=share)
    batch = collate(examples, share=share)
    prepare_step(run, policy, [batch])
    assert batch.counts == own.counts | {"desirable": 3.0, "undesirable": 4.0}
    for name in ("input_ids", "position_ids", "score_from", "target_ids", "target_at", "weight"):
        assert torch.equal(getattr(batch, name), getattr(own, name)), name
    assert torch.equal(batch.tree_mask.visible(), own.tree_mask.visible())
    torch.testing.assert_close(policy(batch).logps, policy(own).logps, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_dummy_does_not_change_the_baseline(tmp_path: Path) -> None:
    run, policy = one_step.started(rows.config(tmp_path, "kto"), ABOVE)
    examples = list(run.data.train)
    alone, batch, dummy = collate(examples), collate(examples), collate(examples[:1])
    dummy.dummy, dummy.counts = True, dict.fromkeys(dummy.counts, 0.0)
    prepare_step(run, policy, [alone])
    prepare_step(run, policy, [batch, dummy])
    assert torch.equal(alone.columns["kl"], batch.columns["kl"]) and float(batch.columns["kl"][0]) > 0
    assert not any(dummy.counts.values()) and dummy.counts.keys() == batch.counts.keys()


@torch.no_grad()
def test_rows_without_prompts_or_branches_are_supported(tmp_path: Path) -> None:
    """The first token of a text is not predicted, so it is not part of a baseline either."""
    _, policy = one_step.started(rows.config(tmp_path, "kto"))
    nothing, something, alone = Example.branches([], [[5, 6]]), Example.branches([7, 8], [[9]]), Example.text([3, 4])
    for example in (nothing, something):
        branch = Example.branches(example.prompt, [[20, 21, 22]]).segments[1]
        branch.weights[:] = 0
        example.segments.append(branch)
    for example, tokens in ((nothing, 3.0), (something, 3.0), (alone, None)):
        for s, number in zip(example.segments[1:], (0.0, tokens), strict=False):
            s.columns["baseline"] = number
    for share in (True, False):
        batch = collate([nothing, alone, something], share=share)
        baselines = batch.columns["baseline"] > 0
        scored = batch.score_all(baselines)
        own = len(batch.target_ids)
        assert scored.target_ids[own:].tolist() == [21, 22, 20, 21, 22]
        logps = policy(scored, Needs(logps=True)).logps
        assert float(logps[own + 2 :].sum()) == pytest.approx(float(plain(policy, something, 2)), abs=1e-5)
        lone = scored.restrict(baselines)
        assert lone.input_ids[0].tolist() == [20, 21, 22, 7, 8, 20, 21, 22]
        torch.testing.assert_close(policy(lone).logps, logps[own:], atol=1e-5, rtol=1e-5)
        batch.restrict_(~baselines)
        assert batch.input_ids[0].tolist() == [5, 6, 3, 4, 7, 8, 9] and batch.counts["sequences"] == 3
        torch.testing.assert_close(policy(batch).logps, logps[:own], atol=1e-5, rtol=1e-5)


def test_verify_passes_with_the_branches(tmp_path: Path) -> None:
    assert all(row["ok"] for row in verify(prepare(tiny.start(rows.config(tmp_path, "kto", sample_packing=True)))))


@pytest.mark.parametrize(
    ("columns", "answers", "error", "message"),
    [
        ({"label": 0.5}, 1, DataError, "row 4 of entry 0: the label must be true or false, got 0.5"),
        ({}, 1, PluginError, "the rows have no label"),
        ({"label": 1.0}, 2, PluginError, "row 4 of entry 0: expected one answer, got 2"),
    ],
)
def test_rows_that_are_not_labeled_answers_are_refused(
    columns: dict[str, float], answers: int, error: type[Exception], message: str, tmp_path: Path
) -> None:
    run, policy = one_step.started(rows.config(tmp_path, "kto"))
    example = Example.branches([1], [[2]] * answers, columns=columns, origin=(0, 3))
    with pytest.raises(error, match=message):
        prepare_step(run, policy, [collate([example])])
