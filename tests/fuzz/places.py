"""Places and recipes that no command should trip over."""

import os
import random
from pathlib import Path

import yaml

from smoothinfer.shipped_files import shipped
from tests.fuzz.pools import VALUES, places_in

_ENDINGS = ("npz", "safetensors", "yaml", "json", "parquet", "png")
_NAMES = ("a\nb", "\x1b[31m", "z" * 300, "\udcff", "\x00", "file/inside", "a" * 200 + "/b")


def bad_paths(here: Path, world: Path) -> list[str]:
    """Make files, folders, links in a circle and pipes in ``here``; return their paths.

    With them are names that no file should have, and all files of ``world``.
    """
    here.mkdir(parents=True)
    (here / "file").write_text("no recipe, no data, no model")
    (here / "empty").touch()
    (here / "folder").mkdir()
    os.symlink(here / "circle", here / "circle")
    os.symlink(here / "nowhere", here / "dangling")
    os.mkfifo(here / "pipe")
    (here / "no entry").mkdir(mode=0)  # root may enter
    for ending in _ENDINGS:
        (here / f"empty.{ending}").touch()
        (here / f"folder.{ending}").mkdir()
        os.symlink(here / f"circle.{ending}", here / f"circle.{ending}")
        os.mkfifo(here / f"pipe.{ending}")
    inside = [str(path) for path in sorted(here.iterdir())]
    files = [str(path) for path in sorted(world.rglob("*")) if "pictures/" not in str(path)]
    return [*inside, *(str(here / each) for each in _NAMES), *files, str(here / "no entry/x")]


def write_bad_recipe(chance: random.Random, to: Path) -> None:
    """Write a shipped recipe to ``to``, with a change or two somewhere."""
    recipes = sorted(shipped("recipes", "digits/cni-w.yaml").parents[1].rglob("*.yaml"))
    path = chance.choice(recipes)
    content = yaml.safe_load(path.read_text())
    if "extends" in content:
        content["extends"] = str(path.parent / content["extends"])
    places = list(places_in(content))
    for _ in range(chance.choice((1, 1, 2))):
        holder, key = chance.choice(places)
        if isinstance(holder, list):
            holder[key] = chance.choice(VALUES)
        elif chance.random() < 0.2:
            holder.pop(key, None)
        elif chance.random() < 0.2:
            holder[chance.choice(("", "x", 3, None, True, "name"))] = chance.choice(VALUES)
        else:
            holder[key] = chance.choice(VALUES)
    to.write_text(yaml.safe_dump(content))
