"""What a run folder is a training of: recipe, data, code; another one is not mixed into it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from smoothinfer.config.yaml_files import read_yaml
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.recipes import recipe_from
from smoothinfer.runtime.checksums import check_content, with_checksum
from smoothinfer.runtime.files import write_text
from smoothinfer.runtime.processes import Processes
from smoothinfer.training.state import read_identity

# Recipe keys that may change from one part of a run to the next.
_FREE = ("description", "compile", "save_seconds", "trackers")


def code_of(*values: object) -> dict[str, str]:
    """Return the digests of all code that ``values`` run, by name."""
    prints = Fingerprint()
    prints.of(*values)
    return prints.code


def check_resumable(out: Path, identity: dict[str, Any]) -> bool:
    """Make sure that the folder holds this very run, or none; write its recipe.

    Args:
        out: the run folder.
        identity: ``"recipe"``, ``"data"``, ``"code"`` and perhaps ``"start_sha256"`` of the run.

    Returns:
        Whether it is resumed.

    Raises:
        InputError: it holds a run of another recipe, other data or other code, or its recipe was
            edited.
    """
    path = out / "recipe.yaml"
    _check_recipe_file(path)
    saved = read_identity(out / "state.pt")
    if saved is not None:  # else nothing was trained yet
        _refuse_another_run(out, saved, identity)
        _refuse_other_code(out, saved["code"], identity["code"])
    if Processes().main:
        rest = {name: value for name, value in identity.items() if name not in ("recipe", "code")}
        content = with_checksum(identity["recipe"] | rest)
        write_text(path, yaml.safe_dump(content, sort_keys=False))
    return saved is not None


def _check_recipe_file(path: Path) -> None:
    """Refuse a ``recipe.yaml`` of a run that somebody edited: that would change nothing."""
    remedy = (
        "delete it, and train writes it again; to change a recipe, give --set or another recipe "
        "file, and another --out"
    )
    if not path.exists():
        return
    try:
        content = read_yaml(path)
    except InputError as error:
        raise InputError(f"{path} is damaged or was edited ({error}): {remedy}") from error
    check_content(content if isinstance(content, dict) else {"": content}, path, remedy)


def _refuse_another_run(out: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    other = ["data"] if saved["data"] != identity["data"] else []
    if saved.get("start_sha256") not in (None, identity.get("start_sha256")):
        other.append("the weights of init_from")
    # Compared as recipes, so that an option added since does not shut out an older run.
    kept = {key: value for key, value in saved["recipe"].items() if key not in _FREE}
    before, now = recipe_from(kept, str(out / "state.pt")).to_dict(), identity["recipe"]
    other += [key for key in now if before[key] != now[key] and key not in _FREE]
    if other:
        raise InputError(
            f"{out} holds a run of another recipe or other data (see {out / 'recipe.yaml'}), they "
            f"differ in {', '.join(other)}: choose another --out"
        )


def _refuse_other_code(out: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with a network, loss or attack whose code has changed."""
    changed = [name for name in sorted({**before, **now}) if before.get(name) != now.get(name)]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{out} was begun with other code of {', '.join(changed[:3])}{more}: restore that "
            "code, or choose another --out"
        )
