from smoothinfer.training.history import History


def test_the_alarm_needs_a_best_above_chance():
    history = History()
    for value in (0.04, 0.01, 0.4, 0.3, 0.15):
        history.finish_epoch({"attacked": value}, "attacked", 0.1)
    assert [row["collapsed"] for row in history.epochs] == [0, 0, 0, 0, 1]


def test_the_alarm_looks_at_attacked_accuracy_whatever_the_score():
    history = History()
    for clean, attacked in ((0.5, 0.3), (0.6, 0.35), (0.8, 0.01)):
        row = {"clean": clean, "attacked": attacked}
        checkpoints = history.finish_epoch(row, "clean", 0.1)
    assert history.collapsed
    assert "best" in checkpoints


def test_the_last_epoch_is_kept_where_neither_accuracy_is_the_aim():
    history = History()
    for epoch in (1.0, 2.0, 3.0):
        row = {"epoch": epoch, "clean": 1 - epoch / 10, "attacked": 0.5 - epoch / 10}
        assert "best" in history.finish_epoch(row, "last", chance=0.1)
        assert not history.exhausted("last", patience=1)
