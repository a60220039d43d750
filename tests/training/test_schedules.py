import pytest

import smoothinfer as si
from smoothinfer.training.schedules import SCHEDULES, one_cycle, steps


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_a_factor(name):
    values = [SCHEDULES[name](i / 1000) for i in range(1000)]
    assert all(0 <= value <= 1 + 1e-9 for value in values)
    assert max(values) == pytest.approx(1, abs=1e-2)


def test_the_papers_schedule():
    assert [steps(epoch / 400) for epoch in (0, 99, 100, 200, 300)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001]
    )
    rising = [one_cycle(i / 100) for i in range(21)]
    assert rising == sorted(rising)
    with pytest.raises(si.InputError, match="warmup"):
        one_cycle(0.5, warmup=0.0)
