"""Files that come with the package: recipes and checkpoints."""

from collections.abc import Iterator
from pathlib import Path

from smoothinfer.errors import unknown

_PACKAGE = Path(__file__).parent


def recipe_path(name: str | Path) -> Path:
    """Return the file ``name``, or the recipe of this name that comes with the package.

    Raises:
        InputError: there is neither.
    """
    path = Path(name)
    return path if path.exists() else shipped("recipes", str(path).removeprefix("recipes/"))


def shipped(kind: str, name: str) -> Path:
    """Return a file that comes with the package: of ``"checkpoints"`` or ``"recipes"``."""
    for base in bases(kind):
        if (base / name).is_file():
            return base / name
    raise unknown(f"file of {kind}", name, list_shipped(kind))


def list_shipped(kind: str) -> dict[str, Path]:
    """Return the files of ``kind`` that come with the package, by name, sorted."""
    found = {str(p.relative_to(b)): p for b in bases(kind) for p in b.rglob("*") if p.is_file()}
    return dict(sorted(found.items()))


def bases(kind: str) -> Iterator[Path]:
    """Yield the folders of ``kind``: of the package, or at the root of a checkout."""
    places = [_PACKAGE / "shipped" / kind, _PACKAGE.parents[1] / kind]
    places += [Path(kind)] if kind == "checkpoints" else []  # where ``publish`` puts them
    yield from dict.fromkeys(place.resolve() for place in places if place.is_dir())
