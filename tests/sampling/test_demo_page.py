"""The page of --mode=demo in a real browser; left out where gradio, selenium or Chromium is not."""

import contextlib
import io
import json
import shutil
import socket
import urllib.request

import numpy as np
import pytest
import soundfile

from specdiff_jax.sampling import demo_server
from tests.helpers.letters import letters, workdir  # noqa: F401  fixtures

pytestmark = pytest.mark.slow
SECONDS = 90  # that a page may take on a busy machine


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(found):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1300,1000"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    yield driver
    driver.quit()


@contextlib.contextmanager
def served(config, **fields):
    """(address, Studio) of the page with these fields of config.sample."""
    pytest.importorskip("gradio")
    from specdiff_jax.sampling import demo

    config = config.copy_and_resolve_references()
    config.sample.update(num_samples=2, batch_size=2, sampler="ddim", **fields)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config.demo.update(port=free.getsockname()[1], max_nfe=10**6)
    place = demo_server.DemoServer(config)
    page = demo.build_page(place)
    page.launch(prevent_thread_lock=True, **demo.launch_options(place))
    try:
        yield f"http://127.0.0.1:{config.demo.port}", place
    finally:
        page.close()


def until(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS, 0.2, (Exception,)).until(lambda _: condition())


def element(browser, selector):
    return until(browser, lambda: browser.find_element("css selector", selector))


def status(browser):
    return element(browser, "#status").text


def requested(browser):
    """Every address that the browser has asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def test_a_prompt_becomes_sound_and_a_mistake_a_line(browser, workdir):  # noqa: F811
    with served(workdir, steps=8) as (address, _):
        browser.get(address)
        element(browser, "#prompt textarea").send_keys("high notes")
        element(browser, "#make").click()
        until(browser, lambda: status(browser) == "Done: 2 clips.")
        width = "return document.querySelector('#clip-1 img').naturalWidth"
        until(browser, lambda: browser.execute_script(width) > 0)
        asked = []
        until(browser, lambda: asked.extend(requested(browser)) or wavs(asked))
        sound = urllib.request.urlopen(wavs(asked)[0]).read()
        assert sound[:4] == b"RIFF" and np.abs(soundfile.read(io.BytesIO(sound))[0]).max() > 0
        assert all(url.startswith((address, "data:", "blob:")) for url in asked)
        element(browser, "#algebra input, #algebra textarea").send_keys("+hgh")
        element(browser, "#make").click()
        until(browser, lambda: "did you mean high?" in status(browser))


def wavs(addresses):
    return [url for url in addresses if url.endswith(".wav")]


def test_stop_is_heard_soon(browser, workdir):  # noqa: F811
    with served(workdir, steps=50_000) as (address, place):
        browser.get(address)
        element(browser, "#make").click()
        until(browser, lambda: "evaluations" in status(browser))
        assert place.one_at_a_time.locked()
        element(browser, "#stop").click()
        until(browser, lambda: status(browser) == "Stopped.")
        free = place.one_at_a_time.acquire(timeout=30)
        assert free and place.job.stopped.is_set() and place.job.done <= place.job.total
        assert not place.job.clips
