"""A report at a glance: a verdict in words, and models against attacks with the worst case."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from smoothinfer.evaluation.judgement import (
    LEANS,
    leads_clearly,
    on_every_attack,
    points,
    printed_sign,
    worst_case,
)
from smoothinfer.evaluation.rows import Rows, rows_of, setting_columns, summarise
from smoothinfer.numerics.statistics import Interval, mean_interval
from smoothinfer.reporting.attack_names import short_attack, short_attacks
from smoothinfer.reporting.tables import Table, cell_text, norm_name, radius_text
from smoothinfer.types import CLEAN

_MOST, _GROUPS = 12, 4  # lines of a table, tables
_OF_ATTACKS = ("attack", "radius", "norm")
_WITHIN = (*_OF_ATTACKS, "seed")  # columns that differ within a line
_STANDARD = "standard"  # the attack that needs no caveat of a stronger one
_ADDS = {
    1: "adds accuracy",
    0: "adds nothing that these images could show",
    -1: "takes accuracy away",
}


@dataclass(frozen=True)
class Line:
    """One model in one setting, under all its attacks.

    Attributes:
        name: of the model, with what tells it apart from others.
        accuracies: of the vote, by attack, the clean images among them.
        worst: share of images that are right under every attack, and clean.
        gains: what the vote adds to a single pass, by attack; none if it is no vote.
        subject: the data and the radius of the attacks.
        seeds: whose means the figures are.
        model: of which this is a setting.
    """

    name: str
    accuracies: Mapping[str, Interval]
    worst: Interval
    gains: Mapping[str, Interval]
    subject: str
    seeds: int = 1
    model: str = ""

    @property
    def strongest(self) -> str:
        """The attack that leaves least."""
        attacked = {name: each.value for name, each in self.accuracies.items() if name != CLEAN}
        return min(attacked, key=attacked.__getitem__)

    @property
    def gain(self) -> Interval | None:
        """What the vote adds under the strongest attack, if it is a vote."""
        return self.gains.get(self.strongest)


def lines_of(name: str, rows: Rows) -> list[Line]:
    """Return a line for each setting of ``rows``, at the largest number of passes and radius.

    Figures are means over the seeds, as in the table of all settings.

    Args:
        name: of the folder, which stands for a model without a name.
        rows: of the folder.
    """
    rows = rows_of(rows, {"samples": pc.max(rows["samples"])})
    if "rule" in rows.column_names:  # of several the first stands for all
        rows = rows_of(rows, {"rule": rows["rule"][0].as_py()})
    if "radius" in rows.column_names and rows["radius"].null_count < len(rows):
        largest = pc.equal(rows["radius"], pc.max(rows["radius"]))
        rows = rows.filter(pc.or_(pc.fill_null(largest, False), pc.equal(rows["attack"], CLEAN)))
    columns = [c for c in setting_columns(rows) if c not in _WITHIN]
    apart = [c for c in columns if c != "model" and len(pc.unique(rows[c])) > 1]
    settings = rows.select(columns).group_by(columns, use_threads=False).aggregate([]).to_pylist()
    found = []
    for setting in settings:
        more = ", ".join(f"{column} {cell_text(setting[column])}" for column in apart)
        model = str(setting.get("model") or name)
        part = rows_of(rows, setting)
        if line := _over_seeds(f"{model}, {more}" if more else model, part):
            found.append(replace(line, model=model))
    return found


def _over_seeds(name: str, rows: Rows) -> Line | None:
    """Return the line of one setting, its figures the means over seeds."""
    seeds = pc.unique(rows["seed"]).to_pylist() if "seed" in rows.column_names else []
    parts = [rows_of(rows, {"seed": seed}) for seed in seeds] or [rows]
    lines = [line for part in parts if (line := _line(name, part))]
    if len(lines) < 2:
        return lines[0] if lines else None
    attacks = dict.fromkeys(attack for line in lines for attack in line.accuracies)
    means = {
        attack: mean_interval([ln.accuracies[attack] for ln in lines if attack in ln.accuracies])
        for attack in attacks
    }
    gains = {
        attack: mean_interval([line.gains[attack] for line in lines if attack in line.gains])
        for attack in lines[0].gains
    }
    worst = mean_interval([line.worst for line in lines])
    return Line(name, means, worst, gains, lines[0].subject, seeds=len(lines))


def _line(name: str, rows: Rows) -> Line | None:
    """Return the line of one setting and seed; ``None`` without clean images or attacks."""
    attacks = list(dict.fromkeys(rows["attack"].to_pylist()))
    if CLEAN not in attacks or len(attacks) < 2 or len(on_every_attack(rows)) == 0:
        return None
    entries = summarise(rows)
    figures = {entry["description"]["attack"]: entry["attacked"] for entry in entries}
    figures = {CLEAN: entries[0]["clean"], **figures}
    accuracies = {attack: _interval(each) for attack, each in figures.items()}
    voted = pc.max(rows["samples"]).as_py() > 1
    gains = {
        attack: Interval(**each["gain"], images=each["images"])
        for attack, each in figures.items()
        if voted
    }
    subject = _subject(entries[0]["description"])
    return Line(name, accuracies, worst_case(rows), gains, subject)


def _subject(setting: Mapping[str, Any]) -> str:
    parts = [str(setting["data"])] if setting.get("data") else []
    if setting.get("radius"):
        norm = norm_name(setting.get("norm") or "linf")
        parts.append(f"{norm} radius {radius_text(setting['radius'])}")
    return ", ".join(parts)


def subject_of(lines: list[Line]) -> str:
    """Say on what lines that compare were measured: images, data, radius, attacks, seeds."""
    first, seeds = lines[0], max(line.seeds for line in lines)
    about = f" of {first.subject}" if first.subject else ""
    attacks = len(first.accuracies) - 1
    over = f", means over {seeds} seeds" if seeds > 1 else ""
    return (
        f"On {first.worst.images} images{about}, {attacks} attack{'s' if attacks > 1 else ''}{over}"
    )


def _interval(figure: Mapping[str, Any]) -> Interval:
    return Interval(*(figure[name] for name in ("value", "low", "high", "images")))


def glance_table(lines: list[Line]) -> Table:
    """Return models against attacks, the most robust first, attacks from weak to strong."""
    attacks = {name for line in lines for name in line.accuracies if name != CLEAN}
    means: dict[str, float] = {}
    for attack in attacks:
        values = [line.accuracies[attack].value for line in lines if attack in line.accuracies]
        means[attack] = sum(values) / len(values)
    order = sorted(attacks, key=lambda attack: -means[attack])
    cells = [
        [
            line.name,
            *(_cell(line.accuracies.get(attack)) for attack in (CLEAN, *order)),
            str(line.worst),
        ]
        for line in by_strength(lines)[:_MOST]
    ]
    heads = ["model", "clean", *short_attacks(order).values(), "worst case"]
    return Table(heads, cells, left=1)


def by_strength(lines: list[Line]) -> list[Line]:
    """Return the lines, the most robust in the worst case first."""
    return sorted(lines, key=lambda line: -line.worst.value)


def _cell(found: Interval | None) -> str:
    return "" if found is None else f"{100 * found.value:.1f}"


def verdict(lines: list[Line]) -> str:
    """Say in plain words how robust the best model is, what its vote adds, and what is open."""
    best = by_strength(lines)[0]
    clean, under = best.accuracies[CLEAN], best.accuracies[best.strongest]
    attacks = len(best.accuracies) - 1
    over = f", means over {best.seeds} seeds" if best.seeds > 1 else ""
    said = (
        f"{best.name} is right on {_cell(clean)} % of the clean images, and on {best.worst} % of "
        f"{best.worst.images} images in the worst of {attacks} attack{'s' if attacks > 1 else ''} "
        f"(the strongest, {short_attack(best.strongest)}, leaves {_cell(under)} %){over}."
    )
    return " ".join(part for part in (said, _chosen(lines), _adds(best), _open(best)) if part)


def _chosen(lines: list[Line]) -> str:
    """Say from how many settings the best was chosen, and whether its lead may be chance."""
    best, *others = by_strength(lines)
    if not others:
        return ""
    chance = "" if leads_clearly(best.worst, others[0].worst) else ", but its lead may be chance"
    return (
        f"It keeps most of {len(lines)} settings compared on these same images{chance}; the best "
        "of several, chosen so, looks a little better than it is."
    )


def _adds(line: Line) -> str:
    if line.gain is None:
        return ""
    adds, caveat = _ADDS[printed_sign(line.gain)], ""
    if printed_sign(line.gain) < 0 and line.strongest.startswith(_STANDARD):
        adds, caveat = "adds no measurable robustness", f"; {LEANS}"
    return (
        f"Under {short_attack(line.strongest)} the vote {adds}: "
        f"{points(line.gain)} points beside a single pass{caveat}."
    )


def _open(line: Line) -> str:
    """Say that a stronger attack may leave less, unless the standard one was tried."""
    if any(attack.startswith(_STANDARD) for attack in line.accuracies):
        return ""
    gains = line.gain is not None and printed_sign(line.gain) > 0
    return (
        f"This holds under {short_attack(line.strongest)} only: a stronger attack may leave less"
        f"{' and take the gain away' if gains else ''}; the command smoothinfer standard tells."
    )


def compared_groups(rows: Mapping[str, Rows]) -> list[list[Line]]:
    """Return groups of lines that compare: the same data, attacks and radius, as many images.

    First come groups of several lines, of these the one with most attacks, of equals the largest.
    """
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for name, part in rows.items():
        for line in lines_of(name, part):
            key = line.subject, frozenset(line.accuracies), line.worst.images
            groups.setdefault(key, []).append(line)
    return sorted(
        groups.values(),
        key=lambda group: (len(group) > 1, len(group[0].accuracies), len(group)),
        reverse=True,
    )


def at_a_glance(rows: Mapping[str, Rows]) -> tuple[str, list[Table]]:
    """Return the verdict in words, and the tables of models that compare, with titles.

    Args:
        rows: by the name of their folder. Where none compare, all is empty.
    """
    groups = compared_groups(rows)
    if not groups:
        return "", []
    tables = [glance_table(group) for group in groups[:_GROUPS]]
    others = sum(map(len, groups)) - sum(len(table.lines) for table in tables)
    notes = [f"Accuracy of the vote, %. {subject_of(group)}." for group in groups]
    notes[0] += " The worst case counts an image that is right clean and under every attack, "
    notes[0] += "with its 95 % interval."
    notes[0] += f" {others} more lines are among all settings." if others else ""
    titled = [replace(table, title=note) for table, note in zip(tables, notes, strict=False)]
    return verdict(groups[0]), titled
