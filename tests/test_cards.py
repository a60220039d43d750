"""Cards are data: what they name never runs, and what they claim is checked before it is built."""

import copy
import json
import time
from pathlib import Path

import pytest

import smoothinfer as si
from smoothinfer.cli import main
from tests.test_checkpoints import RECIPE

RAN: list[str] = []


def spy(*args: object, **options: object) -> None:
    RAN.append("spy")


def network(classes: int) -> object:
    RAN.append("network")
    return si.smallnet(classes, width=4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    model = RECIPE.build_model((1, 8, 8), 3).eval()
    si.save_checkpoint(path, model, RECIPE, (1, 8, 8), ("a", "b", "c"))
    return path


@pytest.fixture
def altered(saved, tmp_path):
    """Write a copy of the checkpoint whose card was changed by a function; return its path."""

    def write(change) -> Path:
        card = copy.deepcopy(json.loads(saved.with_suffix(".json").read_text()))
        card.pop("checksum")  # as a stranger would, who writes the file by hand
        changed = change(card)
        path = tmp_path / "b.safetensors"
        path.write_bytes(saved.read_bytes())
        path.with_suffix(".json").write_text(json.dumps(card if changed is None else changed))
        return path

    RAN.clear()
    return write


SPY = "tests.test_cards:spy"
CODE = {
    "the model": lambda card: card["recipe"].update(model={"name": SPY}),
    "a call as the model": lambda card: card["recipe"].update(model=f"{SPY}(command='x')"),
    "noise of weights": lambda card: card["recipe"]["noise"].update(weights={"name": SPY}),
    "noise of a pattern": lambda card: card["recipe"]["noise"].update(weights={"*": {"name": SPY}}),
    "noise of inputs": lambda card: card["recipe"]["noise"].update(inputs=SPY),
    "noise of activations": lambda card: card["recipe"]["noise"].update(activations=SPY),
    "noise of linear layers": lambda card: card["recipe"]["noise"].update(
        weights={"name": "cni", "linear": SPY}
    ),
}


@pytest.mark.parametrize("change", CODE.values(), ids=CODE)
def test_code_named_by_a_card_never_runs(altered, change):
    path = altered(change)
    with pytest.raises(si.InputError):
        si.load(path)
    for command in ("evaluate", "audit", "certify"):
        assert main([command, str(path), "--data", "digits", "--out", str(path.parent / "o")]) == 2
    assert not RAN


def test_code_of_a_card_runs_where_the_user_trusts_it(altered, capsys):
    path = altered(lambda card: card["recipe"].update(model={"name": "tests.test_cards:network"}))
    with pytest.raises(si.InputError, match=r"b\.json names code to run.*--trust-code"):
        si.load(path)
    assert isinstance(si.load(path, trust_code=True), si.NoisyModel)
    assert RAN
    with pytest.raises(si.InputError, match="names code"):  # trust ends with the call
        si.load(path)


def test_a_network_of_another_library_needs_trust_since_its_options_load_files(altered):
    named = {"name": "smoothinfer.backbones:from_timm(name='resnet18')"}
    named["checkpoint_path"] = "theirs.pth"
    path = altered(lambda card: card["recipe"].update(model=named))
    with pytest.raises(si.InputError, match=r"which can load files and download.*--trust-code"):
        si.load(path)


def test_the_command_line_has_an_option_for_trust(altered, tmp_path):
    # The model has three classes, the digits have ten: it is built and then refused.
    path = altered(lambda card: card["recipe"].update(model={"name": "tests.test_cards:network"}))
    command = ["evaluate", str(path), "--data", "digits", "--limit", "3", "--out", str(tmp_path)]
    assert main(command) == 2
    assert not RAN
    main([*command, "--trust-code", "--attack", "none", "--samples", "1"])
    assert RAN


MALFORMED = {
    "a list": lambda card: [card],
    "a number": lambda card: 3,
    "no recipe": lambda card: card.pop("recipe") and None,
    "a recipe that is a list": lambda card: card.update(recipe=[]),
    "an unknown key": lambda card: card["recipe"].update(colour="red"),
    "no shape": lambda card: card.update(shape=None),
    "a shape of text": lambda card: card.update(shape=["a", 8, 8]),
    "a shape of two": lambda card: card.update(shape=[8, 8]),
    "a negative shape": lambda card: card.update(shape=[1, -8, 8]),
    "a shape of billions": lambda card: card.update(shape=[10**9, 10**9, 10**9]),
    "more channels": lambda card: card.update(shape=[3, 8, 8]),
    "classes that are a number": lambda card: card.update(classes=3),
    "no classes": lambda card: card.update(classes=[]),
    "another number of classes": lambda card: card.update(classes=["a"]),
    "a hash that is none": lambda card: card.update(sha256=None),
    "width of billions": lambda card: card["recipe"]["model"].update(width=10**9),
    "a negative width": lambda card: card["recipe"]["model"].update(width=-1),
    "a width of text": lambda card: card["recipe"]["model"].update(width="wide"),
    "blocks of billions": lambda card: card["recipe"].update(
        model={"name": "wrn34_10", "depth": 6 * 10**9 + 4}
    ),
    "a rank of billions": lambda card: card["recipe"]["noise"].update(weights="cni(rank=10**12)"),
    "an unknown option": lambda card: card["recipe"]["model"].update(colour=1),
    "an unknown side": lambda card: card["recipe"]["noise"].update(side="below"),
    "no normalisation": lambda card: card["recipe"].update(normalise={}),
    "half a normalisation": lambda card: card["recipe"].update(normalise={"mean": [0.1]}),
    "a std of zero": lambda card: card["recipe"].update(normalise={"mean": [0.5], "std": [0.0]}),
    "a std of text": lambda card: card["recipe"].update(normalise={"mean": [0.5], "std": ["x"]}),
    "an infinite mean": lambda card: card["recipe"].update(normalise={"mean": [1e999]}),
    "noise that is no mapping": lambda card: card["recipe"].update(noise=[1]),
    "a model that is a list": lambda card: card["recipe"].update(model=[1]),
    "an unknown model": lambda card: card["recipe"].update(model="vgg"),
    "an unknown noise": lambda card: card["recipe"]["noise"].update(weights="brown"),
    "noise without its strength": lambda card: card["recipe"]["noise"].update(inputs="gaussian"),
    "infinite noise": lambda card: card["recipe"]["noise"].update(inputs="gaussian(sigma=1e999)"),
    "linear noise that is none": lambda card: card["recipe"]["noise"].update(
        weights="cni(linear='os')"
    ),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_card_is_refused_at_once_in_one_line(altered, change):
    path = altered(change)
    start = time.perf_counter()
    with pytest.raises(si.InputError) as raised:
        si.load(path)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(raised.value)
    assert "b." in str(raised.value)


def test_a_deeply_nested_card_is_refused(altered):
    path = altered(lambda card: None)
    path.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(si.InputError, match=r"b\.json"):
        si.load(path)
    path.with_suffix(".json").write_bytes(b"\xff\xfe")
    with pytest.raises(si.InputError, match=r"b\.json"):
        si.load(path)


def test_weights_that_are_no_safetensors_are_named(altered, saved):
    import hashlib

    for content in (b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}", saved.read_bytes()[:-4]):
        digest = hashlib.sha256(content).hexdigest()
        path = altered(lambda card, digest=digest: card.update(sha256=digest))
        path.write_bytes(content)
        with pytest.raises(si.InputError, match=r"b\.safetensors"):
            si.load(path)
