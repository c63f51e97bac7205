"""What the tests of the mathematical core share: random tensors, small operators and the registry of energies."""

import errno
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from direct_deepen.errors import DeepenError
from direct_deepen.physics import SenseOperator, complex_normal, normalize_sensitivity_map
from direct_deepen.physics.fourier import fft2
from direct_deepen.priors import ConvEnergy, Energy, QuadraticEnergy

# The images of these tests are tiny: more threads only wait for one another, and the order of sums, so the last digit
# of a result, would depend on the number of cores.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Leave what is imported out of the search for garbage, which would be a tenth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def pytest_unconfigure() -> None:
    """Let the process end as it would have."""
    gc.unfreeze()


# ---- Random tensors and operators


def draw_complex(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return complex_normal(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="session")
def draw() -> Callable[..., torch.Tensor]:
    """``draw(*shape, seed, dtype)``: complex Gaussian noise, double by default."""
    return draw_complex


@pytest.fixture(scope="session")
def random_operator() -> Callable[..., SenseOperator]:
    """A SENSE operator with random coil maps and a random mask, different for every image of the batch.

    ``random_operator(batch, coils, *size, fourier_dimensions=2)``: of three sizes, a series, or a volume with three.
    """

    def build(
        batch: int = 2,
        coils: int = 3,
        *size: int,
        seed: int = 0,
        dtype: torch.dtype = torch.complex128,
        normalized: bool = True,
        sampled: float = 0.5,
        fourier_dimensions: int = 2,
    ) -> SenseOperator:
        size = size or (8, 8)
        maps = draw_complex(batch, coils, *size, seed=seed, dtype=dtype)
        generator = torch.Generator().manual_seed(seed + 1)
        mask = torch.rand(batch, 1, *size, generator=generator) < sampled
        mask[:, :, *(length // 2 for length in size)] = True
        axes = range(-fourier_dimensions, 0)
        return SenseOperator(normalize_sensitivity_map(maps) if normalized else maps, mask, fourier_axes=axes)

    return build


class PlainOperator:
    """An operator reduced to the three methods that the core asks for: no leading dimensions, no select, no bound."""

    def __init__(self, A: SenseOperator) -> None:
        self._A = A

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape == self._A.sampling_mask[:, 0].shape
        return self._A.forward(image)

    def adjoint(self, data: torch.Tensor) -> torch.Tensor:
        assert data.ndim == self._A.sampling_mask.ndim
        return self._A.adjoint(data)

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape == self._A.sampling_mask[:, 0].shape
        return self._A.normal(image)


@pytest.fixture(scope="session")
def plain_operator() -> type[PlainOperator]:
    return PlainOperator


class InpaintingOperator:
    """Ax = mx with m of zeros and ones: the simplest user-defined operator. It returns its argument where m = 1."""

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if bool((self.mask == 1).all()) else self.mask * image

    adjoint = forward
    normal = forward


class BatchedInpaintingOperator(InpaintingOperator):
    """The same, for extra leading dimensions and parts of the batch."""

    takes_leading_dimensions = True

    def select(self, index: torch.Tensor) -> "BatchedInpaintingOperator":
        return BatchedInpaintingOperator(self.mask[index])


@pytest.fixture(params=[InpaintingOperator, BatchedInpaintingOperator], ids=["plain", "batched"])
def inpainting_operator(request: pytest.FixtureRequest) -> type[InpaintingOperator]:
    return request.param


@pytest.fixture(scope="session")
def dense_normal() -> Callable[[SenseOperator], torch.Tensor]:
    """AᴴA of an operator for a batch of one image, as a matrix over its pixels."""

    def build(A: SenseOperator) -> torch.Tensor:
        size = A.sampling_mask.shape[2:]
        basis = torch.eye(size.numel(), dtype=A.sensitivity_map.dtype).reshape(-1, 1, *size)
        return A.normal(basis).reshape(size.numel(), -1).T

    return build


# ---- Errors


@contextmanager
def expect_one_line(*words: str, error: type[DeepenError] = DeepenError) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture(scope="session")
def one_line_error() -> Callable[..., AbstractContextManager[None]]:
    """``with one_line_error("argument", ...):`` expects a :class:`DeepenError` of one line that has all these words."""
    return expect_one_line


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The slices that ESPIRiT's maps are computed of."""
    from direct_deepen.data import coil_maps

    record: list[torch.Tensor] = []
    compute = coil_maps.espirit_maps

    def counted(kspace: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        record.append(kspace)
        return compute(kspace, mask)

    monkeypatch.setattr(coil_maps, "espirit_maps", counted)
    return record


# ---- Disks


def _fill_up(self: Path, content: bytes) -> int:
    with self.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """``with full_disk():`` the disk is full before a file is whole."""

    @contextmanager
    def fill() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", _fill_up)
            yield

    return fill


# ---- Global random state


@pytest.fixture
def global_generators_untouched() -> Iterator[None]:
    """Fail a test that draws from, or seeds, a global generator of PyTorch or NumPy."""
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    yield
    after_numpy = np.random.get_state()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before_torch)
    assert np.array_equal(after_numpy[1], before_numpy[1])
    assert after_numpy[2:] == before_numpy[2:]


# ---- Energies


class GaussianEnergy:
    """A user's analytic energy, E(x) = (ε²/4) xᴴQx: with temperature ε²/2 the Gaussian prior of precision Q.

    ``images`` holds the size of every batch that was evaluated.
    """

    def __init__(self, precision: torch.Tensor, noise_std: float) -> None:
        self.hessian = 0.5 * noise_std**2 * precision
        self.batches: list[int] = []

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self._evaluate(image)[0]

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches.append(image.shape[0])
        return self._evaluate(image)

    def _evaluate(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = image.flatten(1)
        gradient = pixels @ self.hessian.to(pixels.dtype).T
        return 0.5 * (pixels.conj() * gradient).real.sum(dim=1), gradient.unflatten(1, image.shape[1:])


@pytest.fixture(scope="session")
def gaussian_energy() -> type[GaussianEnergy]:
    return GaussianEnergy


@dataclass(frozen=True)
class EnergyCase:
    """One kind of energy, every one of which has to pass the laws."""

    energy_type: type[Energy]
    arguments: dict[str, str]
    dimensions: int = 2

    @property
    def name(self) -> str:
        return "-".join([self.energy_type.__name__, *self.arguments.values(), f"{self.dimensions}D"])

    @property
    def size(self) -> tuple[int, ...]:
        """A small image of as many dimensions, every one of another length."""
        return {2: (5, 7), 3: (3, 5, 4)}[self.dimensions]

    @property
    def smooth(self) -> bool:
        """Whether E has a continuous gradient."""
        return self.arguments["activation"] != "relu" and self.arguments.get("top") != "absolute"

    def build(self, *size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Energy:
        more = {"image_size": size} if self.arguments.get("head") == "flattened" else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            energy = self.energy_type(
                hidden_channels=4, num_layers=3, dimensions=self.dimensions, **self.arguments, **more
            )
        for parameter in energy.parameters():
            # Fresh networks are nearly flat: with three times the weights the prior competes with the data.
            parameter.detach().mul_(3.0)
        return energy.to(dtype)


# Head and top know nothing of the activation: every pair of head and top, and every activation, but not their product.
ENERGY_CASES = [
    *(
        EnergyCase(ConvEnergy, {"head": head, "activation": activation, "top": top})
        for head, activation, top in [
            ("flattened", "relu", "absolute"),
            ("pooled", "relu", "smooth"),
            ("pooled", "softplus", "absolute"),
            ("flattened", "silu", "smooth"),
            ("flattened", "elu", "absolute"),
            ("pooled", "elu", "smooth"),
        ]
    ),
    *(EnergyCase(QuadraticEnergy, {"activation": activation}) for activation in ("elu", "softplus")),
    EnergyCase(QuadraticEnergy, {"activation": "silu", "border": "periodic"}),
]
VOLUME_ENERGY_CASES = [
    EnergyCase(ConvEnergy, {"head": "pooled", "activation": "relu", "top": "absolute"}, dimensions=3),
    EnergyCase(ConvEnergy, {"head": "flattened", "activation": "silu", "top": "smooth"}, dimensions=3),
    EnergyCase(QuadraticEnergy, {"activation": "elu"}, dimensions=3),
    EnergyCase(QuadraticEnergy, {"activation": "silu", "border": "periodic"}, dimensions=3),
]
SMOOTH_ENERGY_CASES = [case for case in ENERGY_CASES if case.smooth]
ENERGY_TYPE_CASES = [
    next(case for case in ENERGY_CASES if case.energy_type is t) for t in (ConvEnergy, QuadraticEnergy)
]


@pytest.fixture(scope="session")
def registered_energies() -> list[EnergyCase]:
    """Every kind of energy there is."""
    return ENERGY_CASES


@pytest.fixture(params=ENERGY_CASES, ids=lambda case: case.name)
def energy_case(request: pytest.FixtureRequest) -> EnergyCase:
    """Every kind of energy there is, one after another."""
    return request.param


@pytest.fixture(params=ENERGY_TYPE_CASES, ids=lambda case: case.energy_type.__name__)
def energy_type_case(request: pytest.FixtureRequest) -> EnergyCase:
    """One energy of every class, for laws in which head, top and activation play no part."""
    return request.param


@pytest.fixture(params=SMOOTH_ENERGY_CASES, ids=lambda case: case.name)
def smooth_energy_case(request: pytest.FixtureRequest) -> EnergyCase:
    """Every kind of energy with a continuous gradient, one after another."""
    return request.param


@pytest.fixture(params=[*ENERGY_CASES, *VOLUME_ENERGY_CASES], ids=lambda case: case.name)
def any_energy_case(request: pytest.FixtureRequest) -> EnergyCase:
    """Every kind of energy there is, of two dimensions and of three."""
    return request.param


@pytest.fixture(params=[*ENERGY_TYPE_CASES, *VOLUME_ENERGY_CASES[:3:2]], ids=lambda case: case.name)
def any_energy_type_case(request: pytest.FixtureRequest) -> EnergyCase:
    """One energy of every class, of two dimensions and of three."""
    return request.param


@pytest.fixture(
    params=[*SMOOTH_ENERGY_CASES, *(case for case in VOLUME_ENERGY_CASES if case.smooth)], ids=lambda case: case.name
)
def any_smooth_energy_case(request: pytest.FixtureRequest) -> EnergyCase:
    """Every kind of energy with a continuous gradient, of two dimensions and of three."""
    return request.param


# ---- A phantom as it is measured


@dataclass(frozen=True)
class PhantomSlice:
    """A slice of a synthetic head of 64×64 with eight coils, without noise: all that a measurement is made of."""

    image: torch.Tensor
    """Complex (1, 64, 64)."""
    sensitivity_map: torch.Tensor
    """Complex (1, 8, 64, 64), Σ|S|² = 1."""
    noise_std: float
    """η of an ordinary measurement per real component, in the unit of the image."""
    mask: torch.Tensor
    """Boolean (1, 1, 64, 64): that of the demo, a quarter of the samples."""

    def kspace(self, noise_factor: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Fully sampled data with so many times the noise, by coil if it is a tensor (8, 1, 1)."""
        exact = fft2(self.image[:, None] * self.sensitivity_map)
        return exact + noise_factor * self.noise_std * draw_complex(*exact.shape, seed=1, dtype=exact.dtype)


@pytest.fixture(scope="session")
def phantom_slice() -> PhantomSlice:
    from direct.common.subsample import build_masking_function

    from direct_deepen.data.phantom import brain_volume

    volume = brain_volume(np.random.default_rng([3, 0]), num_slices=4, size=64, num_coils=8)
    build = build_masking_function("Gaussian2D", accelerations=[4.0], center_fractions=[0.02])
    mask = build(shape=(1, 64, 64, 1), seed=0, return_acs=False).reshape(1, 1, 64, 64) != 0
    return PhantomSlice(
        image=torch.from_numpy(volume.image[1:2]),
        sensitivity_map=torch.from_numpy(volume.sensitivity_map)[None],
        noise_std=volume.noise_std,
        mask=mask,
    )
