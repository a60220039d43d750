"""Tables of judged models: three numbers for each attack."""

from typing import Any

from smoothinfer.evaluation.judgement import points
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.attack_names import short_attacks
from smoothinfer.reporting.tables import Table


def standing_table(content: dict[str, Any]) -> Table:
    """Return the three numbers of each attack; without noise they are one."""
    names = short_attacks(content["standings"])
    title = "Accuracy, % (95 % interval over images)"
    if not content["random"]:
        votes = {name: Interval(**each["vote"]) for name, each in content["standings"].items()}
        return Table(
            ["attack", "accuracy"], [[names[n], str(v)] for n, v in votes.items()], title, 1
        )
    heads = ["attack", "mean of passes", f"{ASKED_AGAIN} passes in a row", "vote", "vote adds"]
    lines = [
        [
            names[name],
            *(str(Interval(**each[key])) for key in ("mean", "worst", "vote")),
            points(Interval(**each["gain"])),
        ]
        for name, each in content["standings"].items()
    ]
    title += "; the vote adds points to the mean of passes"
    if len(lines) > 2:  # clean images, and several attacks
        title += f"; worst case of the vote: {Interval(**content['worst case'])}"
    return Table(heads, lines, title, left=1)
