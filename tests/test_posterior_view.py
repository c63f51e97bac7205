"""Views of a posterior file: what is shown, on which scale, and what its statistics say."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from direct.data.transforms import center_crop
from matplotlib import image as matplotlib_image

from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.html_page import view_page
from direct_deepen.pages.posterior_view import posterior_view
from direct_deepen.pages.view import plot_view
from direct_deepen.posterior.nifti import write_nifti
from direct_deepen.posterior.posterior_file import PosteriorVolume

SLICES, ROWS, COLUMNS = 3, 12, 10
UNIT = 1e-4
"""The intensities of fastMRI's files are of this size."""


def posterior_volume(*left_out):
    generator = np.random.default_rng(0)
    shape = (SLICES, ROWS, COLUMNS)

    def draw(*axes):
        return UNIT * (generator.standard_normal(axes) + 1j * generator.standard_normal(axes))

    arrays = {
        "map": draw(*shape),
        "mean": draw(*shape),
        "std": 0.1 * np.abs(draw(*shape)),
        "quantiles": np.sort(np.abs(draw(SLICES, 3, ROWS, COLUMNS)), axis=1),
        "samples": draw(SLICES, 2, ROWS, COLUMNS),
        "split_r_hat": generator.uniform(1, 1.2, shape),
        "effective_sample_size": generator.uniform(10, 30, shape),
        "scale": np.array([1e-4, 2e-4, 3e-4]),
        "cost": np.array([0.5, 0.25, 0.125]),
        "converged": np.array([True, True, False]),
        "posterior_seconds": np.array([1.5, 2.5, 3.5]),
    }
    attributes = {
        "noise_std": np.float64(0.01),
        "num_samples": np.int64(8),
        "num_steps": np.int64(100),
        "seed": np.int64(3626764238),
        "quantile_probabilities": np.array([0.05, 0.5, 0.95]),
        "configuration": "noise_std: 0.01\n",
    }
    kept = {name: array for name, array in arrays.items() if name not in left_out}
    return PosteriorVolume(Path("folder/brain.7.posterior.h5"), kept, attributes)


@pytest.fixture
def references():
    return np.abs(posterior_volume().arrays["mean"]) + 0.2 * UNIT


# ---- Panels


def test_everything_a_file_holds_is_shown(references):
    volume = posterior_volume()
    shown = {panel.title: panel for panel in posterior_view(volume, references).panels}
    expected = {
        "reference": references,
        "MAP": np.abs(volume.arrays["map"]),
        "posterior mean": np.abs(volume.arrays["mean"]),
        "|error| of mean": np.full((SLICES, ROWS, COLUMNS), 0.2 * UNIT),
        "standard deviation": volume.arrays["std"],
        "5 % quantile": volume.arrays["quantiles"][:, 0],
        "95 % quantile": volume.arrays["quantiles"][:, 2],
        "sample 1": np.abs(volume.arrays["samples"][:, 0]),
        "sample 2": np.abs(volume.arrays["samples"][:, 1]),
    }
    assert list(shown) == list(expected)
    for title, images in expected.items():
        np.testing.assert_allclose(shown[title].images, images, rtol=1e-12, err_msg=title)


def test_magnitudes_share_one_scale_and_error_and_deviation_another(references):
    shown = posterior_view(posterior_volume(), references).panels
    uncertain = [panel for panel in shown if panel.title in ("|error| of mean", "standard deviation")]
    certain = [panel for panel in shown if panel not in uncertain]
    assert {panel.colours for panel in certain} == {"gray"}
    assert {panel.colours for panel in uncertain} == {"inferno"}
    (white,) = {panel.limit for panel in certain}
    (limit,) = {panel.limit for panel in uncertain}
    # All but the outliers lie below.
    assert np.mean(references <= white) >= 0.99
    assert white <= references.max()
    both = np.stack([panel.images for panel in uncertain])
    assert 0.99 <= np.mean(both <= limit) < 1.0


def test_what_a_file_lacks_is_left_out():
    old = posterior_volume("quantiles", "samples")
    assert [panel.title for panel in posterior_view(old).panels] == ["MAP", "posterior mean", "standard deviation"]
    map_only = posterior_volume("quantiles", "samples", "mean", "std", "split_r_hat", "effective_sample_size")
    assert [panel.title for panel in posterior_view(map_only).panels] == ["MAP"]
    assert not {name for values in posterior_view(map_only).statistics for name in values if "R̂" in name}


