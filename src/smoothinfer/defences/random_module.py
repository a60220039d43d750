"""The base class of defences that draw random numbers in their own forward."""

from torch import nn


class RandomModule(nn.Module):
    """A module whose passes differ by itself, in training and in eval mode alike.

    The mark keeps the engine from recording one pass as if it were all of them.
    """

    draws_noise = True
