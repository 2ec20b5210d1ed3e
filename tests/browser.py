"""A headless Chromium, driven by the DevTools protocol over a pipe: open a page, click, press keys, read the page, take a picture."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0


def find_chromium() -> str | None:
    """Debian's, or another of the family."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of a browser of its own, 1200 x 900 pixels. Use it as a context manager."""

    def __init__(self, profile: Path, *, dark: bool = False) -> None:
        executable = find_chromium()
        assert executable, "no chromium"
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"]
        look = ["--window-size=1200,900", f"--user-data-dir={profile}", *(["--force-dark-mode"] if dark else [])]

        def wire() -> None:
            """The browser reads commands from descriptor 3 and answers on 4."""
            spare = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (theirs_in, theirs_out)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        command = [executable, *switches, *look, "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, close_fds=False, preexec_fn=wire, **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._count, self._session = 0, ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")
        if dark:
            self._send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        self.resize(1200, 900)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._out.close()
        self._process.terminate()
        self._process.wait(timeout=20)

    def open(self, page: Path | str, ready: str = "document.readyState === 'complete'") -> None:
        """Open a file or an address and wait until the expression `ready` holds."""
        self._send("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self.wait(ready)

    def resize(self, width: int, height: int) -> None:
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def wait(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"{condition} does not become true; errors: {self.errors}"
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value; promises are awaited."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        """The left button, at a point of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def choose(self, selector: str, value: object) -> None:
        """Pick an option of a select element."""
        assert self.evaluate(
            f"(() => {{ const s = document.querySelector({json.dumps(selector)}); s.value = {json.dumps(str(value))};"
            "s.dispatchEvent(new Event('change', {bubbles: true})); return s.selectedIndex >= 0; })()"
        ), f"{selector} has no option {value!r}"

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        answer = self._send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self._send("DOM.setFileInputFiles", objectId=answer["result"]["objectId"], files=[str(path.resolve())])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **({"sessionId": self._session} if self._session else {})}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if event["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])

    def _read(self) -> bytes:
        message = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser ended"
            message += byte
        return bytes(message)
