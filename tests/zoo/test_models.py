import pytest
import torch

from twophase_fast import zoo
from twophase_fast._types import InputError

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
GREY = IMAGE[:, :1, :28, :28].contiguous()
INPUTS = {"mlp": GREY, "small_cnn": GREY, "gpt": torch.arange(2 * 64).view(2, 64)}
SMALL = {
    "vgg16": {"width": 0.125, "hidden": (16,), "dropout": 0.5},
    "vit": {"d": 24, "depth": 2},
    "gpt": {"d": 16, "depth": 2, "heads": 2},
}
PARAMETERS = {
    "mlp": 2_913_290,
    "small_cnn": 6_218,
    "tutorial_cnn": 235_722,
    "resnet20": 269_722,
    "vgg16": 14_728_266,
}


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_model_is_a_function_of_its_seed_and_leaves_the_random_state_alone(name):
    before = torch.get_rng_state()
    build = lambda seed: flat(zoo.MODELS[name](**SMALL.get(name, {}), seed=seed))  # noqa: E731
    first, again, other = build(3), build(3), build(4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_outputs_are_samples_by_classes_and_samples_do_not_mix(name):
    model = zoo.MODELS[name](**SMALL.get(name, {}), seed=0).eval().double()
    x = INPUTS.get(name, IMAGE)
    x = x.double() if x.is_floating_point() else x
    y = model(x)
    assert y.shape == (2, 1000 if name == "gpt" else 10)
    torch.testing.assert_close(model(x[1:]), y[1:], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts(name, count):
    with torch.device("meta"):
        model = zoo.MODELS[name].__wrapped__()
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_papers_vgg_has_33_6_million_parameters():
    with torch.device("meta"):
        model = zoo.vgg16.__wrapped__(hidden=(4096, 4096))
    assert sum(p.numel() for p in model.parameters()) == 33_646_666


def test_gpt_ties_its_embeddings_unless_told_otherwise():
    tied, untied = (zoo.gpt(d=16, depth=1, tied=t) for t in (True, False))
    assert tied.readout.weight is tied.tokens.weight
    assert untied.readout.weight is not untied.tokens.weight


def test_gpt_is_causal():
    model = zoo.gpt(d=16, depth=2, heads=2, seed=1).double()
    tokens = torch.arange(10)[None]
    hidden = lambda t: model.layers(model.tokens(t))  # noqa: E731
    changed = tokens.clone()
    changed[0, 6] = 99
    assert torch.equal(hidden(tokens)[0, :6], hidden(changed)[0, :6])
    assert not torch.equal(hidden(tokens)[0, 6:], hidden(changed)[0, 6:])


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="d=10 is not a multiple of heads=3"):
        zoo.vit(d=10, heads=3)
