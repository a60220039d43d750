import dataclasses
from pathlib import Path

import pytest
import torch

import smoothinfer as si
from smoothinfer.config.settings_files import SCALES
from smoothinfer.recipes import load_recipe, recipe_from

OTHERS = {
    "paper",
    "sweeps",
    "boards",
}  # experiments, sweeps and leaderboards, which have tests of their own
RECIPES = sorted(p for p in Path("recipes").rglob("*.yaml") if p.parent.name not in OTHERS)


def test_there_are_recipes():
    assert len(RECIPES) >= 3


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_every_recipe_builds(path):
    recipe = load_recipe(path)
    assert recipe.description
    recipe.build_loss()
    if recipe.normalise.mean is not None:
        model = recipe.build_model((3, 32, 32), 10)
        assert sum(p.numel() for p in model.parameters()) > 1000
    assert recipe_from(recipe.to_dict()) == recipe  # what is kept can be read again


def test_the_papers_recipe_is_the_papers():
    recipe = load_recipe("recipes/cifar10/cni-w-paper.yaml")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.clip) == (400, 256, 0.1, 0.05)
    assert [recipe.learning_rate_at(e / 400) for e in (99, 100, 200, 300)] == pytest.approx(
        [0.1, 0.01, 0.001, 0.0001]
    )
    assert recipe.build_ball() == si.Linf(8 / 255)
    assert recipe.attack.options == {"steps": 7, "step_size": 2 / 255}
    assert sum(p.numel() for p in recipe.build_model((3, 32, 32), 10).parameters()) == 1_894_650


def test_every_recipe_of_the_paper_has_the_papers_length():
    for path in Path("recipes").glob("cifar*/*.yaml"):
        if path.name == "cni-w-paper.yaml":
            continue
        short, paper, smoke = (load_recipe(path, scale=scale) for scale in SCALES)
        assert paper.epochs > short.epochs > smoke.epochs
        assert (smoke.epochs, smoke.init_from) == (1, None)
        for at_scale in (paper, smoke):
            assert at_scale.loss.name == short.loss.name
            assert at_scale.attack.name == short.attack.name
            assert at_scale.attack.options.get("draws") == short.attack.options.get("draws")
            assert at_scale.validation.score == short.validation.score
            assert at_scale.validation.first  # as the shipped networks were trained
            assert at_scale.noise.inputs == short.noise.inputs
        assert set(paper.to_dict()["noise"]) == set(short.to_dict()["noise"])
        with_noise = [place for place in ("weights", "activations") if getattr(short.noise, place)]
        with_paper = [place for place in ("weights", "activations") if getattr(paper.noise, place)]
        assert with_paper == with_noise


def test_every_start_is_made_by_a_recipe_of_the_same_network_and_data():
    for path in Path("recipes").glob("cifar*/*.yaml"):
        recipe = load_recipe(path)
        if recipe.init_from is None:
            continue
        data, name = path.parent.name, Path(recipe.init_from).name
        maker = load_recipe(f"recipes/{data}/{name.removeprefix('cifar100-')}.yaml")
        assert ("cifar100-" in name) == (data == "cifar100")
        assert (maker.model, maker.normalise) == (recipe.model, recipe.normalise)
        assert maker.noise.weights is None or maker.noise.weights == recipe.noise.weights


def test_the_models_of_the_paper_have_recipes_for_both_networks_and_data_sets():
    models = ["natural", "adversarial", "trades-1", "trades", "mart", "pni-w", "cni-w", "cni-a"]
    models += ["cni-w-trades", "pni-w-trades", "cni-i-w", "epgd", "smoothadv", "high-k"]
    for data in ("cifar10", "cifar100"):
        for network in ("", "wrn34-10-"):
            for model in models:
                recipe = load_recipe(f"recipes/{data}/{network}{model}.yaml")
                assert recipe.model.name == ("wrn34_10" if network else "resnet20")


def test_cni_w_at_the_papers_scale_is_the_papers_recipe():
    one, two = (
        load_recipe("recipes/cifar10/cni-w.yaml", scale="paper"),
        load_recipe("recipes/cifar10/cni-w-paper.yaml"),
    )
    assert dataclasses.replace(one, description="") == dataclasses.replace(two, description="")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"loss": "adversarial(attack='pgd')"}, "loss.attack would be overridden"),
        ({"attack": {"name": "pgd", "ball": 1}}, "attack.ball would be overridden"),
    ],
)
def test_an_option_that_would_be_overridden_is_refused(content, message):
    with pytest.raises(si.InputError, match=message):
        recipe_from(content).build_loss()


