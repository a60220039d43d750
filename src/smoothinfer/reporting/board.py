"""The leaderboard: one JSON card for each judged model, read back as tables and a page."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.evaluation.judgement import AUTHORS, points
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.attack_names import short_attacks
from smoothinfer.reporting.members import read_json_member
from smoothinfer.reporting.shapes import GAIN, INTERVAL, NUMBER, SHARE, Maybe
from smoothinfer.reporting.tables import Table, ball_text

BOARD_CARD = {
    "name": str,
    "model": str,
    "defence": Maybe(str),
    "sha256": Maybe(str),
    "epochs": Maybe(int),
    "random": bool,
    "data": str,
    "data hash": str,
    "ball": str,
    "budget": str,
    "samples": int,
    "seed": int,
    "limits": [int],
    "strongest": str,
    "standings": [
        {
            **{"attack": str, "mean": INTERVAL, "worst": INTERVAL, "vote": INTERVAL},
            **{"gain": GAIN, "luck": SHARE, "shared_luck": Maybe(SHARE)},
        }
    ],
    **{"mean": INTERVAL, "worst": INTERVAL, "worst case": INTERVAL},
    "passes": NUMBER,
    "seconds": NUMBER,
    "claim": Maybe({"text": str, "source": str, "value": Maybe(SHARE)}),
    "audit": Maybe(str),
    "verdict": str,
    "note": Maybe(str),
    "commands": [str],
}
_HEADS = (
    *("model", "epochs", "clean", "worst case", "one pass", f"{ASKED_AGAIN} in a row"),
    *("authors' protocol", "the vote adds"),
)
_SHORT_HEADS = ("model", "epochs", "clean", "worst", "pass", "ten", "authors", "vote adds")
# The same for all cards of a board.
_PROTOCOL = ("data hash", "ball", "budget", "samples", "limits", "strongest")


@dataclass(frozen=True)
class Board:
    """Judged models, the most robust first.

    Attributes:
        cards: of the models, checked.
    """

    cards: Sequence[dict[str, Any]]

    @property
    def subject(self) -> str:
        """Data, ball, images and passes, the same for all cards."""
        card = self.cards[0]
        many, few = max(card["limits"]), min(card["limits"])
        images = f"{many} images" if many == few else f"{many} images, {few} in the worst case"
        return f"{card['data']}, {ball_text(card['ball'])}, {images}, votes of {card['samples']}"

    def tables(self, short: bool = False) -> list[Table]:
        """Return the ranking, the vote under each attack, and what is left of the claims.

        Args:
            short: without intervals, for a terminal of 80 columns.
        """
        return [self.ranking(short), self.by_attack(short), self.claims()]

    def ranking(self, short: bool = False) -> Table:
        """Return one line for each model, by the worst case of its vote."""
        heads = _SHORT_HEADS if short else _HEADS
        lines = []
        for card in self.cards:
            gain = _known(card, card["strongest"])["gain"]
            shown = f"{100 * gain['value']:+z.1f}" if short else points(Interval(**gain))
            clean, authors = _under(card, CLEAN), _under(card, AUTHORS)
            line = [card["name"], "" if card.get("epochs") is None else str(card["epochs"])]
            line += [_text(clean, "vote", short), _interval(card["worst case"], short)]
            line += [_interval(card[each], short) for each in ("mean", "worst")]
            line.append(_text(authors, "vote", short))
            lines.append([*line, shown if card["random"] else ""])
        title = "Accuracy, %" if short else "Accuracy, % (95 % interval over images)"
        return Table(heads, lines, f"{title}, {self.subject}", left=1)

    def by_attack(self, short: bool = False) -> Table:
        """Return the vote's accuracy under each attack, and the worst case of every image."""
        attacks = dict.fromkeys(each["attack"] for card in self.cards for each in card["standings"])
        lines = [
            [
                card["name"],
                *(_text(_under(card, attack), "vote", short=True) for attack in attacks),
                _interval(card["worst case"], short),
            ]
            for card in self.cards
        ]
        heads = ["model", *short_attacks(attacks).values(), "worst case"]
        title = f"Accuracy of the vote under each attack, %, {self.subject}"
        return Table(heads, lines, title, left=1)

    def claims(self) -> Table:
        """Return each published figure, and how much of it is left here."""
        lines = []
        for card in self.cards:
            if (claim := card.get("claim")) is None:
                continue
            left, value = card["worst case"]["value"], claim.get("value")
            lost = "" if value is None else f"{100 * (left - value):+z.1f}"
            shown = [claim["text"], f"{100 * left:.1f}", lost, claim["source"]]
            lines.append([card["name"], *shown])
        heads = ["model", "claimed", "worst case here, %", "points from the claim", "source"]
        return Table(heads, lines, "Claims, of the authors' own networks", left=2)


def _under(card: dict[str, Any], attack: str) -> dict[str, Any] | None:
    return next((each for each in card["standings"] if each["attack"] == attack), None)


def _known(card: dict[str, Any], attack: str) -> dict[str, Any]:
    found = _under(card, attack)
    assert found is not None  # see `read_board_card`
    return found


def _text(standing: dict[str, Any] | None, name: str, short: bool) -> str:
    return "" if standing is None else _interval(standing[name], short)


def _interval(figure: dict[str, Any], short: bool) -> str:
    return f"{100 * figure['value']:.1f}" if short else str(Interval(**figure))


def read_board(folder: str | Path) -> Board:
    """Read the cards of a folder, whoever made them.

    Raises:
        InputError: there is none, one is malformed, or two were not judged alike.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise InputError(f"there are no cards in {folder}")
    cards = [read_board_card(file) for file in files]
    for file, card in zip(files, cards, strict=True):
        _check_alike(file, card, str(files[0]), cards[0])
    return Board(sorted(cards, key=lambda card: -float(card["worst case"]["value"])))


def check_cards(folder: Path, protocol: dict[str, Any], anew: Collection[str]) -> None:
    """Refuse a folder whose cards could not stand beside those judged by ``protocol``.

    Args:
        folder: may be empty, or not there yet.
        protocol: what our cards will hold.
        anew: names of our cards, which take the place of older ones.

    Raises:
        InputError: a card is malformed, or was judged in another way.
    """
    for file in sorted(folder.glob("*.json")):
        if file.stem not in anew:
            _check_alike(file, read_board_card(file), "this recipe judges", protocol)


def _check_alike(file: Path, card: dict[str, Any], other: str, theirs: dict[str, Any]) -> None:
    for key in _PROTOCOL:
        if card[key] != theirs[key]:
            raise InputError(
                f"{file} was judged with {key} {card[key]}, {other} with {theirs[key]}: they do "
                "not compare, put them into different folders"
            )


def read_board_card(file: Path) -> dict[str, Any]:
    """Read one card.

    Raises:
        InputError: it is malformed, or its strongest attack or the clean images are missing.
    """
    card = read_json_member(file.name, file.parent, BOARD_CARD)
    for attack in (CLEAN, card["strongest"]):
        if _under(card, attack) is None:
            raise InputError(f"{file} has no standing under {attack!r}: judge the model again")
    if len(card["limits"]) != 2:
        raise InputError(f"{file}, limits: give the images of cheap and of dear attacks")
    return card
