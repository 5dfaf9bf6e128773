"""The study's page in a real browser."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lego_training.study.design import Study, public
from lego_training.study.serve import open_server
from lego_training.study.votes import Votes

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402 (after the skip)
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1200,900",
)  # fmt: skip


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no browser (Debian: chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    console = opened.get_log("browser")
    opened.quit()
    assert console == []


def begin(browser: webdriver.Chrome, rater: str) -> None:
    code = browser.find_element(By.ID, "rater")
    code.clear()
    code.send_keys(rater + Keys.ENTER)
    WebDriverWait(browser, 10).until(lambda b: b.find_element(By.ID, "choices").is_displayed())


def press(browser: webdriver.Chrome, key: str) -> None:
    before = browser.find_element(By.ID, "progress").get_attribute("value")
    browser.find_element(By.TAG_NAME, "body").send_keys(key)
    WebDriverWait(browser, 10).until(
        lambda b: (
            b.find_element(By.ID, "progress").get_attribute("value") != before
            or b.find_element(By.ID, "end").is_displayed()
        )
    )


def test_a_rater_answers_by_keyboard_changes_their_mind_and_is_thanked(browser: webdriver.Chrome, images: Path) -> None:
    with open_server(images, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        browser.get(f"http://127.0.0.1:{server.server_address[1]}/")
        begin(browser, "ann")
        shown = [
            each.get_attribute("data-choice") for each in browser.find_elements(By.CSS_SELECTOR, "#choices button")
        ]
        for key in ("1", Keys.BACKSPACE, "2", "1", "3"):
            press(browser, key)
        WebDriverWait(browser, 10).until(lambda b: "have arrived" in b.find_element(By.ID, "sent").text)
        server.shutdown()
        thread.join()
    votes = list(Votes(images, Study.load(images)))
    assert len(votes) == 3 and {vote.rater for vote in votes} == {"ann"}
    assert shown[1] in {vote.choice for vote in votes} and shown[0] not in {vote.choice for vote in votes}


def test_opened_as_a_file_the_page_keeps_answers_until_it_is_opened_again(
    browser: webdriver.Chrome, images: Path
) -> None:
    page = (public(images) / "index.html").as_uri()
    browser.get(page)
    begin(browser, "bob")
    press(browser, "1")
    browser.get(page)
    begin(browser, "bob")
    assert browser.find_element(By.ID, "progress").get_attribute("value") == "1"
    for key in ("1", "2"):
        press(browser, key)
    assert browser.find_element(By.ID, "save").is_displayed()
