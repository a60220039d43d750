"""Units of work: resumed, shared out, counted beforehand."""

import json

import pytest

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.runner import Runner, _Passes
from smoothinfer.evaluation.store import Store
from smoothinfer.runtime.progress import Bar, progress_bar
from tests.conftest import TORCHRUN, launched, line


def test_finished_work_is_not_done_again(world, tmp_path):
    noisy, images, labels = world
    smooth = si.SmoothedClassifier(noisy, 4)
    log = tmp_path / "calls"  # a list would be part of the attack, and another after each call

    def calls():
        return [int(line) for line in log.read_text().split()]

    def interrupted(model, x, y, ball, generator=None):
        with log.open("a") as file:
            file.write(f"{len(x)}\n")
        if len(log.read_text().split()) == 2:
            raise KeyboardInterrupt
        return x

    def measure(seed=0):
        return si.evaluate(smooth, (images, labels), attack=interrupted, out=tmp_path, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        measure()
    rows = measure()
    assert calls() == [128, 72, 72]
    assert rows.equals(measure())
    assert len(calls()) == 3
    other = measure(seed=1)
    assert len(calls()) == 5  # another seed is other work, in the same folder
    assert set(other["seed"].to_pylist()) == {1}


def work_of(cache=None, **changes):
    given = {"attack": "fgsm", "ball": si.Linf(0.1), "samples": [1, 3], "cache": cache, **changes}
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.05)).eval()
    return prepare(noisy, si.load_data("digits", "test", 200), **given)


def test_the_plan_counts_what_there_is_to_do(tmp_path):
    store = Store(tmp_path / "rows")
    plan = Runner([work_of(tmp_path / "examples")], store).plan()
    assert (plan.units, plan.done) == (4, 0)
    assert plan.votes == 2 * 200 * 3  # clean and attacked, images, passes
    assert plan.attacks == 200 * 3  # one forward, and one backward that counts as two
    assert plan.seconds > 0
    assert "4 of 4 units to do: 1,200 passes for votes, about 600 for attacks" in str(plan)
    Runner([work_of(tmp_path / "examples")], store).run()
    more = Runner([work_of(tmp_path / "examples", samples=[5])], store).plan()
    assert (more.units, more.done, more.votes, more.attacks) == (4, 0, 2 * 200 * 5, 0)
    done = Runner([work_of(tmp_path / "examples")], store).plan()
    assert (done.units, done.done, done.votes, done.attacks) == (4, 4, 0, 0)


def test_the_parts_of_a_share_are_all_units_once():
    work = work_of()
    parts = [Runner([work], Store(), (number, 3)).mine for number in range(3)]
    assert sorted(unit for part in parts for unit in part) == sorted(work.units)
    for number, count in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(si.InputError, match=f"no part {number} of {count}"):
            Runner([work], Store(), (number, count))


def test_rows_are_refused_while_units_are_missing(tmp_path):
    part = Runner([work_of()], Store(tmp_path), (0, 2))
    part.run()
    assert not part.complete
    with pytest.raises(si.InputError, match="some units are missing"):
        part.rows()
    Runner([work_of()], Store(tmp_path), (1, 2)).run()
    assert part.complete
    assert part.rows().num_rows == 2 * 2 * 200


def test_two_evaluations_with_one_description_are_refused():
    with pytest.raises(si.InputError, match="two settings are the same"):
        Runner([work_of(), work_of()], Store())


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path):
    options = ["tests.conftest:fresh_net", "--data", "digits", "--attack", "pgd(steps=1)"]
    options += ["--sigma", "0.1", "--samples", "1", "4", "--limit", "300", "--radius", "0.1"]
    assert main(["evaluate", *options, "--out", str(tmp_path / "one")]) == 0
    launched(TORCHRUN, ["evaluate", *options, "--out", str(tmp_path / "two")])
    one, two = (
        json.loads((tmp_path / name / "summary.json").read_text())["settings"]
        for name in ("one", "two")
    )
    assert one == two
    rows = [Store(tmp_path / name / "rows").read() for name in ("one", "two")]
    assert rows[0].equals(rows[1])
    assert rows[0].num_rows


def test_rows_that_were_taken_out_of_a_shard_are_missed(tmp_path):
    runner = Runner([work_of()], Store(tmp_path))
    runner.run()
    unit = next(iter(runner.works))
    short = runner.store.read([unit]).slice(1)
    (path,) = tmp_path.glob(f"{unit}.*.parquet")
    path.unlink()
    Store(tmp_path).write(unit, short)
    with pytest.raises(si.InputError, match="too few or too many rows"):
        Runner([work_of()], Store(tmp_path)).rows()


def test_a_stage_says_how_many_images_are_right_and_what_it_has_spent():
    with progress_bar("", 10, shown=False) as bar:
        shows = _Passes(bar, "8/21", "")
        shows.told -= 2
        shows.stage("standard, pass 0: 124/128 left")
        shows(589_712)
        (task,) = bar.progress.tasks
    assert task.description == "8/21 standard, pass 0: 124 of 128 right, 590k passes"
    assert len(task.description) <= 52  # the room of a terminal of 80 columns


def test_votes_that_stop_early_fill_the_bar(tmp_path, monkeypatch):
    """Else the time left would be told as if all their passes were still to come."""
    at = []
    monkeypatch.setattr(Bar, "reach", lambda bar, completed: at.append(completed))
    work = work_of(tmp_path / "examples", samples=[200], stop="value")
    Runner([work], Store(tmp_path / "rows")).run()
    assert at
    assert at == sorted(at)
    assert at[-1] == 4 * 200
