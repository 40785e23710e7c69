"""Kernel distance, velocity and the half-angle of the cone."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from twophase_fast._matrix import as_matrix, from_matrix
from twophase_fast._types import InputError
from twophase_fast.measures import angle_degrees, cone_half_angle, kernel_distance, kernel_velocity


def full_kernel(seed: int, samples: int = 4, outputs: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Full kernel laid out as the engine lays it out: a view of an [N, C, N, C] buffer."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(samples * outputs, 20, generator=generator, dtype=torch.float64)
    return from_matrix((rows @ rows.T).to(dtype), outputs)


def exact_distance(a: torch.Tensor, b: torch.Tensor) -> mpmath.mpf:
    with mpmath.workprec(2000):
        x, y = ([mpmath.mpf(v) for v in t.double().flatten().tolist()] for t in (a, b))
        dot = mpmath.fsum(p * q for p, q in zip(x, y))
        return 1 - dot / mpmath.sqrt(mpmath.fsum(p * p for p in x) * mpmath.fsum(q * q for q in y))


@pytest.mark.parametrize("relative", [1.0, 1e-3, 1e-6, 1e-10])
def test_distance_is_exact_where_a_kernel_grows(relative):
    a = full_kernel(0)
    b = 1.3 * a + relative * full_kernel(1)
    truth = exact_distance(a, b)
    assert abs((kernel_distance(a, b) - truth) / truth) < 1e-9


def test_distance_of_float32_kernels_is_that_of_the_stored_numbers():
    a, b = full_kernel(2).float(), (full_kernel(2) + 1e-5 * full_kernel(3)).float()
    truth = exact_distance(a, b)
    assert abs((kernel_distance(a, b) - truth) / truth) < 1e-9
    assert kernel_distance(a, b.double()) == pytest.approx(float(truth), rel=1e-9)


def test_distance_does_not_depend_on_strides_container_order_or_scale():
    a, b = full_kernel(4), full_kernel(5)
    expected = kernel_distance(a, b)
    shuffle = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    assert kernel_distance(a.contiguous(), b) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a.numpy(), b.numpy()) == expected
    assert kernel_distance(b, a) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(3 * a, 1e-20 * b) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a[shuffle][:, shuffle], b[shuffle][:, shuffle]) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a, a.clone()) == 0.0


def test_numpy_arrays_of_every_layout_are_taken_without_a_warning(recwarn):
    a, b = full_kernel(11).numpy(), full_kernel(12).numpy()
    expected = kernel_distance(a, b)
    frozen = a.copy()
    frozen.flags.writeable = False
    assert kernel_distance(frozen, b) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a.astype(">f8"), b) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a[::-1], b[::-1]) == pytest.approx(expected, rel=1e-12)
    assert not recwarn.list
    with pytest.raises(InputError, match=r"longdouble|float128"):
        kernel_distance(a.astype(np.longdouble), b)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 3, 3)])
def test_distance_takes_every_output_and_cross_kernels(shape):
    generator = torch.Generator().manual_seed(6)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    assert kernel_distance(a, b) == pytest.approx(1 - float(cosine), rel=1e-12)


def test_velocity_and_its_units():
    a, b = full_kernel(7), full_kernel(8)
    distance = kernel_distance(a, b)
    assert kernel_velocity(a, b, 20) == pytest.approx(distance / 20)
    assert kernel_velocity(a, b, 20, steps_per_epoch=100) == pytest.approx(distance * 5)
    assert kernel_velocity(a, b, 20, learning_rate=0.1) == pytest.approx(distance / 2)


def rotated(angles_degrees: list[float]) -> np.ndarray:
    """S between kernels that turn in a plane."""
    angles = np.radians(angles_degrees)
    return 1 - np.cos(angles[:, None] - angles[None, :])


def test_half_angle_is_the_largest_angle_in_the_window():
    steps = [0, 10, 20, 30, 40]
    distances = rotated([0, 30, 20, 25, 25])
    half_angles = cone_half_angle(distances, steps, window=20)
    np.testing.assert_allclose(half_angles[:3], [30, 10, 5], atol=1e-6)


def test_half_angle_is_blank_where_the_window_passes_the_end_or_holds_nothing():
    steps = [0, 10, 20, 30, 100]
    half_angles = cone_half_angle(rotated([0, 1, 2, 3, 4]), steps, window=20)
    assert not np.isnan(half_angles[:2]).any()
    assert np.isnan(half_angles[3])  # no probe step in (30, 50]
    assert np.isnan(half_angles[4])  # 120 > 100
    assert np.isnan(cone_half_angle(rotated([0, 1]), [0, 5], window=6)).all()


def test_half_angle_is_exact_for_tiny_distances():
    assert angle_degrees(2e-20) == pytest.approx(math.degrees(2e-10), rel=1e-12)
    np.testing.assert_allclose(angle_degrees([0.0, 1.0, 2.0]), [0, 90, 180])
    assert math.isnan(angle_degrees(math.nan))


def test_bad_arguments_are_refused_with_the_reason():
    a = full_kernel(9)
    for first, second, words in [
        (a, a[:2], "one shape"),
        (a, [1.0], "list"),
        (a.int(), a, "int32"),
        (torch.zeros(2, 2), torch.ones(2, 2), "zero"),
        (torch.full((2, 2), math.nan), torch.ones(2, 2), "NaN"),
        (torch.ones(2), torch.ones(2), "shape"),
    ]:
        with pytest.raises(InputError, match=words):
            kernel_distance(first, second)
    with pytest.raises(InputError, match="dt"):
        kernel_velocity(a, a, 0)
    with pytest.raises(InputError, match="increase"):
        cone_half_angle(rotated([0, 1]), [5, 5], 2)
    with pytest.raises(InputError, match="window"):
        cone_half_angle(rotated([0, 1]), [5, 6], 0)
    with pytest.raises(InputError, match="expected"):
        cone_half_angle(rotated([0, 1]), [5, 6, 7], 1)
    with pytest.raises(InputError, match=r"\[0, 2\]"):
        cone_half_angle(rotated([0, 1]) - 0.1, [5, 6], 1)


def test_matrix_form_is_sample_major_free_and_undone():
    kernel = full_kernel(10)
    matrix = as_matrix(kernel)
    assert matrix.data_ptr() == kernel.data_ptr()
    assert matrix[2 * 3 + 1, 3 * 3 + 2] == kernel[2, 3, 1, 2]
    assert torch.equal(from_matrix(matrix, 3), kernel)
    assert from_matrix(matrix, 3).data_ptr() == kernel.data_ptr()
    contiguous = kernel.contiguous()
    assert torch.equal(as_matrix(contiguous), matrix)
    array = kernel.numpy()
    assert np.shares_memory(as_matrix(array), array)
    np.testing.assert_array_equal(from_matrix(as_matrix(array), 3), array)
    assert as_matrix(matrix) is matrix
    for bad in (torch.ones(2, 3, 4), torch.ones(2, 2, 3, 4)):
        with pytest.raises(InputError, match="matrix form"):
            as_matrix(bad)
    with pytest.raises(InputError, match="outputs"):
        from_matrix(matrix, 5)
