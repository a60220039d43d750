"""Factories of models that do what none should, for commands: ``tests.fuzz.factories:raises``."""

import os
import sys

from torch import nn

WRITES = "SMOOTHINFER_FUZZ_MARKER"  # environment variable: the file that code must never write


class _Interrupt(BaseException):
    pass


def raises():
    raise RuntimeError("two\nlines \x1b[31m of an error")


def raises_anything():
    raise _Interrupt("no Exception")


def raises_nothing_to_say():
    raise KeyError


def stops_iterating():
    raise StopIteration


def recurses():
    return recurses()


def exits():
    sys.exit(0)


def asserts():
    assert not os.sep


def returns_nothing():
    return None


def returns_a_class():
    return nn.Linear


def takes_arguments(width, depth):
    return nn.Linear(width, depth)


def prints():
    print("a line of a stranger")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


class FailsInside(nn.Module):
    def forward(self, images):
        raise RuntimeError("shapes\ndo not fit")


def fails_inside():
    return FailsInside()


class Answers(nn.Module):
    """A model with an answer of a wrong kind."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def answers_text():
    return Answers(lambda images: "a cat")


def answers_one_number():
    return Answers(lambda images: images.sum())


def answers_nan():
    return Answers(lambda images: images.flatten(1)[:, :10] * float("nan"))


def answers_one_class():
    return Answers(lambda images: images.flatten(1)[:, :1])


def answers_integers():
    return Answers(lambda images: (images.flatten(1)[:, :10] * 9).long())


def answers_two_rows():
    return Answers(lambda images: images.flatten(1)[:2, :10])


a_number = 7
a_module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # an instance, which needs images
