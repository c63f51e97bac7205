"""Laws from the file on: what units, order and phases of coils do to DIRECT's coil maps, the problem and the MAP image.

The laws of the solvers alone, with maps that are given, are in ``tests/test_properties.py``.
"""

from collections.abc import Callable
from contextlib import chdir
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import tiny_direct
import torch
from hypothesis import HealthCheck, Phase, given, settings

from direct_deepen import mm_map
from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.priors import QuadraticEnergy

examples = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=5,
    phases=[Phase.generate],  # to shrink an example that fails would take minutes
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**10)
COILS = st.integers(2, 5)


@pytest.fixture(scope="module", params=[("direct", None), ("direct", "masked_kspace"), ("espirit", None)], ids=str)
def case_of(request, tmp_path_factory) -> Callable[[np.ndarray], Case]:
    """``case_of(kspace)``: what becomes of a file of one slice, with maps of either kind, and DIRECT's own scaling.

    The mask follows from the path and is always the same; its centre is wide enough for ESPIRiT.
    """
    coil_maps, scaling_key = request.param
    folder = tmp_path_factory.mktemp("equivariance")
    (folder / "data").mkdir()
    changes = {"masking.accelerations": [3.0], "masking.center_fractions": [0.3]}
    changes["normalization.scaling_key"] = scaling_key
    config = tiny_direct.with_transforms(tiny_direct.configuration(), changes)
    tiny_direct.write_configuration(folder / "a.yaml", config)

    def read(kspace: np.ndarray) -> Case:
        write_fastmri_volume(folder / "data" / "a.h5", kspace.astype(np.complex64))
        with chdir(folder):
            (case,) = cases(inference_dataset(Path("a.yaml"), Path("data")), coil_maps=coil_maps)
        return case

    return read


@cache
def energy() -> QuadraticEnergy:
    """An untrained energy, whose weights are three times those it begins with: strong enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        result = QuadraticEnergy(hidden_channels=2, num_layers=2, activation="elu")
    for parameter in result.parameters():
        parameter.detach().mul_(3.0)
    return result


def map_image(case: Case) -> torch.Tensor:
    """In the units of the file."""
    result = mm_map(case.problem.A, case.problem.masked_kspace, energy(), max_iterations=10)
    return case.problem.to_data_units(result.image)


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def assert_same(found: Case, expected: Case, *, unit: float) -> None:
    """Scale and images are the same but for the unit, and so is the reference in scaled intensities.

    DIRECT and this package compute in single precision, 6·10⁻⁸. Scale and reference are sums over thousands of numbers.
    Ten iterations of MAP, of a cost that is not convex, and coil maps where hardly any signal is, which DIRECT and
    ESPIRiT divide by, make more of it.
    """
    assert torch.equal(found.problem.A.sampling_mask, expected.problem.A.sampling_mask)
    torch.testing.assert_close(found.problem.scale / unit, expected.problem.scale, rtol=2e-6, atol=0)
    assert_close(found.reference, expected.reference, 1e-5)
    assert_close(map_image(found) / unit, map_image(expected), 1e-3)


@examples
@given(
    seed=SEEDS,
    exponent=st.floats(-9, 9),
    order=COILS.flatmap(lambda coils: st.permutations(range(coils))),
    angle=st.floats(-np.pi, np.pi),
)
def test_an_image_carries_the_unit_of_its_file_and_depends_neither_on_order_nor_on_phases_of_coils(
    case_of, seed, exponent, order, angle
):
    kspace, unit = tiny_direct.draw_kspace(seed, slices=1, coils=len(order)), 10**exponent
    phases = np.exp(1j * angle * np.arange(1, len(order) + 1) ** 2)[:, None, None]
    found, expected = case_of(unit * phases * kspace[:, order]), case_of(kspace)
    turned = torch.from_numpy(phases).to(torch.complex64)
    assert_close(found.problem.A.sensitivity_map, turned * expected.problem.A.sensitivity_map[:, order], 2e-4)
    assert_close(found.problem.masked_kspace, turned * expected.problem.masked_kspace[:, order], 1e-5)
    assert_same(found, expected, unit=unit)
