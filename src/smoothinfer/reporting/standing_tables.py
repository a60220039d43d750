"""Tables of judged models: three numbers for each attack."""

from typing import Any

from smoothinfer.evaluation.judgement import points
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.attack_names import short_attacks
from smoothinfer.reporting.tables import Table


def standing_table(content: dict[str, Any]) -> Table:
    """Return the three numbers of each attack, and below them the worst case of the vote."""
    names = short_attacks(content["standings"])
    heads = ["attack", "mean of passes", f"{ASKED_AGAIN} passes in a row", "vote", "vote adds"]
    lines = [
        [
            names[name],
            *(str(Interval(**each[key])) for key in ("mean", "worst", "vote")),
            points(Interval(**each["gain"])),
        ]
        for name, each in content["standings"].items()
    ]
    if len(lines) > 2:
        lines.append(["worst case", "", "", str(Interval(**content["worst case"])), ""])
    return Table(heads, lines, "Accuracy, % (95 % interval over images)", left=1)
