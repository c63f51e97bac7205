"""The page of DIRECT's options has all of them, and refuses those that it says it refuses with these lines."""

import re
from ast import literal_eval
from dataclasses import MISSING, fields, is_dataclass

import direct.environment  # noqa: F401 - or DIRECT's modules import one another in a circle
import pytest
from direct.common import subsample_config
from direct.config import defaults
from direct.data import datasets_config
from documents import ROOT
from omegaconf import OmegaConf

from direct_deepen.data.direct_options import require_served
from direct_deepen.errors import DeepenError

PAGE = (ROOT / "docs" / "direct.md").read_text(encoding="utf-8")
ROWS = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in PAGE.splitlines() if line.startswith("| `")]
DOCUMENTED = [key for row in ROWS for key in row if not key.startswith("--")]
DATASETS = [
    kind for kind in vars(datasets_config).values()
    if isinstance(kind, type) and issubclass(kind, datasets_config.DatasetConfig)
]  # fmt: skip


class Walk:
    """The keys of a dataclass, those of the dataclasses in it by dots, and all classes that were come by."""

    def __init__(self):
        self.keys, self.classes = set(), set()

    def add(self, kind, prefix="", inner=True):
        self.classes.add(kind)
        for entry in fields(kind):
            value = entry.default if entry.default_factory is MISSING else entry.default_factory()
            if is_dataclass(value) and inner:
                self.add(type(value), f"{prefix}{entry.name}.")
            else:
                self.keys.add(prefix + entry.name)
        return self


def direct_options():
    walk = Walk().add(defaults.DefaultConfig).add(defaults.ModelConfig, "model.")
    walk.add(defaults.TrainingConfig, "training.").add(defaults.ValidationConfig, "validation.")
    walk.add(defaults.FunctionConfig, "training.loss.losses[].").add(
        defaults.InferenceConfig, "inference.", inner=False
    )
    walk.add(datasets_config.TransformsConfig, "transforms.")
    for kind in DATASETS:
        walk.add(kind, inner=False)
    return walk


def test_the_page_has_every_option_of_direct_once_and_no_other():
    assert sorted(DOCUMENTED) == sorted(direct_options().keys)


def test_every_class_of_direct_with_options_is_walked():
    modules = (defaults, datasets_config, subsample_config)
    known = {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
    }
    assert known == direct_options().classes


LINES = re.findall(r"`((?:training|validation|inference|physics)[^` ]* is [^`]+; allowed[^`]*)`", PAGE)


def test_the_page_has_the_lines_of_many_options():
    assert len(LINES) > 15


@pytest.mark.parametrize("line", LINES)
def test_an_option_is_refused_with_the_line_that_the_page_has(line):
    key, value = re.match(r"(\S+) is (.+?); allowed", line).groups()
    data = {"name": "FastMRI", "transforms": {"masking": {"name": "Gaussian2D"}}}
    content = OmegaConf.create(
        {
            "additional_models": {},
            "physics": defaults.PhysicsConfig,
            "training": {"datasets": [data]},
            "validation": {"datasets": [data], "crop": None},
            "inference": None,
        }
    )
    value = literal_eval(value)
    if key == "training.loss.losses":
        value = [{"function": name} for name in value]
    OmegaConf.update(content, key.replace("[0]", ".0"), value, force_add=True)
    with pytest.raises(DeepenError) as error:
        require_served(content)
    assert str(error.value) == line
