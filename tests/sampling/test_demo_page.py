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
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(paths):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1300,1000"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()


@contextlib.contextmanager
def serve(config, **fields):
    """Yield (address, DemoServer) of the page with these fields of config.sample."""
    pytest.importorskip("gradio")
    from specdiff_jax.sampling import demo

    config = config.copy_and_resolve_references()
    config.sample.update(num_samples=2, batch_size=2, sampler="ddim", **fields)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config.demo.update(port=free.getsockname()[1], max_nfe=10**6)
    server = demo_server.DemoServer(config)
    page = demo.build_page(server)
    page.launch(prevent_thread_lock=True, **demo.launch_options(server))
    try:
        yield f"http://127.0.0.1:{config.demo.port}", server
    finally:
        page.close()


def until(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS, 0.2, (Exception,)).until(lambda _: condition())


def element(browser, selector):
    return until(browser, lambda: browser.find_element("css selector", selector))


def status(browser):
    return element(browser, "#status").text


def requested_urls(browser):
    """Return every address that the browser has requested since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def test_page_shows_the_clips_of_a_prompt_and_errors_in_one_line(browser, workdir):  # noqa: F811
    with serve(workdir, nfe=8) as (address, _):
        browser.get(address)
        element(browser, "#prompt textarea").send_keys("high notes")
        element(browser, "#generate").click()
        until(browser, lambda: status(browser) == "Done: 2 clips.")
        width = "return document.querySelector('#clip-1 img').naturalWidth"
        until(browser, lambda: browser.execute_script(width) > 0)
        urls = []
        until(browser, lambda: urls.extend(requested_urls(browser)) or wavs(urls))
        sound = urllib.request.urlopen(wavs(urls)[0]).read()
        assert sound[:4] == b"RIFF" and np.abs(soundfile.read(io.BytesIO(sound))[0]).max() > 0
        assert all(url.startswith((address, "data:", "blob:")) for url in urls)
        element(browser, "#algebra input, #algebra textarea").send_keys("+hgh")
        element(browser, "#generate").click()
        until(browser, lambda: "did you mean high?" in status(browser))


def wavs(addresses):
    return [url for url in addresses if url.endswith(".wav")]


def test_stop_button_stops_the_request(browser, workdir):  # noqa: F811
    with serve(workdir, nfe=50_000) as (address, server):
        browser.get(address)
        element(browser, "#generate").click()
        until(browser, lambda: "NFE" in status(browser))
        assert server.lock.locked()
        element(browser, "#stop").click()
        until(browser, lambda: status(browser) == "Stopped.")
        free = server.lock.acquire(timeout=30)
        assert (
            free and server.request.stopped.is_set() and server.request.done <= server.request.total
        )
        assert not server.request.clips
