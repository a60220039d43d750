"""A model whose answer depends on its batch is told from rounding, and from noise by place."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.batches import OTHERS, PLACE, depends_on_batch, rounding_of
from tests.conftest import small_net


def some_images(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """Two layers, with what a subclass does between them."""

    def __init__(self):
        super().__init__()
        with si.isolated_rng(0):
            self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6 * 64, 3)
        self.training = False

    def between(self, features):
        return features

    def forward(self, images):
        return self.last(F.relu(self.between(self.first(images))).flatten(1))


class Normalised(Net):
    def between(self, features):
        return F.batch_norm(features, None, None, training=True)


class Centred(Net):
    def between(self, features):
        return features - features.mean(0)


class Attentive(Net):
    def between(self, features):
        flat = features.flatten(1)
        return ((flat @ flat.T).softmax(1) @ flat).view_as(features)


class BesideTheFirst(Net):
    def between(self, features):
        return features - features[:1]


class Counted(Net):
    def between(self, features):
        return features * len(features)


class RunningAverage(Net):
    """Moves an average at every call, out of sight of its buffers."""

    average = 0.0

    def between(self, features):
        self.average = 0.9 * self.average + 0.1 * features.detach().mean(0)
        return features - self.average


class Dropping(Net):
    """Left-on dropout: its noise depends on the place in the batch."""

    def between(self, features):
        return F.dropout(features, 0.3, training=True)


class DroppingCentred(Dropping):
    def between(self, features):
        return super().between(features - features.mean(0))


class OwnGenerator(Net):
    """Noise that no seed repeats."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def between(self, features):
        noise = torch.randn(features.shape, generator=self.generator, dtype=features.dtype)
        return features + 0.1 * noise


class OnlyEight(Net):
    def between(self, features):
        return features.reshape(8, 6, 8, 8) if len(features) > 1 else features


def noisy(net):
    return lambda: si.NoisyModel(net(), inputs=si.Gaussian(0.2), weights=si.PNI()).eval()


DEPENDENT = {
    "batch statistics": Normalised,
    "less the mean": Centred,
    "attention": Attentive,
    "less the first": BesideTheFirst,
    "running average": RunningAverage,
    "less the mean, under dropout": DroppingCentred,
    "less the mean, under our noise": noisy(Centred),
    "dropout and the mean, under our noise": noisy(DroppingCentred),
}
SOUND = {
    "plain": Net,
    "dropout": Dropping,
    "own generator": OwnGenerator,
    "our noise": noisy(Net),
    "dropout under our noise": noisy(Dropping),
    "residual": lambda: si.resnet20(channels=1).eval(),
    "small": lambda: small_net().eval(),
}


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("name", DEPENDENT)
def test_an_answer_that_depends_on_other_images_is_noticed(name, count):
    assert OTHERS in depends_on_batch(DEPENDENT[name](), some_images(count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SOUND)
def test_rounding_and_noise_are_no_dependence(name, dtype):
    images = some_images(20).double()
    assert depends_on_batch(SOUND[name]().to(dtype), images) == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_dependence_is_noticed_in_every_format(dtype):
    assert OTHERS in depends_on_batch(Centred().to(dtype), some_images(20))


def test_a_dependence_on_place_or_size_is_called_by_its_name():
    assert depends_on_batch(Counted(), some_images(20)) == PLACE


def test_a_size_of_batch_that_fails_is_told():
    found = depends_on_batch(OnlyEight(), some_images(20))
    assert found.startswith("the model takes 8 images at once, not 3: RuntimeError: shape")


class PoissonNoise(Net):
    """How many numbers it draws depends on the images, so other images change what is left."""

    def forward(self, images):
        return super().forward(torch.poisson(20 * images) / 20)


class PoissonCentred(PoissonNoise, Centred):
    pass


def test_noise_that_draws_by_value_is_compared_in_distribution():
    images = 0.3 * some_images(20)
    assert depends_on_batch(PoissonNoise(), images) == ""
    assert OTHERS in depends_on_batch(PoissonCentred(), images)


@pytest.mark.parametrize(("units", "noticed"), [(64, False), (256, True)])
def test_differences_count_beyond_128_units_of_rounding(units, noticed):
    class Shifted(nn.Module):
        def forward(self, images):
            logits = torch.tensor([[1.0, 0.0, -1.0]]).repeat(len(images), 1)
            return logits + units * torch.finfo(torch.float32).eps * (len(images) == 3)

    assert bool(depends_on_batch(Shifted().eval(), torch.rand(20, 1, 2, 2))) == noticed


def test_what_the_rounding_of_the_images_changes_is_rounding():
    class Steep(nn.Module):
        """Rounding of one unit in the images grows to thousands in the logits."""

        def forward(self, images):
            nudged = images * (1 + torch.finfo(torch.float32).eps * (len(images) == 3))
            return 1e4 * (nudged.flatten(1)[:, :3] - images.flatten(1).mean(1, keepdim=True))

    class Offset(Steep):
        def forward(self, images):
            return super().forward(images) - 1e4 * (images.flatten(1)[:, :3] - 0.5)

    assert depends_on_batch(Offset().eval(), some_images(20)) == ""


def test_the_coarsest_format_counts():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).bfloat16())
    assert rounding_of(net, torch.zeros(1, 2)) == torch.finfo(torch.bfloat16).eps
    with torch.autocast("cpu", torch.bfloat16):
        assert rounding_of(net[0], torch.zeros(1, 2)) == torch.finfo(torch.bfloat16).eps


def test_it_is_cheap_and_leaves_the_generator_alone():
    calls, state = [], torch.random.get_rng_state()
    net = Net()
    net.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    depends_on_batch(net, some_images(64))
    assert calls == [8, 3]
    depends_on_batch(OwnGenerator(), torch.zeros(4, 1, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_evaluate_warns_once_in_one_line_and_only_then():
    data = some_images(12), torch.zeros(12, dtype=torch.int64)
    with pytest.warns(UserWarning, match="hold for this order of the images only") as caught:
        si.evaluate(Normalised(), data)
    (message,) = (str(each.message) for each in caught)
    assert "\n" not in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sound in SOUND.values():
            si.evaluate(sound(), data)
