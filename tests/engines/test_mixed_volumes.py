"""Volumes of several kinds in one folder: batches are of one kind, and every slice is trained on."""

import pytest
import tiny_direct
from test_bad_inputs import KSPACE, write

from direct_deepen.data.fastmri_file import ismrmrd_header

OF_24_COLUMNS = "<y>24</y>".join(ismrmrd_header(2, 32, 32).rsplit("<y>32</y>", 1))
"""A header whose images have fewer columns than k-space."""

KINDS = {
    "width": lambda path: write(path, KSPACE[..., 2:30], header=None),
    "coils": lambda path: write(path, KSPACE[:, :2]),
    "header": lambda path: write(path, header=None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_of_two_kinds_are_trained_on_and_predicted(tmp_path, kind, updates):
    data = tmp_path / "data"
    write(data / "a.h5")
    KINDS[kind](data / "b.h5")
    config = tiny_direct.configuration(batch_size=2, iterations=6)
    config = tiny_direct.with_transforms(config, {"cropping.crop": "reconstruction_size", "augmentation.pad": None})
    run = tiny_direct.direct_train(tmp_path / "runs", tiny_direct.recorded(config), data)
    seen = [sorted({name for name, _ in update.problem.names}) for update in updates]
    assert all(len(names) == 1 for names in seen)
    assert {names[0] for names in seen} == {"data/a.h5", "data/b.h5"}
    output = tiny_direct.direct_predict(tmp_path / "out", config, data, run / "model_5.pt")
    assert {path.name for path in output.glob("?.h5")} == {"a.h5", "b.h5"}
