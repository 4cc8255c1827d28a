"""A headless Chromium by the W3C WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MISSING = "chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Down": "\ue015"}


def is_there() -> bool:
    """Whether Chromium and its driver are installed."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Browser:
    """One window of 1400 by 1000 pixels, or the screen of a phone, 390 by 844, which one touches."""

    def __init__(self, scratch: Path, is_phone: bool = False) -> None:
        port = free_port()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}/session"
        phone = {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 1, "touch": True, "mobile": True}}
        options = {
            **({"mobileEmulation": phone} if is_phone else {}),
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--window-size=1400,1000",
                f"--user-data-dir={scratch / 'profile'}",
            ],
            "binary": shutil.which("chromium"),
        }
        wanted = {
            "capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        }
        for _ in range(100):  # until the driver listens
            try:
                self._url += "/" + self._send("POST", "", wanted)["sessionId"]
                break
            except ConnectionError:
                time.sleep(0.1)
        else:
            raise TimeoutError("chromedriver does not listen")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait()

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._send("POST", "/url", {"url": url})

    def script(self, code: str, *arguments: Any) -> Any:
        """What a JavaScript function body returns."""
        return self._send("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def wait(self, condition: str, seconds: float = 30) -> Any:
        """What a JavaScript expression is, once that is truthy."""
        end = time.monotonic() + seconds
        while not (found := self.script(f"return {condition}")):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}: not so after {seconds} s; the page says: {self.text()[:2000]}")
            time.sleep(0.1)
        return found

    def text(self) -> str:
        """All the text that is seen."""
        return str(self.script("return document.body.innerText"))

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an <input type=file>."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        self._send("POST", f"/element/{found[ELEMENT]}/value", {"text": str(path)})

    def press(self, *keys: str) -> None:
        """Press keys one after another, as on a keyboard."""
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def screenshot(self, path: Path) -> None:
        """Save what is seen as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def errors(self) -> list[str]:
        """What the page's console has of errors since the last time it was asked."""
        return [
            entry["message"]
            for entry in self._send("POST", "/se/log", {"type": "browser"})
            if entry["level"] == "SEVERE"
        ]

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None
        except urllib.error.URLError as error:
            raise ConnectionError(str(error)) from None
