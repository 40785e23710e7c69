import torch

from twophase_fast.training import FlipCrop, generator_for

IMAGES = torch.randn(40, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def candidates(image, crop, fill):
    """Every image FlipCrop may make of one image, the slow way."""
    channels, height, width = image.shape
    padded = torch.tensor(fill).view(-1, 1, 1).expand(channels, height + 2 * crop, width + 2 * crop)
    for source in (image, image.flip(2)):
        big = padded.clone()
        big[:, crop : crop + height, crop : crop + width] = source
        for i in range(2 * crop + 1):
            for j in range(2 * crop + 1):
                yield big[:, i : i + height, j : j + width]


def test_every_result_is_a_flipped_and_shifted_image_with_filled_borders():
    fill = (-1.0, 0.5, 2.0)
    results = FlipCrop(True, 2, fill)(IMAGES, generator_for(0))
    hits = []
    for image, result in zip(IMAGES, results):
        match = [k for k, c in enumerate(candidates(image, 2, fill)) if torch.allclose(c, result, atol=1e-6)]
        assert len(match) == 1
        hits += match
    assert len(set(hits)) > 20  # of 50 possible ones


def test_draws_come_from_the_generator_alone():
    augment = FlipCrop()
    torch.manual_seed(1)
    first = augment(IMAGES, generator_for(3, 1))
    torch.manual_seed(2)
    assert torch.equal(first, augment(IMAGES, generator_for(3, 1)))
    assert not torch.equal(first, augment(IMAGES, generator_for(3, 2)))


def test_nothing_to_do_changes_nothing():
    assert torch.equal(FlipCrop(False, 0)(IMAGES, generator_for(0)), IMAGES)
