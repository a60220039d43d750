"""A key follows the code of an attack through all ways in which it can use other code."""

import importlib
import sys
from pathlib import Path

import pytest
from torch import nn

import smoothinfer as si
from smoothinfer.attacks import gate
from smoothinfer.evaluation import code_walk, origins
from smoothinfer.evaluation.fingerprint import Fingerprint
from tests.evaluation.user_files import key_of, key_of_attack, written
from tests.evaluation.ways import HEAD, HELPER, IMPORTS, USE, WAYS


@pytest.mark.parametrize("way", WAYS)
def test_an_attack_changes_with(way, tmp_path):
    text = HEAD + WAYS[way]
    assert text.count("0.1") == 1
    before = key_of_attack(tmp_path, mine=text)
    assert key_of_attack(tmp_path, mine=text) == before
    assert key_of_attack(tmp_path / "moved", mine=text) == before
    assert key_of_attack(tmp_path, mine=text.replace("0.1", "0.2")) != before


@pytest.mark.parametrize("way", IMPORTS)
def test_an_attack_changes_with_a_helper_that_it_imports_as(way, tmp_path):
    files = {"mine": HEAD + IMPORTS[way], "helpers": HELPER}
    before = key_of_attack(tmp_path, **files)
    assert key_of_attack(tmp_path / "moved", **files) == before
    other = files | {"helpers": HELPER.replace("0.1", "0.2")}
    assert key_of_attack(tmp_path, **other) != before


def reads():
    from scipy.io.arff import loadarff

    return loadarff("a.arff")


def test_a_key_stays_when_a_library_that_is_imported_late_gets_loaded(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("scipy.io.arff")]:
        monkeypatch.delitem(sys.modules, name)
    met = []
    for _ in range(2):
        prints = Fingerprint()
        met.append((prints.of(reads), prints.code))
        importlib.import_module("scipy.io.arff")
    assert met[0] == met[1]


@pytest.mark.parametrize("form", ["from .sub import helpers", "from .sub.helpers import shift"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_helper_of_a_package_counts(form, inside, tmp_path):
    call = "helpers.shift(images)" if form.endswith("helpers") else "shift(images)"
    use = USE.format(call)
    text = use.replace("return", f"{form}\n    return") if inside else f"{form}\n{use}"
    keys = []
    for name, number in (("one", "0.1"), ("two", "0.1"), ("three", "0.2")):
        folder = tmp_path / name / "pack"
        (folder / "sub").mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "sub" / "__init__.py").write_text("")
        (folder / "sub" / "helpers.py").write_text(HELPER.replace("0.1", number))
        (folder / "mine.py").write_text(text)
        with written(tmp_path / name) as load:
            keys.append(key_of(load("pack.mine").attack))
    assert keys[0] == keys[1] != keys[2]


def test_the_gate_of_an_attack_is_a_part_of_it(monkeypatch):
    """Every attack is a function inside the gate, which itself holds the attack."""
    before = key_of(si.pgd)
    names = [name for name, _ in before[2]]
    assert any("gate.gated.<locals>.behind_gate" in name for name in names)
    assert "smoothinfer.attacks.gate._check" in names
    assert "smoothinfer.attacks.projected_gradient.pgd" in names
    monkeypatch.setattr(gate, "plain_images", lambda model, images: images.half())
    assert key_of(si.pgd) != before


def test_the_default_of_a_gated_attack_counts(monkeypatch):
    before = key_of(si.pgd)
    inner = si.pgd.__wrapped__
    monkeypatch.setitem(inner.__kwdefaults__, "steps", inner.__kwdefaults__["steps"] + 1)
    assert key_of(si.pgd) != before


def test_the_code_of_an_installed_library_counts_by_all_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(origins, "_INSTALLED", (*origins._INSTALLED, f"{tmp_path}/"))
    for cached in (origins.is_own, origins.library_digest):
        monkeypatch.setattr(origins, cached.__name__, cached.__wrapped__)
        monkeypatch.setattr(code_walk, cached.__name__, cached.__wrapped__)
    keys = []
    for number in ("0.1", "0.2"):
        folder = tmp_path / "libraryx"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("from .inner import attack\n")
        (folder / "inner.py").write_text("from .deep import BY\n" + USE.format("images + BY"))
        (folder / "deep.py").write_text(f"BY = {number}\n")
        with written(tmp_path) as load:
            keys.append(key_of(load("libraryx").attack))
    assert dict(keys[0][2]).keys() == {"libraryx"}
    assert keys[0] != keys[1]


def test_no_path_of_this_computer_is_in_the_code():
    names = " ".join(name for name, _ in key_of(si.pgd, nn.Linear(1, 1))[2])
    assert str(Path.cwd()) not in names
