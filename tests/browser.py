"""A headless Chromium driven over a pipe: no port, no driver, no package.

The DevTools protocol, https://chromedevtools.github.io/devtools-protocol/: JSON messages that end
with a zero byte, on file descriptors 3 and 4.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage"),
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}


def chromium():
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page; `said` is what it wrote to its console, `asked` the addresses it loaded."""

    def __init__(self, profile, patience=30):
        self.patience, self.last, self.rest = patience, 0, b""
        self.said, self.asked, self.session = [], [], None
        ends = [*os.pipe(), *os.pipe()]
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
        for end in ends:
            os.close(end)
        theirs_in, self.to, self.out, theirs_out = high
        start = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = [*FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", start, "bash", chromium(), *flags],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait(10)
        os.close(self.to)
        os.close(self.out)

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        return self._until(lambda m: m.get("id") == self.last)

    def open(self, path, fragment=""):
        for url in ("about:blank", f"{path.as_uri()}{fragment}"):  # else a new fragment is no load
            self.call("Page.navigate", url=url)
            self._until(lambda m: m.get("method") == "Page.loadEventFired")

    def run(self, script):
        """The value of an expression in the page; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key):
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def point(self, selector):
        """Move the mouse onto the first element of a selector."""
        box = self.run(
            f"(() => {{const b = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def look(self, width, height, *, dark=False, mobile=False):
        """Of this size and scheme from now on."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file):
        answer = self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(answer["data"]))

    def _until(self, wanted):
        end = time.monotonic() + self.patience
        while True:
            message = self._message(end)
            self._note(message)
            if wanted(message):
                assert "error" not in message, message["error"]
                return message.get("result", {})

    def _message(self, end):
        while b"\0" not in self.rest:
            left = end - time.monotonic()
            ready = left > 0 and select.select([self.out], [], [], left)[0]
            assert ready, f"Chromium said nothing for {self.patience} s"
            self.rest += (more := os.read(self.out, 1 << 20))
            assert more, f"Chromium left with {self.process.wait(10)}"
        whole, _, self.rest = self.rest.partition(b"\0")
        return json.loads(whole)

    def _note(self, message):
        about, method = message.get("params", {}), message.get("method")
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(about)
        if method == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
