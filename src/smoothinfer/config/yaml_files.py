"""YAML files read as plain values, whatever is written in them."""

from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.runtime.files import read_content

_LARGEST = 1 << 20  # bytes of a file
_NUMBERS, _TEXT = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"), "tag:yaml.org,2002:str"
_MOST_VALUES = 100_000  # of a file whose aliases are written out


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        InputError: it is missing, too large, not UTF-8 or not valid YAML.
    """
    if Path(path).is_dir():
        raise InputError(f"cannot read {path}: it is a folder, name a file in it")
    try:
        text = read_content(path, _LARGEST).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return ``text`` read as YAML, without objects of Python; ``source`` names it in errors.

    Raises:
        InputError: it is not valid YAML, or its aliases stand for more than 100,000 values.

    >>> parse_yaml("epochs: 3", "the recipe")
    {'epochs': 3}
    """
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        loader.name = source  # in its errors
        node = loader.get_single_node()
        if node is None:
            return None
        # An alias costs a byte and can stand for a document; ten of ten of ten for billions.
        if _count_values(node, {}) > _MOST_VALUES:
            raise InputError(f"{source} holds more than {_MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError:
        raise InputError(f"{source} is nested too deeply, or an alias contains itself") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: 2001-99-99 as a date
        raise InputError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _count_values(node: Any, known: dict[int, int]) -> int:
    """Return the number of values below ``node``, aliases written out."""
    if id(node) not in known:
        if node.tag in _NUMBERS and ":" in node.value:
            node.tag = _TEXT  # 0:1:0.1 is a range: YAML 1.1 reads 60.1 seconds
        inside = node.value if isinstance(node.value, list) else ()
        parts = [part for each in inside for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]
