"""A headless Chromium for the tests, driven over a pipe: no port, no further package.

The messages are those of the DevTools protocol, JSON ended by a zero byte.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = 390, 1200  # pixels
OPTIONS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--no-first-run", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
]  # fmt: skip


def found() -> str | None:
    """The browser's program; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Seen:
    """What happened while a page was loaded: addresses asked for, errors of the console."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Browser:
    """One page (a tab) of a browser; a context manager that ends the browser's processes."""

    def __enter__(self) -> "Browser":
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        # over nine, so that neither lies on the 3 and 4 that the browser reads and writes
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        line = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        command = ["bash", "-c", line, str(found()), *OPTIONS, f"--user-data-dir={self.home.name}"]
        self.process = subprocess.Popen(
            [*command, "about:blank"], pass_fds=ends, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self.out, self.inp = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self.left, self.number, self.seen, self.session = b"", 0, Seen(), None
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=tab, flatten=True)
        self.session = attached["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.out.close()
        self.inp.close()
        self.home.cleanup()

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept in `seen`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": given}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        self.out.flush()
        while (answer := self._next()).get("id") != self.number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page: Path, width: int = DESK) -> Seen:
        """Load a file at a width in pixels and wait until it is whole."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=844, deviceScaleFactor=1, mobile=width == PHONE,
        )  # fmt: skip
        self.seen = Seen()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while (event := self._next()).get("method") != "Page.loadEventFired":
            self._note(event)
        return self.seen

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.left:
            chunk = os.read(self.inp.fileno(), 1 << 20)
            if not chunk:
                raise RuntimeError(f"{found()} ended by itself")
            self.left += chunk
        first, _, self.left = self.left.partition(b"\0")
        return json.loads(first)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.seen.requests.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                about = about["exceptionDetails"]
                self.seen.errors.append(
                    about.get("exception", about).get("description", about["text"])
                )
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.seen.errors.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.seen.errors.append(about["entry"]["text"])
