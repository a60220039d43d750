"""Files of a user, imported as in a fresh process, and what a key says of them."""

import contextlib
import importlib
import sys

from smoothinfer.evaluation.fingerprint import Fingerprint


def key_of(*values):
    """Content and code of values together."""
    prints = Fingerprint()
    return prints.of(*values), prints.of_torch(), sorted(prints.code.items())


@contextlib.contextmanager
def written(folder, **files):
    """Import modules by name from ``folder``, after writing them; forget them in the end."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode, wrote = True, sys.dont_write_bytecode
    importlib.invalidate_caches()
    try:
        yield importlib.import_module
    finally:
        sys.dont_write_bytecode = wrote
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def key_of_attack(folder, **files):
    """The key of ``attack`` in ``mine.py``."""
    folder.mkdir(exist_ok=True)
    with written(folder, **files) as load:
        return key_of(load("mine").attack)
