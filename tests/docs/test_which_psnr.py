"""Every page of a project that has figures in decibels says which PSNR they are, in the same words."""

import pytest
from documents import ROOT

DEFINITION = "[definition](../../docs/guarantees.md#which-psnr)"
KINDS = (
    "PSNR is of magnitudes against the coil-combined fully sampled image, by the maximum of the slice",
    "PSNR is DIRECT's `fastmri_psnr`, by the maximum of the volume",
)
PAGES = [
    page
    for page in sorted((ROOT / "projects").glob("*/README.md"))
    if " dB" in page.read_text() or "(dB)" in page.read_text()
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_page_with_figures_in_decibels_says_once_which_they_are(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert sum(text.count(f"{kind} ({DEFINITION})") for kind in KINDS) == 1
