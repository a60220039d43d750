"""The page at ``/`` in a browser: a dropped picture is answered, a bad one told."""

import itertools
import json
import re
import shutil
import subprocess
import time
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
from tests.serving.test_serving import Serving, voting  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine"),
]
DROP = """
(async () => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 40, height: 24});
  const pen = canvas.getContext("2d");
  pen.fillStyle = "rgb(GREY, GREY, GREY)";
  pen.fillRect(0, 0, 40, 24);
  const blob = await new Promise(done => canvas.toBlob(done, "image/png"));
  const held = new DataTransfer();
  held.items.add(new File([BODY], "mine.png", {type: "image/png"}));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true}));
})()
"""
SAYS = "document.getElementById('says').textContent"


class Browser:
    """A headless Chromium, spoken to by its DevTools protocol."""

    def __init__(self, folder, address):
        words = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
        ]
        self.process = subprocess.Popen(
            [*words, f"--user-data-dir={folder}", address], stderr=subprocess.PIPE, text=True
        )
        for line in self.process.stderr:
            if found := re.search(r"ws://127\.0\.0\.1:(\d+)", line):
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/json") as listed:
            pages = [each for each in json.load(listed) if each["type"] == "page"]
        self.line = client.connect(pages[0]["webSocketDebuggerUrl"], max_size=None)
        self.numbers = itertools.count(1)

    def run(self, expression):
        number = next(self.numbers)
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        self.line.send(json.dumps({"id": number, "method": "Runtime.evaluate", "params": asked}))
        while True:
            reply = json.loads(self.line.recv(timeout=30))
            if reply.get("id") == number:
                assert "exceptionDetails" not in reply["result"], reply
                return reply["result"]["result"].get("value")

    def until(self, expression, wanted):
        for _ in range(200):
            if (found := self.run(expression)) == wanted:
                return
            time.sleep(0.05)
        pytest.fail(f"{expression} is {found!r}, not {wanted!r}")

    def close(self):
        self.line.close()
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def browser(tmp_path):
    with Serving(voting(), budget=2000.0) as server:
        found = Browser(tmp_path, f"http://127.0.0.1:{server.port}/")
        yield found
        found.close()


def test_a_dropped_picture_is_answered_and_a_bad_one_told(browser):
    browser.until("document.readyState", "complete")
    for level in (3, 8):
        grey = str(round(255 * (level + 0.5) / 10))
        browser.run(DROP.replace("GREY", grey).replace("BODY", "blob"))
        browser.until(SAYS, f"level {level}")
    cells = browser.run(
        "[...document.querySelectorAll('#answer td')].map(each => each.textContent)"
    )
    assert cells[:2] == ["answer", "level 8"]
    assert cells[2] == "share of the passes"
    assert "%" in cells[3]
    assert browser.run("document.getElementById('shown').naturalWidth") == 40
    browser.run(DROP.replace("GREY", "0").replace("BODY", "'hello'"))
    browser.until("document.getElementById('says').className", "error")
    assert "cannot be read as a picture" in browser.run(SAYS)
    assert browser.run("document.getElementById('answer').hidden")
    # Nothing is cut off on a narrow screen.
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
