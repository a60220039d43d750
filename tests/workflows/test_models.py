import smoothinfer as si
from smoothinfer.cli import main


def test_models_lists_the_shipped_ones(capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in si.list_models() or ["there are no models"])