def pictures(classes=10):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    names = tuple(str(name) for name in range(classes))
    return si.ImageData("pictures", pixels, torch.arange(40) % classes, names)


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("cifar*/*.yaml")), ids=str)
def test_every_recipe_trains(path, tmp_path):
    """Its smoke form, on a narrow network of the same kind and a few images."""
    smaller = ["validation.held_out=8", "validation.images=4", "precision=fp32", "compile=off"]
    smaller += ["channels_last=false"]
    if load_recipe(path).model.name != "wrn34_10":
        smaller.append("model.width=8")
    for key in ("attack", "validation_attack"):
        if getattr(load_recipe(path), key) is not None:
            smaller.append(f"{key}.steps=2")
    recipe = load_recipe(path, smaller, "smoke")
    assert recipe.description
    history = si.train_run(recipe, pictures(100 if "cifar100" in str(path) else 10), tmp_path)
    assert len(history.epochs) == 1
    assert si.load(tmp_path)(torch.rand(1, 3, 32, 32)).isfinite().all()


def test_the_attack_of_the_validation_is_that_of_the_training_unless_it_is_named():
    same = recipe_from({"attack": "pgd(steps=3)"})
    assert same.build_validation_attack().keywords["steps"] == 3
    other = recipe_from({"attack": "fgsm", "validation_attack": "pgd(steps=9)"})
    assert other.build_validation_attack().keywords["steps"] == 9
    for single in ("fgsm", "pgd(steps=1)"):  # which a network may learn to hide its gradient from
        assert recipe_from({"attack": single}).build_validation_attack().keywords["steps"] == 10
    with pytest.raises(si.InputError, match=r"validation_attack\.ball"):
        recipe_from({"validation_attack": "pgd(ball=1)"}).build_validation_attack()


def test_wide_networks_at_the_papers_scale_follow_their_sources():
    def paper(name):
        return load_recipe(f"recipes/cifar10/{name}.yaml", scale="paper")

    mart, logged = paper("wrn34-10-mart"), paper("wrn34-10-cni-w")
    assert (mart.loss.options["beta"], mart.epochs, mart.lr) == (6.0, 90, 0.1)
    assert mart.weight_decay == 7e-4
    assert logged.attack.options == {"steps": 10, "step_size": 0.006}
    assert (logged.epochs, logged.clip) == (100, 1.0)
    assert logged.noise.weights.options == {"rank": 5, "diagonal": 0.01, "factor": 0.0001}
    assert paper("mart").ball.options["radius"] == paper("trades").ball.options["radius"] == 0.031
    assert (paper("natural").epochs, paper("natural").batch_size) == (400, 256)


def test_noise_at_activations_is_alone_there():
    for scale in ("short", "paper"):
        noise = load_recipe("recipes/cifar10/cni-a.yaml", scale=scale).noise
        assert noise.weights is None
        assert noise.activations.name == "cni"


@pytest.mark.parametrize(
    "content",
    [
        {"model": "smallnet(width=100000)"},
        {"model": "smallnet(width=1000000000)"},
        {"noise": {"weights": "cni(rank=1000000000)"}},
    ],
)
def test_sizes_that_no_machine_has_take_no_memory(content):
    whole = {"normalise": {"mean": [0.5], "std": [0.5]}, **content}
    with pytest.raises(si.InputError, match=r"of memory|cannot be built"):
        recipe_from(whole).build_model((1, 8, 8), 10)


@pytest.mark.parametrize(
    ("key", "value"),
    [("weight_decay", 1e300), ("lr", 1e31), ("save_seconds", -1.0), ("clip", 1e200)],
)
def test_numbers_beyond_the_format_of_weights_are_refused(key, value):
    with pytest.raises(si.InputError, match=key):
        recipe_from({key: value})


def test_a_schedule_that_fails_later_is_refused_at_once():
    for schedule, message in (
        ("steps(factor=1e300)", "lr times the factor of schedule"),
        ("one_cycle(end=1e308)", "lr times the factor of schedule"),
        ("tests.fuzz.factories:returns_nothing", "cannot be called"),
    ):
        with pytest.raises(si.InputError, match=message):
            recipe_from({"schedule": schedule, "lr": 1e-3})
