"""Where code comes from: this package, the user, or an installed library."""

import functools
import hashlib
import importlib
import importlib.util
import os
import site
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

PACKAGE = "smoothinfer."
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
_FOLDERS = {
    *(sysconfig.get_path(name) for name in _PATHS),
    *site.getsitepackages(),
    site.getusersitepackages(),
}
_INSTALLED = tuple(folder.rstrip(os.sep) + os.sep for folder in _FOLDERS)
# Libraries whose versions differ in the last bits alone: rows name the computer instead.
_ROUNDING = ("torch", "numpy", "scipy", "pyarrow", "pybind11_builtins")


def is_ours(name: str) -> bool:
    """Say whether a full name is one of this package.

    >>> is_ours("smoothinfer.numerics.balls"), is_ours("user.smoothinfer")
    (True, False)
    """
    return f"{name}.".startswith(PACKAGE)


@functools.cache
def is_own(module: str) -> bool:
    """Say whether ``module`` is of this package or of the user, not of an installed library.

    A module without a file (a notebook, code that was executed from a string) is the user's.

    >>> is_own("smoothinfer.numerics.balls"), is_own("torch.nn"), is_own("json"), is_own("typed")
    (True, False, False, True)
    """
    top = module.partition(".")[0]
    if top in ("smoothinfer", "__main__"):
        return True
    if top in _ROUNDING or top.startswith("_cython_") or top in sys.stdlib_module_names:
        return False
    path = file_of(module) or file_of(top)
    return not path.startswith(_INSTALLED)


def module_of(kind: type) -> str:
    """Return the module of a class; some that are no Python do not name it."""
    module = kind.__module__
    return module if isinstance(module, str) else "builtins"


def is_rounding(module: str) -> bool:
    """Say whether another version of ``module``'s library changes the last bits at most."""
    top = module.partition(".")[0]
    return top in _ROUNDING or top in sys.stdlib_module_names


def file_of(module: str) -> str:
    """Return the file of a module, ``""`` if it has none; it need not be loaded."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None) or ""
    if "." in module:  # to look for it would import its parent
        return ""
    try:
        found = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError, AttributeError):
        return ""
    return (found.origin or "") if found and found.has_location else ""


def folder_of(module: str) -> str:
    """Return the folder of a module's file, ``""`` if it has none."""
    path = file_of(module)
    return os.path.dirname(os.path.abspath(path)) if path else ""


def imported(module: str) -> ModuleType | None:
    """Return a module that some code imports when it runs; one of the user's is loaded for it.

    A library's module that is not loaded stays so: an empty one of its name stands for it.
    """
    top = module.partition(".")[0]
    if module not in sys.modules and not is_own(top):
        return ModuleType(module)
    try:
        return importlib.import_module(module)
    except Exception:  # a module can raise anything, and the code that imports it may expect that
        return None


@functools.cache
def file_digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@functools.cache
def library_digest(top: str) -> str:
    """Return the digest of all Python files of an installed library, by its top-level name."""
    path = Path(file_of(top) or os.devnull)
    whole = hashlib.sha256()
    paths = path.parent.rglob("*.py") if path.name == "__init__.py" else [path]
    for each in sorted(paths):
        if each.is_file():
            whole.update(f"{each.relative_to(path.parent).as_posix()}\0".encode())
            whole.update(each.read_bytes())
    return whole.hexdigest()[:32]
