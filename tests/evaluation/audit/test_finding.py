"""Findings: of several tests one alarm is enough, and a test that could not fire says so."""

import torch

from smoothinfer.evaluation.audit.chance import more_than, worse
from smoothinfer.evaluation.audit.finding import judge
from smoothinfer.evaluation.audit.runner import CHECKS

ALL = torch.ones(300, dtype=torch.bool)
NONE, MANY = worse(ALL, ALL), worse(ALL, torch.arange(300) >= 10)


def judged(*outcomes):
    return judge(CHECKS[5], outcomes, "measured", "alarm", "clear")


def test_a_finding_says_what_few_images_leave_open():
    after = torch.arange(64) >= 9  # 14 points, by nine images
    finding = judged(worse(ALL[:64], after, points=5.0))
    assert (finding.state, finding.too_few) == ("note", True)
    assert "Too few images" in finding.verdict


def test_a_finding_fires_by_any_of_its_tests():
    verdicts = {judged(*each).verdict for each in ([NONE, MANY], [MANY, NONE], [MANY])}
    assert verdicts == {"alarm"}
    assert judged(NONE).state == "clear"


def test_a_test_that_could_not_fire_leaves_the_check_undone_without_an_alarm():
    lacking = worse(ALL[:3], ALL[:3])
    finding = judged(NONE, lacking, more_than(~ALL[:2], 0.05))
    assert (finding.state, finding.too_few) == ("skipped", True)
    assert finding.measured == "needs at least 10 images that survive the attack: there are 3"
    assert judged(lacking, MANY).state == "alarm"
    assert "there is 1" in judged(worse(ALL[:1], ALL[:1])).measured
