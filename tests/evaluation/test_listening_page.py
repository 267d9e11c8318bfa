"""Sessions by keyboard and by touch; skipped without selenium or Chromium."""

import json
import shutil

import pytest

from specdiff_jax.evaluation.listening import page, results
from tests.helpers.listening_clips import HOSTILE, write_clips

pytestmark = pytest.mark.slow
SECONDS = 60  # that a page may take on a busy machine
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-dev-shm-usage",
    "disable-gpu",
    "window-size=1280,900",
)


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    severe = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    complaints = [line for line in severe if "audio device" not in line]  # a machine has none
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    driver.quit()
    requests = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert not complaints
    assert {a["request"]["url"].split(":")[0] for a in requests} <= {"file", "data", "blob"}


def open_page(browser, folder, kinds, matched=False, count=1):
    """Write a page, show it in the browser, and return its contents."""
    sets = write_clips(folder / "clips", ["reference", *HOSTILE[:2]], count)
    reference = sets.pop("reference")
    facts = page.write_listening_page(folder / "listening.html", sets, reference, kinds, matched)
    browser.get(facts["path"].as_uri())
    return page.read_listening_page(facts["path"])


def until(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS, 0.1).until(lambda _: condition())


def element(browser, selector):
    return browser.find_element("css selector", selector)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    named = {"left": Keys.ARROW_LEFT, "right": Keys.ARROW_RIGHT, "enter": Keys.ENTER}
    ActionChains(browser).send_keys(*(named.get(key, key) for key in keys)).perform()


def playing(browser):
    return [e.text for e in browser.find_elements("css selector", "[aria-pressed=true]")]


def status(browser):
    return element(browser, "#status").text


def downloaded(browser, folder):
    """Return the path of the one result file once it is downloaded whole."""
    (path,) = until(browser, lambda: list(folder.glob("listening-*.json")))
    assert path.read_text("utf-8") == element(browser, "#result").get_attribute("value")
    return path


def test_keyboard_session_saves_the_intended_result(browser, tmp_path):
    test = open_page(browser, tmp_path, ("mushra", "abx"))
    element(browser, "#listener").send_keys("Ann <b>")
    press(browser, "enter")
    press(browser, "enter")  # too early
    assert status(browser) == "Still to do: play 1, 2, 3, 4; rate 1, 2, 3, 4."
    for number in range(1, 5):
        press(browser, str(number), *["right"] * number)
        assert playing(browser) == [str(number)]
    press(browser, "4", *["left"] * 2)
    press(browser, " ")
    assert playing(browser) == []
    press(browser, " ")
    assert playing(browser) == ["4"] and status(browser) == ""
    press(browser, "enter")
    assert element(browser, "#count").text == "Trial 2 of 2" and playing(browser) == []
    press(browser, "1", "2", "3", "right", "enter")
    path = downloaded(browser, tmp_path)

    rating, abx = json.loads(path.read_text("utf-8"))["trials"]
    assert [one["score"] for one in rating["ratings"]] == [51, 52, 53, 52]
    assert [one["plays"] for one in rating["ratings"]] == [1, 1, 1, 3]
    stimuli = [(one["role"], one["set"]) for one in rating["ratings"]]
    assert set(stimuli) == {("set", name) for name in HOSTILE[:2]} | {
        ("reference", None),
        ("anchor", None),
    }
    assert {abx["a"], abx["b"]} == set(HOSTILE[:2]) and abx["answer"] == abx["b"]
    analysis = results.analyze_results([path], screen=False)
    assert analysis["listeners"][0]["listener"] == "Ann <b>"
    meant = {
        stimulus[0]: one["score"] for stimulus, one in zip(stimuli, rating["ratings"], strict=True)
    }
    for row in analysis["scores"]:
        assert row["role"] == "set" or row["mean"] == meant[row["role"]]
    assert analysis["abx"][0]["right"] == (abx["x"] == abx["b"])
    assert test["test"] == json.loads(path.read_text("utf-8"))["test"]


