"""A wearer with a browser: headless Chromium, with a clip for a camera, driven as a person would drive it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
from lego_training.toy_kitchen.clip import render_clip
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PHONE = (390, 844)
_PATIENCE_S = 60.0
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--use-fake-device-for-media-stream",
)  # fmt: skip
# Chromium's own words on pages and services that are not there while a server is stopped.
_OF_THE_NETWORK = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED")


class Wearer:
    """A page as its wearer sees it. Elements are named by their id."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Opens the page, and waits until it says something of the server."""
        self.driver.get(url)

    def resize(self, size: tuple[int, int]) -> None:
        """Makes the window as large as a device's, width and height in CSS pixels; a narrow one is a phone's."""
        width, height = size
        phone = width < 600
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )

    def __getitem__(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(self[name].text)

    def sees(self, name: str) -> bool:
        return bool(self[name].is_displayed())

    def click(self, name: str) -> None:
        self.wait(lambda: self.sees(name))
        self[name].click()

    def cure(self, label: str) -> None:
        """Presses a button of what the page offers against a trouble."""
        button = (By.XPATH, f"//*[@id='trouble-actions']/button[text()='{label}']")
        self.wait(lambda: self.driver.find_element(*button).is_displayed())
        self.driver.find_element(*button).click()

    def script(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def wait(self, until: Callable[[], object], seconds: float = _PATIENCE_S) -> None:
        """Waits until something is so, and fails with what the page then shows."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if until():
                    return
            except (StaleElementReferenceException, NoSuchElementException):
                pass  # the page has changed meanwhile
            time.sleep(0.05)
        pytest.fail(f"in {seconds:g} s it did not come to it; the page shows: {self.text('app')!r}")

    def wait_for_badge(self, *labels: str) -> None:
        self.wait(lambda: self.text("badge-label") in labels)

    def turn_on_camera(self) -> None:
        self.click("camera-on")
        self.wait(
            lambda: self.sees("camera-tools") and self.script("return document.getElementById('view').videoWidth")
        )

    def ask(self, question: str) -> None:
        self["question"].send_keys(question + Keys.ENTER)

    def set_steps(self, steps: int) -> None:
        """Wants so many denoising steps from now on."""
        self.click("open-settings")
        self["setting-steps"].send_keys(str(steps) + Keys.TAB)
        self["settings"].find_element(By.CLASS_NAME, "close").click()

    def wait_for_answer(self) -> str:
        """Waits for the picture; returns the description."""
        self.wait(lambda: self.sees("answer"))
        return self.text("answer-description")

    def choose(self, mode: str) -> None:
        """Looks at the answer in another way."""
        self.driver.find_element(By.CSS_SELECTOR, f"label:has(> input[value='{mode}'])").click()

    def picture_size(self, name: str) -> tuple[int, int]:
        """Waits for a picture to be there; returns its own size."""
        self.wait(lambda: self.script("const i = arguments[0]; return i.complete && i.naturalWidth", self[name]))
        width, height = self.script("const i = arguments[0]; return [i.naturalWidth, i.naturalHeight]", self[name])
        return width, height

    def watch(self, name: str) -> None:
        """Notes every text that an element comes to show; `seen` returns them."""
        self.script(
            "const e = document.getElementById(arguments[0]); const seen = (window.seen ??= {})[e.id] = [];"
            "new MutationObserver(() => seen.push(e.textContent)).observe("
            "e, {childList: true, characterData: true, subtree: true})",
            name,
        )

    def seen(self, name: str) -> list[str]:
        return list(self.script("return window.seen[arguments[0]]", name))

    def messages_sent(self) -> int:
        """How many WebSocket messages the page has sent since this was asked last."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return sum(event["method"] == "Network.webSocketFrameSent" for event in events)

    def complaints(self) -> list[str]:
        """What the browser has written to its console, but for connections that were refused."""
        lines = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return [line for line in lines if not any(words in line for words in _OF_THE_NETWORK)]


@contextmanager
def browsing(camera: Path, *flags: str, camera_allowed: bool = True) -> Iterator[Wearer]:
    """Runs a browser of its own, with nothing stored; skips where there is none.

    Args:
        camera: Motion JPEG that its camera shows, again and again.
        flags: More of Chromium's.
        camera_allowed: What its user says when asked for the camera.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--use-file-for-fake-video-capture={camera}", *flags):
        options.add_argument(flag)
    if camera_allowed:
        options.add_argument("--use-fake-ui-for-media-stream")
    else:
        options.add_experimental_option("prefs", {"profile.default_content_setting_values.media_stream_camera": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        wearer = Wearer(chrome)
        wearer.resize(PHONE)
        yield wearer
    finally:
        chrome.quit()


def film_kitchen(folder: Path, seed: int, seconds: float = 3.0, fps: int = 8, size: int = 384) -> Path:
    """Returns Motion JPEG of somebody who looks around in a toy kitchen, as Chromium's camera takes it."""
    clip, film = folder / "clip.mp4", folder / "camera.mjpeg"
    render_clip(seed, clip, seconds, fps, size)
    frames = cv2.VideoCapture(str(clip))
    with film.open("wb") as output:
        while True:
            there, frame = frames.read()
            if not there:
                break
            output.write(cv2.imencode(".jpg", frame)[1].tobytes())
    frames.release()
    return film
