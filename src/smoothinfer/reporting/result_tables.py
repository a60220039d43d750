"""Tables of results: accuracies, the gain of the vote, the cost of attacks, published figures."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from smoothinfer.evaluation.rows import CLEAN, crafted_setting
from smoothinfer.reporting.attack_names import short_attacks
from smoothinfer.reporting.mean_passes import with_mean_passes
from smoothinfer.reporting.shapes import CERTIFIED, FIGURE, Maybe, check_shape
from smoothinfer.reporting.tables import (
    Table,
    cell_text,
    interval_text,
    norm_name,
    radius_text,
    sort_key,
)

Entries = Sequence[Mapping[str, Any]]
_FIGURES = ("attack", "radius", "rule", "samples", "sigma", "images", "clean", "attacked")
_APART = ("model", "sigma", "radius", "norm", "rule", "seed")


def accuracy_table(entries: Entries, title: str = "", among: Entries | None = None) -> Table:
    """Return accuracies in %, with intervals: a line per setting, a column per attack.

    Columns with the same value in every line are left out.

    Args:
        entries: of `summarise`.
        title: of the table.
        among: all entries, where ``entries`` are some of them: their columns are shown.
    """
    settings = [entry["description"] for entry in entries]
    names = [name for name in settings[0] if name != "attack"]
    every = [entry["description"] for entry in among or entries]
    varying = [n for n in names if len({setting.get(n) for setting in every}) > 1]
    attacks = list(dict.fromkeys(setting["attack"] for setting in settings))
    if CLEAN not in attacks and any(entry["clean"] for entry in entries):
        attacks = [CLEAN, *attacks]
    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    for setting, entry in zip(settings, entries, strict=True):
        line = cells.setdefault(tuple(setting.get(name) for name in varying), {})
        for attack, figure in ((CLEAN, entry["clean"]), (setting["attack"], entry["attacked"])):
            if figure:
                line[attack] = interval_text(figure)
    ordered = sorted(cells.items(), key=lambda cell: [sort_key(value) for value in cell[0]])
    heads = [*varying, *short_attacks(attacks).values()]
    lines = [
        [*map(cell_text, key), *(found.get(attack, "") for attack in attacks)]
        for key, found in ordered
    ]
    return Table(heads, lines, title, left=len(varying))


def gain_table(entries: Entries) -> Table:
    """Return the gain of the vote of the most passes over one pass.

    Args:
        entries: of `summarise`.
    """
    most, shown = _of_most(entries)
    names, keys = _keys(shown := _in_order(shown))
    lines = [
        key + [gain_text(entry[part]) for part in ("clean", "attacked")]
        for key, entry in zip(keys, shown, strict=True)
    ]
    title = f"Gain of the vote of {most} over one pass, points (95 % interval)"
    return Table([*names, "clean", "attacked"], lines if most > 1 else [], title, left=len(names))


def cost_table(entries: Entries, seconds: Mapping[str, float]) -> Table:
    """Return the cost of each of several attacks and the accuracy that it leaves.

    Lines are in the order of the settings; within one, the strongest attack is last.

    Args:
        entries: of `summarise`.
        seconds: wall-clock per image, by `crafted_setting`.
    """
    most, shown = _of_most(entries)
    shown = [entry for entry in shown if entry["attacked"] is not None]
    shown.sort(key=lambda entry: -entry["attacked"]["value"])
    (names, keys), lines = _keys(shown := _in_order(shown)), []
    for key, entry in zip(keys, shown, strict=True):
        left, setting = entry["attacked"], crafted_setting(entry["description"])
        spent = [f"{left[name]:,.0f}" for name in ("backwards", "forwards")]
        cells = [f"{1000 * seconds[setting]:,.1f}" if setting in seconds else ""]
        shares = [f"{100 * left[k]:.1f}" for k in ("per_draw", "every_draw")]
        vote = interval_text(left)
        cells += [vote] if most == 1 else [shares[0], vote, shares[1]]
        lines.append(key + spent + cells)
    heads = ["backward", "forward", "ms", "one pass"]
    heads += [f"vote of {most}", "every pass"] if most > 1 else []
    title = "Passes and time of each attack per image, and the accuracy that it leaves, %; the "
    title += "time of the first attack run includes preparation"
    return Table([*names, *heads], lines if len(lines) > 1 else [], title, left=len(names))


def gain_text(figure: Mapping[str, Any] | None) -> str:
    """Return a gain in points, with the ends of its interval.

    >>> gain_text({"gain": {"value": 0.05, "low": -0.012, "high": 0.1}})
    '+5.0 (-1.2 to +10.0)'
    >>> gain_text({"gain": {"value": -0.0001, "low": -0.012, "high": 0.1}})
    '+0.0 (-1.2 to +10.0)'
    """
    if figure is None:
        return ""
    value, low, high = (100 * figure["gain"][name] for name in ("value", "low", "high"))
    return f"{value:+z.1f} ({low:+z.1f} to {high:+z.1f})"


def figures_table(figures: Entries) -> Table:
    """Return the figures on a model's card; one pass is the mean over passes where it is known."""
    lines = [_figure_cells(figure) for figure in with_mean_passes(figures)]
    return Table(_FIGURES, lines, left=1)