def test_played_clip_is_the_rated_clip(browser, tmp_path):
    test = open_page(browser, tmp_path, ("mushra",), matched=True)
    press_begin(browser)
    press(browser, "0")
    assert playing(browser) == ["Reference"]
    played = {}
    for number in "01234":
        press(browser, number)
        played[number] = browser.execute_script(
            "const one = voice.source.buffer, wave = one.getChannelData(0);"
            "return [voice.part.clip, one.sampleRate, one.length, one.numberOfChannels,"
            "...[777, 5000, 9001].map((i) => wave[i] * 32768)]"
        )
        if number != "0":
            press(browser, "right")
    for clip, rate, length, channels, *values in played.values():
        pcm = test["clips"][clip]
        assert (rate, channels, length) == (test["rate"], *pcm.shape)
        assert values == [pcm[0, i] for i in (777, 5000, 9001)]
    press(browser, "enter")
    ratings = json.loads(element(browser, "#result").get_attribute("value"))["trials"][0]["ratings"]
    roles = test["key"]["clips"]
    assert [one["role"] for one in ratings] == [roles[played[n][0]][0] for n in "1234"]
    assert roles[played["0"][0]][0] == "open"


def press_begin(browser):
    element(browser, "#begin button").click()


def test_interrupted_session_resumes(browser, tmp_path):
    open_page(browser, tmp_path, ("mushra",), count=2)
    press_begin(browser)
    for number in "1234":
        press(browser, number, "right", "right")
    press(browser, "enter", "2", "left", "left", "left")
    order = browser.execute_script("return [state.seed, view.parts.map((part) => part.clip)]")
    browser.refresh()
    assert "left at trial 2 of 2" in element(browser, "#resume p").text
    element(browser, "#go-on").click()
    assert (
        browser.execute_script("return [state.seed, view.parts.map((part) => part.clip)]") == order
    )
    assert [e.text for e in browser.find_elements("css selector", "output")] == [
        "–",
        "47",
        "–",
        "–",
    ]
    assert status(browser) == "Still to do: play 1, 3, 4; rate 1, 3, 4."
    for number in "134":
        press(browser, number, "right")
    press(browser, "enter")
    scores = [
        [one["score"] for one in trial["ratings"]]
        for trial in json.loads(downloaded(browser, tmp_path).read_text("utf-8"))["trials"]
    ]
    assert scores == [[52] * 4, [51, 47, 51, 51]]
    browser.refresh()  # the last screen stays, and saves no second file
    assert element(browser, "#end").is_displayed()
    assert len(list(tmp_path.glob("listening-*.json"))) == 1
    element(browser, "#again").click()
    assert element(browser, "#begin").is_displayed()


def test_touch_session_fits_a_phone(browser, tmp_path):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    open_page(browser, tmp_path, ("mushra", "abx"), matched=True)

    def fits():
        edges = "Array.from(document.querySelectorAll('body *'), (e) => e.getBoundingClientRect())"
        return browser.execute_script(f"return Math.max(...{edges}.map((r) => r.right))") <= 390

    def tap(selector, share=0.5):
        target = element(browser, selector)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", target)
        box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", target)
        point = {"x": box["x"] + share * box["width"], "y": box["y"] + box["height"] / 2}
        send = lambda kind, points: browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
        send("touchStart", [point])
        send("touchEnd", [])
        assert box["height"] >= 44

    assert fits()
    tap("#begin button")
    until(browser, lambda: element(browser, "#trial").is_displayed())
    assert fits()
    tap(".row.open .play")
    until(browser, lambda: playing(browser) == ["Reference"])
    for row, share in zip(range(3, 7), (0.5, 0.9, 0.1, 0.75), strict=True):
        tap(f"#stage > :nth-child({row}) .play")
        tap(f"#stage > :nth-child({row}) input", share)
    until(browser, lambda: status(browser) == "")
    tap("#next")
    until(browser, lambda: element(browser, "#count").text == "Trial 2 of 2")
    assert fits()
    for number in (1, 2, 3):
        tap(f".choices button:nth-child({number})")
    tap("fieldset label:nth-of-type(1)")
    until(browser, lambda: status(browser) == "")
    tap("#next")
    rating, abx = json.loads(downloaded(browser, tmp_path).read_text("utf-8"))["trials"]
    first, high, low, upper = (one["score"] for one in rating["ratings"])
    assert first == pytest.approx(50, abs=2) and low < 15 and 70 < upper < 85 and high > 90
    assert abx["answer"] == abx["a"]
    assert fits()