def test_a_file_without_an_image_and_references_of_another_shape_are_refused(references, one_line_error):
    with one_line_error("brain.7.posterior.h5", "map, mean, image"):
        posterior_view(posterior_volume("map", "mean"))
    with one_line_error("brain.7.posterior.h5", "(3, 12, 10)", "(2, 12, 10)"):
        posterior_view(posterior_volume(), references[:2])


def test_images_that_are_zero_everywhere_can_be_shown():
    volume = posterior_volume("quantiles", "samples")
    volume.arrays["std"][:] = 0
    assert posterior_view(volume).panels[-1].limit == 1.0
    view_page(posterior_view(volume))


# ---- Statistics


def test_statistics_of_a_slice_are_those_of_the_file_and_its_distance_from_the_reference(references):
    volume = posterior_volume()
    found = posterior_view(volume, references).statistics
    assert [values["cost C"] for values in found] == ["0.5", "0.25", "0.125"]
    assert [values["MAP converged"] for values in found] == ["yes", "yes", "no"]
    for number, values in enumerate(found):
        assert float(values["R̂, median"]) == pytest.approx(np.median(volume.arrays["split_r_hat"][number]), rel=1e-3)
        images = [torch.from_numpy(array[number]) for array in (volume.arrays["map"], references)]
        assert values["PSNR (slice maximum), MAP"] == f"{quality(*images).psnr:.2f} dB"
    assert not {name for values in posterior_view(volume).statistics for name in values if "PSNR" in name}


def test_statistics_of_the_file_are_its_attributes():
    expected = {"noise level ε": "0.01", "chains": "8", "steps of a chain": "100", "seed": "3626764238"}
    assert posterior_view(posterior_volume()).about == expected | {"quantiles": "5 %, 50 %, 95 %"}


# ---- The page and the picture


def test_the_page_names_the_volume_and_has_its_configuration(references):
    content = view_page(posterior_view(posterior_volume(), references))
    assert "<h1>brain.7.h5</h1>" in content
    assert "noise_std: 0.01\n</pre>" in content
    assert "slice 1 of 3" in content


def test_the_picture_shows_one_slice_of_every_panel(tmp_path, references):
    view = posterior_view(posterior_volume(), references)
    figure = plot_view(view, [1], tmp_path / "slice.png")
    (part,) = figure.subfigs
    drawn = [axes.images[0] for axes in part.axes if axes.images]
    assert len(drawn) == len(view.panels)
    for image, panel in zip(drawn, view.panels, strict=True):
        np.testing.assert_allclose(image.get_array(), panel.images[1])
        assert image.get_clim() == (0.0, panel.limit)
    assert len(np.unique(matplotlib_image.imread(tmp_path / "slice.png").reshape(-1, 4), axis=0)) > 100


# ---- NIfTI


def test_nifti_images_are_magnitudes_by_column_row_and_slice_and_say_that_their_place_is_unknown(tmp_path):
    volume = posterior_volume()
    written = write_nifti(volume, tmp_path / "out" / "brain.nii.gz")
    assert [path.name for path in written] == ["brain_map.nii.gz", "brain_mean.nii.gz", "brain_std.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written)
    for path, kind in zip(written, ("map", "mean", "std"), strict=True):
        image = nibabel.load(path)
        assert image.shape == (COLUMNS, ROWS, SLICES)
        # Single precision.
        np.testing.assert_allclose(image.get_fdata().T, np.abs(volume.arrays[kind]), rtol=1e-6)
        assert (image.header["qform_code"], image.header["sform_code"]) == (0, 0)
        assert image.header.get_zooms() == (1, 1, 1)


def test_nifti_images_have_the_size_and_the_voxels_of_the_header(tmp_path):
    # As of fastMRI's knees, which have more rows than are meant.
    volume = replace(posterior_volume(), attributes={"reconstruction_size": [2.0, 4.0], "voxel_size": [0.4, 0.5, 4.5]})
    (path, *_) = write_nifti(volume, tmp_path / "knee.nii")
    image = nibabel.load(path)
    assert image.shape == (4, 2, SLICES)
    assert image.header.get_zooms() == pytest.approx((0.5, 0.4, 4.5))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (image.header["qform_code"], image.header["sform_code"]) == (0, 0)
    assert b"orientation unknown" in image.header["descrip"].tobytes()
    expected = center_crop(torch.from_numpy(np.abs(volume.arrays["map"])), (2, 4)).numpy()
    np.testing.assert_allclose(image.get_fdata().T, expected, rtol=1e-6)


def test_another_ending_is_refused(tmp_path, one_line_error):
    with one_line_error("brain.mgz", ".nii.gz"):
        write_nifti(posterior_volume(), tmp_path / "brain.mgz")
    assert not list(tmp_path.iterdir())
