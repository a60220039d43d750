"""A name with options as people write it: ``pgd(steps=20, step_size=2/255)``."""

import ast
import re
from typing import Any

from smoothinfer.errors import InputError

_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_CALL = re.compile(r"([\w.:-]+)\s*(?:\((.*)\))?", re.DOTALL)


def parse_number(value: Any) -> Any:
    """Read ``"8/255"`` as a number; leave everything else as it is.

    >>> parse_number("8/255") == 8 / 255
    True
    """
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)) and float(match[2]):
        return float(match[1]) / float(match[2])
    return value


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``name`` or ``name(option=value, ...)``.

    Raises:
        InputError: it is neither.

    >>> parse_call("pgd(steps=20)")
    ('pgd', {'steps': 20})
    """
    match = _CALL.fullmatch(text.strip())
    if not match:
        raise InputError(f"cannot read {text!r}: write name or name(option=value, ...)")
    try:
        call = ast.parse(f"_({match[2] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise InputError(f"cannot read {text!r}: write one name or name(option=value, ...)")
        if call.args:
            raise InputError(f"cannot read {text!r}: options need names, as in pgd(steps=20)")
        options = {str(pair.arg): _literal(pair.value) for pair in call.keywords}
    except InputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # nested too deeply
        raise InputError(f"cannot read {text!r}: {error}") from error
    return match[1], options


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp):
        return parse_number(ast.unparse(node))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        shown = ast.unparse(node)
        raise ValueError(
            f"{shown} is no value: write a number, True, None, a list, or text in quotes"
        ) from None
