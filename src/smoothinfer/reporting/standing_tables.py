"""Tables of judged models: three numbers for each attack."""

from typing import Any

from smoothinfer.evaluation.judgement import points
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.tables import Table


def standing_table(content: dict[str, Any]) -> Table:
    """Return the three numbers of each attack."""
    heads = ["attack", "mean of passes", f"{ASKED_AGAIN} passes in a row", "vote", "vote adds"]
    lines = [
        [
            "clean" if name == CLEAN else name,
            *(str(Interval(**each[key])) for key in ("mean", "worst", "vote")),
            points(Interval(**each["gain"])),
        ]
        for name, each in content["standings"].items()
    ]
    return Table(heads, lines, "accuracy, % (95 % interval over images)", left=1)
