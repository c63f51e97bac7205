"""The energies that come with the package: what loads, what it says of itself, and that it reconstructs."""

import numpy as np
import pytest
import torch
import yaml
from direct.common.subsample import build_masking_function

from direct_deepen import (
    QuadraticEnergy,
    align_phase,
    at_noise,
    available_pretrained,
    intensity_scale,
    load_pretrained,
    mm_map,
    pretrained_provenance,
    sense,
)
from direct_deepen.data.phantom import brain_volume
from direct_deepen.evaluation.metrics import quality
from direct_deepen.physics import SenseOperator
from direct_deepen.priors import NoiseConditionalEnergy, pretrained
from direct_deepen.priors.pretrained import save_pretrained

MEGABYTE = 10**6


def test_there_is_at_least_one_and_each_loads_in_evaluation_mode():
    assert len(available_pretrained()) >= 1
    for name in available_pretrained():
        energy = load_pretrained(name)
        assert not energy.training
        assert all(parameter.dtype == torch.float32 for parameter in energy.parameters())
    first, default = (load_pretrained(name).state_dict() for name in (available_pretrained()[0], None))
    assert all(torch.equal(first[key], default[key]) for key in default)


def test_provenance_says_what_it_was_trained_on_and_how():
    for name in available_pretrained():
        provenance = pretrained_provenance(name)
        assert {"energy", "data", "mask", "configuration", "seed", "torch_version"} <= set(provenance)
        # An energy of one noise says which; one of all noise levels has none of its own.
        assert ("noise_std" in provenance) == (provenance["energy"] == "QuadraticEnergy")
        section = yaml.safe_load(provenance["configuration"])["model"]
        assert section["model_name"].endswith(f".{provenance['energy']}")
        assert provenance.get("intensity_scale", "field_of_view") == section.get("intensity_scale", "field_of_view")


def test_an_unknown_name_is_refused_with_the_known_ones(one_line_error):
    with one_line_error("name is 'none'", available_pretrained()[0]):
        load_pretrained("none")


def test_what_is_saved_is_what_loads(tmp_path, monkeypatch, one_line_error):
    energy = QuadraticEnergy(hidden_channels=3, num_layers=2, weight=0.5)
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "small.pt"
    save_pretrained(path, energy, {"hidden_channels": 3, "num_layers": 2, "weight": 0.5}, {"seed": 0})
    monkeypatch.setattr(pretrained.resources, "files", lambda _: tmp_path)
    loaded = load_pretrained("small")
    image = torch.randn(2, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(image), energy(image))
    assert pretrained_provenance("small") == {"energy": "QuadraticEnergy", "seed": 0}
    path.write_bytes(b"damaged")
    with one_line_error("small.pt: damaged weights", "reinstall"):
        load_pretrained("small")


def test_a_prior_of_all_noise_levels_comes_back_as_it_was(tmp_path, monkeypatch):
    prior = NoiseConditionalEnergy(channels=(4, 6), num_blocks=1, smallest_noise_std=0.05)
    arguments = {"channels": [4, 6], "num_blocks": 1, "smallest_noise_std": 0.05}
    (tmp_path / "weights").mkdir()
    save_pretrained(tmp_path / "weights" / "levels.pt", prior, arguments, {})
    monkeypatch.setattr(pretrained.resources, "files", lambda _: tmp_path)
    image = torch.randn(2, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(at_noise(load_pretrained("levels"), 0.01)(image), at_noise(prior, 0.01)(image))


def test_weights_are_small_enough_to_come_along():
    folder = pretrained.resources.files("direct_deepen.priors") / "weights"
    assert sum(entry.stat().st_size for entry in folder.iterdir()) < 5 * MEGABYTE


@pytest.mark.parametrize(("size", "coils"), [(64, 8), (96, 4)])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_user_reconstructs_far_better_than_sense_at_once(size, coils, aligned):
    # Simulated coil maps, which leave the image its phase, where training had DIRECT's estimates.
    volume = brain_volume(np.random.default_rng([9, size]), num_slices=1, size=size, num_coils=coils)
    build = build_masking_function("Gaussian2D", accelerations=[4.0], center_fractions=[0.02])
    mask = build(shape=(1, size, size, 1), seed=0, return_acs=False).reshape(1, 1, size, size) != 0
    masked_kspace = torch.from_numpy(volume.kspace) * mask
    A = SenseOperator(torch.from_numpy(volume.sensitivity_map)[None], mask)
    A = align_phase(A, masked_kspace) if aligned else A
    scale = intensity_scale(A, masked_kspace)[:, None, None]
    b = masked_kspace / scale[:, None]
    reference = torch.from_numpy(volume.image)

    def psnr(image: torch.Tensor) -> float:
        return quality((image * scale)[0], reference[0]).psnr

    best_sense = max(psnr(sense(A, b, regularization=weight)) for weight in (1e-3, 3e-3, 1e-2, 3e-2))
    # Measured: 7.6 to 10.8 dB.
    assert psnr(mm_map(A, b, load_pretrained("brain_phantom_2d4x"), max_iterations=60).image) >= best_sense + 6.0
