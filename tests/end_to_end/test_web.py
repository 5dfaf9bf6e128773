"""A wearer with nothing but a browser: the page as it ships, in Chromium, with a real server behind it."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import trustme
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.end_to_end.browser import PHONE, Wearer, browsing, film_kitchen
from tests.end_to_end.processes import SERVER, Server, serving
from tests.end_to_end.test_reconnect import cuttable

SEED = 2_000_040  # a kitchen whose left drawer is asked about
QUESTION = "How do I open the left drawer?"


def url_of(server: Server) -> str:
    found = re.search(r"web page at (https?://\S+)", server.log.read_text())
    assert found
    return found[1].replace("127.0.0.1", "localhost")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film_kitchen(tmp_path_factory.mktemp("film"), SEED)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model, tmp_path_factory.mktemp("server") / "log", "--web-port", "0") as running:
        yield running


@pytest.fixture(scope="module")
def browser(camera: Path) -> Iterator[Wearer]:
    with browsing(camera) as wearer:
        yield wearer


@pytest.fixture
def wearer(browser: Wearer, server: Server) -> Iterator[Wearer]:
    """The page, open and connected, with nothing stored; in the end its console must be empty."""
    browser.open(url_of(server))
    browser.script("sessionStorage.clear(); localStorage.clear()")
    browser.open(url_of(server))
    browser.wait_for_badge("Ready")
    browser.messages_sent()
    yield browser
    assert browser.complaints() == []


def test_a_question_is_answered_in_words_then_previews_then_a_picture_to_compare(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    for element in ("asked-description", "badge-label", "announcer"):
        wearer.watch(element)
    wearer.ask(QUESTION)
    wearer.wait(lambda: wearer.sees("preview"))
    description = wearer.wait_for_answer()

    growing = [text for text in wearer.seen("asked-description") if text]
    assert len(growing) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(growing))
    badges = wearer.seen("badge-label")
    assert "Thinking" in badges and any(label.startswith("Painting ") for label in badges) and badges[-1] == "Answer"
    assert wearer.seen("announcer")[-1] == f"Answer: {description}"
    before, after = wearer.picture_size("compare-before"), wearer.picture_size("compare-after")
    assert before[0] / before[1] == pytest.approx(after[0] / after[1], rel=0.02)

    slider = wearer["compare-at"]
    slider.send_keys(Keys.END)
    assert wearer.script("return document.getElementById('compare').style.getPropertyValue('--at')") == "100%"
    wearer.choose("pair")
    assert wearer.sees("pair-before") and wearer.sees("pair-after")
    wearer.choose("ghost")
    wearer.wait(lambda: wearer.text("ghost-state") == "Ghost in place")
    lit = (
        "const c = document.getElementById('overlay'); return c.getContext('2d').getImageData(0, 0, c.width, c.height)"
    )
    wearer.wait(lambda: wearer.script(f"{lit}.data.some((value, i) => i % 4 === 3 && value > 100)"))


def test_nothing_is_sent_before_it_is_asked_for_and_then_one_picture_with_the_question(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    wearer["question"].send_keys("How do I")
    wearer.wait(lambda: wearer.script("return performance.now()") > 2000)
    assert wearer.messages_sent() == 0
    wearer["question"].clear()
    wearer.ask(QUESTION)
    wearer.wait_for_answer()
    assert wearer.messages_sent() == 2, "a frame and a query"


def test_views_are_sent_ahead_only_where_that_is_switched_on_and_the_page_says_so(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    wearer.click("open-settings")
    wearer.driver.find_element(By.CSS_SELECTOR, "[data-setting=viewsAhead]").click()
    wearer["settings"].find_element(By.CLASS_NAME, "close").click()
    wearer.wait(lambda: wearer.sees("sending"))
    assert "while it is on" in wearer.text("sent-what")
    sent = 0
    while sent < 3:
        sent += wearer.messages_sent()
    wearer.click("camera-off")
    wearer.wait(lambda: not wearer.script("return document.getElementById('view').srcObject"))


def test_the_last_answers_are_kept_until_they_are_cleared(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    for question in (QUESTION, "How do I pick up the knife?"):
        wearer.ask(question)
        wearer.wait(lambda asked=question: wearer.sees("answer") and wearer.text("answer-text") == asked)  # type: ignore[misc]
    wearer.click("answer-back")
    kept = wearer["history-list"].find_elements(By.TAG_NAME, "button")
    assert [button.get_attribute("title") for button in kept] == ["How do I pick up the knife?", QUESTION]
    kept[1].click()
    assert wearer.text("answer-text") == QUESTION
    wearer.click("answer-back")
    wearer.click("history-clear")
    assert not wearer.sees("history")
    assert wearer.script("return document.querySelectorAll('#history-list img').length") == 0


def test_all_of_it_works_by_keyboard_alone(wearer: Wearer) -> None:
    def press(*keys: str) -> None:
        wearer.driver.switch_to.active_element.send_keys(*keys)

    def focused() -> str:
        return str(wearer.script("return document.activeElement.id || document.activeElement.value"))

    def tab_to(name: str) -> None:
        for _ in range(40):
            if focused() == name:
                return
            press(Keys.TAB)
        pytest.fail(f"Tab does not come to {name}")

    wearer["app"].find_element(By.TAG_NAME, "h1").click()
    tab_to("camera-on")
    press(Keys.ENTER)
    wearer.wait(lambda: wearer.sees("camera-tools"))
    tab_to("question")
    press(QUESTION, Keys.ENTER)
    wearer.wait_for_answer()
    tab_to("compare-at")
    press(Keys.HOME)
    assert wearer.script("return document.getElementById('compare').style.getPropertyValue('--at')") == "0%"
    tab_to("compare")  # the choice of how to look at it
    press(Keys.ARROW_RIGHT)
    assert wearer.sees("pair-after")
    press(Keys.ESCAPE)
    wearer.wait(lambda: not wearer.sees("answer"))
    tab_to("open-help")
    press(Keys.ENTER)
    assert wearer.sees("help")
    press(Keys.ESCAPE)
    wearer.wait(lambda: not wearer.sees("help"))


def test_a_newer_question_takes_the_place_of_one_without_an_answer_and_one_can_be_cancelled(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    wearer.ask("How do I pick up the knife?")
    wearer.wait(lambda: wearer.sees("asked"))
    wearer.ask(QUESTION)
    wearer.wait_for_answer()
    assert wearer.text("answer-text") == QUESTION
    assert len(wearer["history-list"].find_elements(By.CSS_SELECTOR, "img")) == 1
    wearer.ask("How do I pick up the knife?")
    wearer.click("asked-cancel")
    assert not wearer.sees("asked")
    assert wearer["question"].get_attribute("value") == "How do I pick up the knife?"


def test_every_control_of_a_phone_is_large_enough_and_nothing_is_cut_off(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    wearer.ask(QUESTION)
    wearer.wait_for_answer()
    wearer.choose("ghost")
    for dialog in ("", "settings", "help"):
        if dialog:
            wearer.click(f"open-{dialog}")
        small = wearer.script(
            "const controls = document.querySelectorAll("
            "'button, a.button, select, summary, .modes span, label.check, input[type=text], input[type=number]');"
            "return [...controls].filter(each => each.checkVisibility() && each.offsetParent)"
            ".map(each => [each.id || each.textContent, each.getBoundingClientRect()])"
            ".filter(([, box]) => box.height < 44 || box.width < 44).map(([name]) => name)"
        )
        assert small == [], dialog
        assert wearer.script("return document.documentElement.scrollWidth") <= 390
        if dialog:
            wearer[dialog].find_element(By.CLASS_NAME, "close").click()


def test_a_photo_serves_where_the_camera_is_not_allowed(camera: Path, server: Server, kitchen: Path) -> None:
    with browsing(camera, camera_allowed=False) as wearer:
        wearer.open(url_of(server))
        wearer.wait_for_badge("Ready")
        wearer.click("camera-on")
        wearer.wait(lambda: wearer.sees("trouble"))
        assert wearer.text("trouble-why") == "The camera is not allowed for this page."
        assert "site settings" in wearer.text("trouble-cure")
        wearer.ask(QUESTION)
        wearer.wait(lambda: wearer.text("trouble-why") == "There is no picture to ask about.")
        wearer["photo-file"].send_keys(str(kitchen))
        wearer.wait(lambda: wearer.sees("photo"))
        wearer.ask(QUESTION)
        assert wearer.wait_for_answer()
        assert wearer.picture_size("compare-after")[0] > 0
        assert wearer.complaints() == []


def test_a_camera_that_sees_nothing_is_told(server: Server, tmp_path: Path) -> None:
    black = cv2.imencode(".jpg", np.zeros((240, 320, 3), np.uint8))[1].tobytes()
    (tmp_path / "black.mjpeg").write_bytes(black * 4)
    with browsing(tmp_path / "black.mjpeg") as wearer:
        wearer.open(url_of(server))
        wearer.turn_on_camera()
        wearer.wait(lambda: wearer.sees("dark"))


def test_who_speaks_is_asked_first_where_the_browser_would_send_the_voice_away(wearer: Wearer) -> None:
    wearer.turn_on_camera()
    wearer.click("talk")
    wearer.wait(lambda: wearer.sees("consent"))
    assert "to its maker" in wearer["consent"].text
    wearer.click("consent-no")
    wearer.wait(lambda: not wearer.sees("consent"))
    assert wearer.text("badge-label") == "Ready" and wearer.messages_sent() == 0
    wearer.click("talk")
    wearer.click("consent-yes")
    wearer.wait(lambda: wearer.sees("trouble"))  # neither a voice nor a speech service is there
    assert wearer.text("trouble-why") and "type your question" in wearer.text("trouble-cure").lower()
    wearer.click("trouble-close")


def test_over_tls_a_wrong_token_is_refused_and_the_right_one_is_kept_for_the_tab_only(
    camera: Path, model: Path, tmp_path: Path
) -> None:
    tokens, certificate, key = tmp_path / "tokens.json", tmp_path / "server.pem", tmp_path / "server.key"
    made = subprocess.run(
        [*SERVER, "token", "create", "anna", "--file", str(tokens)], capture_output=True, text=True, check=True
    )
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    protection = ("--tls-cert", str(certificate), "--tls-key", str(key), "--token-file", str(tokens))
    with (
        serving(model, tmp_path / "log", "--web-port", "0", *protection) as guarded,
        browsing(camera, "--ignore-certificate-errors") as wearer,
    ):
        assert url_of(guarded).startswith("https://")
        wearer.open(url_of(guarded))
        wearer.wait_for_badge("Refused")
        assert "asks for a token" in wearer.text("trouble-why")
        for token, badge in (("lego_wrong", "Refused"), ("not a token", "Refused"), (made.stdout.strip(), "Ready")):
            wearer.cure("Enter token")
            wearer["token-value"].send_keys(token + Keys.ENTER)
            wearer.wait(lambda: not wearer.sees("token"))
            wearer.wait_for_badge(badge)
        assert not wearer.sees("trouble")
        wearer.open(url_of(guarded))
        wearer.wait_for_badge("Ready")
        assert wearer.script("return [sessionStorage.length, localStorage.getItem('lego-token')]") == [1, None]
        wearer.turn_on_camera()
        wearer.ask(QUESTION)
        assert wearer.wait_for_answer()
        assert wearer.complaints() == []
    assert made.stdout.strip() not in (tmp_path / "log").read_text()


def test_over_plain_http_the_page_says_why_there_is_no_camera(camera: Path, model: Path, tmp_path: Path) -> None:
    port = free_port()
    origin = f"http://kitchen.test:{port}"
    with (
        serving(model, tmp_path / "log", "--web-port", port, "--web-origin", origin),
        browsing(camera, "--host-resolver-rules=MAP kitchen.test 127.0.0.1") as wearer,
    ):
        wearer.open(origin)
        wearer.wait_for_badge("Ready")
        wearer.click("camera-on")
        wearer.wait(lambda: wearer.sees("trouble"))
        assert "only to pages that come over https" in wearer.text("trouble-why")
        wearer.cure("Help")
        assert "signed itself" in wearer.text("help-certificate")


def test_a_question_whose_server_is_killed_is_answered_by_the_one_started_after_it(
    browser: Wearer, model: Path, tmp_path: Path
) -> None:
    port = free_port()
    with serving(model, tmp_path / "first log", "--web-port", port) as first:
        browser.open(url_of(first))
        browser.wait_for_badge("Ready")
        browser.turn_on_camera()
        browser.set_steps(40)
        browser.ask(QUESTION)
        browser.wait(lambda: browser.text("badge-label").startswith("Painting"))
        first.process.kill()
        first.process.wait()
        browser.wait_for_badge("Reconnecting")
        assert "kept" in browser.text("trouble-cure")
    with serving(model, tmp_path / "second log", "--web-port", port):
        browser.wait(lambda: browser.sees("trouble") is False, 90)
        assert browser.wait_for_answer()
        assert len(browser["history-list"].find_elements(By.CSS_SELECTOR, "img")) == 1
    assert "steps=40 " not in (tmp_path / "first log").read_text()
    assert (tmp_path / "second log").read_text().count("steps=40 ") == 1


def test_a_question_whose_link_is_cut_goes_on_in_its_session(browser: Wearer, server: Server) -> None:
    host = url_of(server).removeprefix("http://").rstrip("/").replace("localhost", "127.0.0.1")
    before = server.log.read_text().count("steps=41 ")
    with cuttable(host) as link:
        browser.open(f"http://{link.address}/")
        browser.wait_for_badge("Ready")
        browser.turn_on_camera()
        browser.set_steps(41)
        browser.ask(QUESTION)
        browser.wait(lambda: browser.text("badge-label").startswith("Painting"))
        browser.watch("badge-label")
        link.cut()
        assert browser.wait_for_answer()
        assert "Reconnecting" in browser.seen("badge-label") and "Thinking" not in browser.seen("badge-label")
    assert server.log.read_text().count("steps=41 ") == before + 1


def test_the_page_opens_without_its_server_and_sends_a_kept_question_when_it_is_back(
    browser: Wearer, model: Path, tmp_path: Path
) -> None:
    port = free_port()
    with serving(model, tmp_path / "first log", "--web-port", port) as first:
        url = url_of(first)
        browser.open(url)
        browser.wait_for_badge("Ready")
        browser.wait(lambda: browser.script("return navigator.serviceWorker.controller !== null"))
    browser.open(url)
    browser.wait_for_badge("Reconnecting")
    browser.turn_on_camera()
    browser.ask(QUESTION)
    browser.wait(lambda: browser.sees("asked"))
    with serving(model, tmp_path / "second log", "--web-port", port):
        assert browser.wait_for_answer()


@pytest.mark.parametrize("size", [(844, 390), (1280, 800)])
def test_a_wide_window_shows_picture_and_words_side_by_side(wearer: Wearer, size: tuple[int, int]) -> None:
    wearer.resize(size)
    try:
        wearer.turn_on_camera()
        wearer.ask(QUESTION)
        wearer.wait_for_answer()
        stage, panel, form = (wearer[name].rect for name in ("stage", "panel", "ask"))
        assert stage["x"] + stage["width"] <= panel["x"] and stage["width"] > panel["width"]
        assert form["y"] + form["height"] <= size[1]
    finally:
        wearer.resize(PHONE)
