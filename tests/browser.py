"""A headless browser that opens a page, does what a script says, and tells what it saw."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

_REPORT = """<pre id="report"></pre><script>
addEventListener("load", async () => {
  const find = (selector) => document.querySelector(selector);
  const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const images = () => [...document.querySelectorAll(".panel img")];
  const loaded = () => Promise.all(images().map((image) => image.decode()));
  const seen = {};
%s
  document.querySelector("#report").textContent = JSON.stringify(seen);
});
</script></body>"""


@dataclass(frozen=True)
class Visit:
    """What is known of a page that was opened.

    Attributes
    ----------
    seen
        What the script noted.
    console
        Lines of the browser's console: errors of scripts, what the policy of the page forbids, and all else.
    """

    seen: dict[str, Any]
    console: list[str]


def find_browser() -> str:
    """Return the path of a browser, or skip the test where there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs a browser: neither chromium nor google-chrome is installed")
    return found


def visit(page: Path, script: str = "") -> Visit:
    """Open a page and run a script at its end.

    The script is the body of an asynchronous function. It may call ``find(selector)``, ``key(name)``, ``images()``,
    those of the panels, and ``loaded()``, and it notes what it sees in ``seen``.
    """
    copy = page.with_name(f"{page.stem}.visited.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", _REPORT % script), encoding="utf-8")
    command = [
        find_browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr", "--window-size=1400,900", "--virtual-time-budget=10000", "--dump-dom",
        copy.as_uri(),
    ]  # fmt: skip
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    report = re.search(r'<pre id="report">(.*?)</pre>', finished.stdout, flags=re.DOTALL)
    assert report is not None, finished.stderr
    console = [line for line in finished.stderr.splitlines() if ":CONSOLE" in line]
    # A script that failed has noted nothing; then the console has its error.
    return Visit(json.loads(unescape(report[1]) or "{}"), console)
