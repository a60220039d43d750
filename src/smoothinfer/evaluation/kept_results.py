"""Results of a long piece of work, kept one by one, so that killed work goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.runtime.files import read_json, write_json


class KeptResults:
    """Results in a folder, a file each, with a digest of all that they depend on.

    Args:
        folder: of the files; ``None`` keeps nothing.
        world: objects that all results depend on.
    """

    def __init__(self, folder: Path | None, *world: Any) -> None:
        self.folder = folder
        self._world = "" if folder is None else Fingerprint().of(*world)

    def load(self, name: str, *own: Any) -> Any:
        """Return the result ``name`` of an earlier run that depended on the same, or ``None``.

        A file that is damaged, or depends on something else, counts as none: it is made again.
        """
        if self.folder is None or not self._path(name).exists():
            return None
        try:
            content = read_json(self._path(name))
            return content["result"] if content["key"] == self._key(own) else None
        except (InputError, KeyError, TypeError):
            return None

    def save(self, name: str, result: Any, *own: Any) -> None:
        """Keep plain ``result``, which depends on ``own`` besides the world."""
        if self.folder is not None:
            write_json(self._path(name), {"key": self._key(own), "result": result})

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.json"

    def _key(self, own: tuple[Any, ...]) -> str:
        return Fingerprint().of(self._world, *own)
