"""Findings: a drop must be large and beyond chance."""

import torch

from smoothinfer.evaluation.audit.finding import judge, worse
from smoothinfer.evaluation.audit.runner import CHECKS


def test_drops_need_points_and_certainty():
    before = torch.ones(300, dtype=torch.bool)
    few, many = before.clone(), before.clone()
    few[:4] = False
    many[:10] = False
    assert worse(before, few) == (4 / 3, False, True)
    assert worse(before, many).fired
    assert worse(many, before)[1:] == (False, False)


def test_a_finding_says_what_few_images_leave_open():
    before = torch.ones(64, dtype=torch.bool)
    after = torch.arange(64) >= 9  # 14 points, by nine images
    finding = judge(CHECKS[10], [worse(before, after, points=5.0)], "", "alarm", "clear")
    assert finding.state == "note"
    assert "Too few images" in finding.verdict


def test_a_finding_fires_by_any_of_its_drops():
    before = torch.ones(300, dtype=torch.bool)
    none, many = worse(before, before), worse(before, torch.arange(300) >= 10)
    verdicts = {
        judge(CHECKS[5], drops, "", "alarm", "clear").verdict
        for drops in ([none, many], [many, none], [many])
    }
    assert verdicts == {"alarm"}
    assert judge(CHECKS[5], [none], "", "alarm", "clear").state == "clear"
