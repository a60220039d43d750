"""Whole audits: sound models raise no alarm, and nothing changes in what is audited."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.audit import runner
from smoothinfer.evaluation.audit.runner import CHECKS, audit
from tests.evaluation.audit.conftest import BALL, Wrapped, trained


class Counting(Wrapped):
    """Moves a buffer whenever it runs in training mode."""

    def __init__(self, model):
        super().__init__(model)
        self.register_buffer("calls", torch.zeros(()))
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(10, 10))

    def forward(self, images):
        if self.training:
            self.calls += 1
        return self.layer(self.model(images))


def test_an_audit_changes_nothing_in_the_model(plain, digits):
    model = Counting(plain).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit(model, digits, ball=BALL, quick=True, checks=[1, 2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_progress_of_an_audit_counts_its_checks(static, digits, monkeypatch):
    counted = []

    @contextlib.contextmanager
    def bar(description, total, shown):
        counted.append(total)
        yield SimpleNamespace(advance=lambda: counted.append(1), update=lambda text: None)

    monkeypatch.setattr(runner, "progress_bar", bar)
    audit(static, digits[:20], ball=BALL, quick=True, checks=[1, 2])
    assert counted == [2, 1, 1]


def test_a_frozen_vote_is_audited_as_it_is(static, digits):
    noisy = si.NoisyModel(static.module, inputs=si.Gaussian(0.05)).eval()
    found = audit(si.frozen(noisy, 0, 4), digits[:20], ball=BALL, quick=True, checks=[2, 11])
    assert [finding.state for finding in found.findings] == ["clear", "skipped"]
    few = audit(si.SmoothedClassifier(noisy, 8), digits[:20], ball=BALL, quick=True, checks=[2])
    assert (few.about["samples"], few.about["rule"]) == (8, "prediction")
    own = si.SmoothedClassifier(noisy, 8, rule=replace(si.RULES["soft"]))
    found = audit(own, digits[:20], ball=BALL, quick=True, checks=[2])
    assert found.about["rule"] == "custom"


def test_a_verdict_says_what_was_skipped(static, digits):
    found = audit(static, digits, ball=BALL, quick=True, checks=[2, 10, 11])
    assert found.verdict.endswith("artefact (skipped: check 10, 11).")


def test_a_model_that_is_never_right_is_not_audited(static, digits):
    wrong = (digits.images, (static(digits.images).argmax(1) + 1) % 10)
    with pytest.raises(si.InputError, match=r"no image is classified correctly \(120 given\)"):
        audit(static, wrong, ball=BALL, quick=True)


def test_a_sound_static_model_raises_no_alarm(static, digits):
    found = audit(static, digits, ball=BALL, quick=True)
    assert [finding.number for finding in found.findings] == list(CHECKS)
    assert not found.fired, [(f.name, f.measured) for f in found.fired]
    assert found.clean.value > found.attacked.value > 0.3


@pytest.mark.slow
def test_a_second_sound_static_model_raises_no_alarm(tmp_path, digits):
    assert not audit(trained(tmp_path, seed=1), digits, ball=BALL, quick=True).fired


def test_a_random_model_is_noted_and_audited_the_same_again(static, digits):
    noisy = si.NoisyModel(static.module, inputs=si.Gaussian(0.05)).eval()
    smooth = si.SmoothedClassifier(noisy, samples=64)
    one, two = (
        audit(smooth, digits[:20], ball=BALL, quick=True, checks=[2, 4, 9, 11]) for _ in range(2)
    )
    assert next(finding.state for finding in one.findings) == "note"
    assert [f.measured for f in one.findings] == [f.measured for f in two.findings]


@pytest.mark.slow
def test_a_random_model_goes_through_every_check(static, digits):
    noisy = si.NoisyModel(static.module, inputs=si.Gaussian(0.05)).eval()
    found = audit(noisy, digits, ball=BALL, quick=True)
    states = {finding.number: finding.state for finding in found.findings}
    assert states.pop(13) == "skipped"
    assert states.pop(2) == "note"
    states.pop(11)  # 64 passes leave some votes near a tie: that alarm may be right
    assert set(states.values()) <= {"clear", "note"}, [f.measured for f in found.fired]


def test_bad_audits_are_refused(static, digits):
    with pytest.raises(si.InputError, match="numbered 1 to 13"):
        audit(static, digits, checks=[14])
    with pytest.raises(si.InputError, match="no images"):
        audit(static, (digits.images[:0], digits.labels[:0]))


def test_a_killed_audit_goes_on_from_the_check_it_was_at(static, digits, tmp_path, monkeypatch):
    few, chosen = digits[:40], [1, 2, 3]
    whole = si.audit(static, few, quick=True, checks=chosen)
    run, seen = runner._find, []

    def killed(check, context):
        if check.number == 3:
            raise KeyboardInterrupt
        return run(check, context)

    monkeypatch.setattr(runner, "_find", killed)
    with pytest.raises(KeyboardInterrupt):
        si.audit(static, few, quick=True, checks=chosen, out=tmp_path)

    def counted(check, context):
        seen.append(check.number)
        return run(check, context)

    monkeypatch.setattr(runner, "_find", counted)
    again = si.audit(static, few, quick=True, checks=chosen, out=tmp_path)
    assert seen == [3]
    assert [each.state for each in again.findings] == [each.state for each in whole.findings]
    si.audit(static, few, quick=True, checks=chosen, out=tmp_path, seed=1)  # another audit
    assert seen == [3, 1, 2, 3]
    (tmp_path / "02.json").write_text("{")
    si.audit(static, few, quick=True, checks=chosen, out=tmp_path, seed=1)
    assert seen == [3, 1, 2, 3, 2]
