"""A headless browser that opens a page, does what a script says, and tells what it saw.

It is told what to do by the DevTools protocol, through two pipes: https://chromedevtools.github.io/devtools-protocol.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

_SECONDS = 60
# The browser reads from 3 and writes to 4.
_START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_SCRIPT = """(async () => {
  const find = (selector) => document.querySelector(selector);
  const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const images = () => [...document.querySelectorAll(".panel img")];
  const loaded = () => Promise.all(images().map((image) => image.decode()));
  const seen = {};
%s
  return seen;
})()"""


@dataclass(frozen=True)
class Visit:
    """What is known of a page that was opened.

    Attributes
    ----------
    seen
        What the script noted.
    console
        What stands on the browser's console: errors of scripts, what the policy of the page forbids, and all else.
    """

    seen: dict[str, Any]
    console: list[str]


def visit(page: Path, script: str = "") -> Visit:
    """Open a page, as it is, and run a script when it is loaded; skip the test where there is no browser.

    The script is the body of an asynchronous function. It may call ``find(selector)``, ``key(name)``, ``images()``,
    those of the panels, and ``loaded()``, and it notes what it sees in ``seen``.
    """
    with opened(page) as tab:
        seen = tab.run(script)
        return Visit(seen, tab.console())


@contextmanager
def opened(page: Path) -> Iterator["Tab"]:
    """Open a page and keep it open, to act as a reader does with mouse, fingers and keys."""
    with _browser() as browser:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Runtime", "Log", "Page"):
            browser.call(f"{part}.enable")
        browser.call("Page.setLifecycleEventsEnabled", enabled=True)
        loader = browser.call("Page.navigate", url=page.resolve().as_uri())["loaderId"]
        browser.wait_for("Page.lifecycleEvent", loaderId=loader, name="load")
        yield Tab(browser)


class Tab:
    """An open page. Places are pixels of the window, as (x, y)."""

    def __init__(self, browser: "_Browser") -> None:
        self._browser = browser

    def run(self, script: str) -> dict[str, Any]:
        """Run a script, as :func:`visit` does, and return what it noted."""
        expression = _SCRIPT % script
        result = self._browser.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return dict(result["result"]["value"])

    def console(self) -> list[str]:
        """What stands on the console by now."""
        return [text for event in self._browser.events if (text := _console_text(event))]

    def drag(self, *places: tuple[float, float], drop: bool = True) -> None:
        """Press the mouse at the first place, move it along all others, and let go; of one place, a click."""
        self._mouse("mouseMoved", places[0])
        self._mouse("mousePressed", places[0], button="left", clickCount=1)
        for place in places[1:]:
            self._mouse("mouseMoved", place, button="left", buttons=1)
        if drop:
            self._mouse("mouseReleased", places[-1], button="left", clickCount=1)

    def swipe(self, *places: tuple[float, float]) -> None:
        """Put a finger on the first place, move it along all others, and take it away."""
        for kind, (x, y) in zip(["touchStart"] + ["touchMove"] * (len(places) - 1), places, strict=True):
            self._browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self._browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str, text: str = "") -> None:
        """Press a key and let go of it; ``text`` is what it types."""
        self._browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, **({"text": text} if text else {}))
        self._browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def resize(self, width: int, height: int) -> None:
        """Show the page in a window of another size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._browser.call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self) -> bytes:
        """Return what is seen, PNG."""
        return base64.b64decode(self._browser.call("Page.captureScreenshot")["data"])

    def _mouse(self, kind: str, place: tuple[float, float], **options: Any) -> None:
        self._browser.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **options)


def _console_text(event: dict[str, Any]) -> str | None:
    """Return what an event writes to the console, if it does."""
    params = event["params"]
    match event["method"]:
        case "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            return f"{details['text']} {details.get('exception', {}).get('description', '')}"
        case "Runtime.consoleAPICalled":
            return " ".join(str(argument.get("value", argument)) for argument in params["args"])
        case "Log.entryAdded":
            return str(params["entry"]["text"])
    return None


class _Browser:
    """A browser at the other end of two pipes.

    Attributes
    ----------
    session
        Which page is spoken to; None for the browser itself.
    events
        What it told without being asked, so far.
    """

    def __init__(self, read: int, write: int) -> None:
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        self._read, self._write = read, write
        self._received = b""
        self._number = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Let the browser do something and return what it answers."""
        self._number += 1
        session = {} if self.session is None else {"sessionId": self.session}
        message = json.dumps({"id": self._number, "method": method, "params": params, **session}).encode() + b"\0"
        while message:
            message = message[os.write(self._write, message) :]
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def wait_for(self, method: str, **params: Any) -> None:
        """Wait until the browser tells of an event with these parameters among others."""
        while not any(event["method"] == method and params.items() <= event["params"].items() for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            content = os.read(self._read, 1 << 20) if ready else b""
            assert content, "the browser ended, or said nothing for a minute"
            self._received += content
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def _browser() -> Iterator[_Browser]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs a browser: neither chromium nor google-chrome is installed")
    to_browser, from_browser = os.pipe(), os.pipe()
    ends = (to_browser[0], from_browser[1])
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            sys.executable, "-c", _START, *map(str, ends), found, "--remote-debugging-pipe", "--headless",
            "--no-sandbox", "--disable-gpu", "--window-size=1400,900", f"--user-data-dir={profile}",
        ]  # fmt: skip
        process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in ends:
            os.close(end)
        try:
            yield _Browser(from_browser[0], to_browser[1])
        finally:
            # It ends when nobody writes to it any more.
            os.close(to_browser[1])
            try:
                process.wait(_SECONDS)
            finally:
                process.kill()
                os.close(from_browser[0])
