"""The slice of a head in the demo: what comes with matplotlib, and the weights of the package as a checkpoint."""

import re

import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen import DeepenError
from direct_deepen.data.image_files import read_series
from direct_deepen.engines.trained import load_prior, pretrained_for
from projects.demo import head

SCRIPT = (tiny_direct.REPOSITORY / "projects" / "demo" / "run.sh").read_text()


def test_slice_and_weights_are_what_the_commands_of_the_demo_read(tmp_path):
    (named,) = re.findall(r"^PRETRAINED=(\S+)$", SCRIPT, flags=re.MULTILINE)
    configuration = tiny_direct.REPOSITORY / named
    head.prepare(configuration, tmp_path)
    (series,) = read_series(tmp_path / "images")
    (image,) = series.images
    assert (image.shape, np.load(series.source).dtype) == ((256, 256), np.uint16)
    # A head, upright: a neck below, air on the other three sides.
    inside = image > 0.1 * image.max()
    assert 0.2 < inside.mean() < 0.5
    assert inside[-16:].any()
    assert not np.concatenate([inside[0], inside[:, 0], inside[:, -1]]).any()
    weights = load_prior(tmp_path / "weights.pt", configuration).state_dict()
    for name, tensor in pretrained_for(configuration).state_dict().items():
        assert torch.equal(weights[f"averaged.average.{name}"], tensor)


def test_another_slice_is_refused_in_one_line():
    with pytest.raises(DeepenError, match=r"^s1045\.ima\.gz: 8192 bytes; allowed: 131072, 256×256 of two$"):
        head.slice_of(bytes(2 * 64 * 64))
