import pytest

import smoothinfer as si
from smoothinfer.config.user_code import import_object, is_named_code, running_code
from tests.fuzz import factories

BAD = ["raises", "raises_anything", "raises_nothing_to_say", "stops_iterating", "recurses", "exits"]
BAD += ["asserts", "returns_nothing", "returns_a_class", "takes_arguments", "a_number", "a_module"]


@pytest.mark.parametrize("name", BAD)
def test_a_factory_that_makes_no_model_is_named(name):
    path = f"tests.fuzz.factories:{name}"
    with pytest.raises(si.InputError, match=path):
        si.load(path)


@pytest.mark.parametrize("path", ["os:", ":x", "a:b:c", "..a:b", "os:path:join", "builtins:no", ""])
def test_a_name_that_leads_nowhere_is_named(path):
    with pytest.raises(si.InputError, match="cannot import"):
        import_object(path)


def test_code_that_fails_is_told_and_ctrl_c_passes():
    with (
        pytest.raises(si.InputError, match="it fails: ZeroDivisionError"),
        running_code("it fails"),
    ):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), running_code("it fails"):
        raise KeyboardInterrupt


def test_the_code_beside_a_named_module_is_the_users():
    import_object("tests.fuzz.factories:prints")
    assert is_named_code(factories.__file__)
    assert not is_named_code(si.__file__)