def short_figures_table(figures: Entries) -> Table:
    """Return the figures on a model's card for the terminal: what all share is in the title.

    Each line is named by its attack and its vote, in short; one pass is the same by every rule.
    """
    lines = [_figure_cells(figure) for figure in with_mean_passes(figures)]
    names = short_attacks(dict.fromkeys(line[0] for line in lines))
    lines = [
        [names[attack], "one pass" if samples == "1" else f"{rule} {samples}", radius, *others]
        for attack, radius, rule, samples, *others in lines
    ]
    heads = ["attack", "vote", *(name for name in _FIGURES[1:] if name not in ("rule", "samples"))]
    keys = range(2, len(heads) - 2)
    same = [at for at in keys if len({line[at] for line in lines}) == 1]
    shared = [f"{heads[at]} {lines[0][at]}" for at in same if lines[0][at]]
    shown = [at for at in range(len(heads)) if at not in same]
    found = dict.fromkeys(tuple(line[at] for at in shown) for line in lines)
    title = ", ".join(["Accuracy, % (95 % interval)", *shared])
    return Table([heads[at] for at in shown], [*found], title, left=len(shown) - 2)


def certified_table(certified: dict[str, Any]) -> Table:
    """Return the certified accuracies that ``certify`` wrote, titled by what was certified."""
    lines = [
        [f"{each['radius']:g}", interval_text(each)] for each in certified["certified accuracy"]
    ]
    made = certified.get("settings") or {}
    names = [made.get("model") or "model not named", made.get("data") or "unnamed data"]
    title = f"{', '.join(PurePath(str(name)).name for name in names)}: "
    title += f"{certified['images']} images, abstained on {certified['abstained']}"
    known = {name: certified.get(name) for name in ("average radius", "sigma", "alpha")}
    texts = {
        "average radius": "mean radius {:.4f}",
        "sigma": "Gaussian noise on the pixels, sigma {:g}",
        "alpha": "each is false with probability {:g} at most",
    }
    told = [texts[name].format(each) for name, each in known.items() if each is not None]
    norm = norm_name(certified.get("norm") or "l2")
    return Table([f"{norm} radius", "certified accuracy, %"], lines, "; ".join([title, *told]))


def nearest_certified(certified: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the certified accuracy at the radius nearest to 0.5, of those that there are."""
    entries = [entry for each in certified for entry in each["certified accuracy"]]
    return min(entries, key=lambda entry: abs(float(entry["radius"]) - 0.5), default={})


def figures_markdown(card: Mapping[str, Any]) -> str:
    """Return the figures on ``card`` in Markdown, or that there are none.

    Raises:
        InputError: they are damaged.
    """
    figures = check_shape(card.get("figures"), Maybe([FIGURE]), "figures of the card")
    shape = Maybe([CERTIFIED])
    certified = check_shape(card.get("certified"), shape, "certificates of the card")
    if not figures and not certified:
        return "Nothing was measured of this model."
    parts = ["## Accuracy, in % with 95 % intervals over images"]
    parts += [figures_table(figures).markdown()] if figures else []
    return "\n\n".join([*parts, *(certified_table(each).markdown() for each in certified or [])])


def _figure_cells(figure: Mapping[str, Any]) -> list[str]:
    setting, clean, attacked = figure["description"], figure["clean"], figure["attacked"]
    radius, sigma = setting.get("radius"), setting.get("sigma")
    return [
        setting["attack"],
        radius_text(radius, setting.get("norm")) if radius else "",
        setting["rule"],
        str(setting["samples"]),
        "" if sigma is None else f"{sigma:g}",
        str((attacked or clean or {}).get("images", "")),
        interval_text(clean),
        interval_text(attacked),
    ]


def _of_most(entries: Entries) -> tuple[int, list[Mapping[str, Any]]]:
    most = max(entry["description"]["samples"] for entry in entries)
    return most, [entry for entry in entries if entry["description"]["samples"] == most]


def _in_order(entries: Entries) -> list[Mapping[str, Any]]:
    """Sort entries by their settings; those of one setting, its attacks, stay in their order."""
    names = _apart(entries)
    return sorted(entries, key=lambda each: [sort_key(each["description"].get(n)) for n in names])


def _apart(entries: Entries) -> list[str]:
    """Return the columns beside the attack that tell entries apart."""
    settings = [entry["description"] for entry in entries]
    return [name for name in _APART if len({setting.get(name) for setting in settings}) > 1]


def _keys(entries: Entries) -> tuple[list[str], list[list[str]]]:
    """Return the columns that tell entries apart, the attack always, and each entry's cells."""
    settings, names = [entry["description"] for entry in entries], _apart(entries)
    attacks = short_attacks(dict.fromkeys(setting["attack"] for setting in settings))
    cells = [
        [*(cell_text(setting.get(name, "")) for name in names), attacks[setting["attack"]]]
        for setting in settings
    ]
    return [*names, "attack"], cells
