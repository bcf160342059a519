"""Pages in Chromium: nothing is fetched, nothing fails, headings sort, pictures move, themes are readable."""

import re

import pytest

from tests.conftest import require_browser
from tests.report.made import comparison_events
from tests.train.toys import CacheMaker, whole_file
from vidlat.report.cache import report_cache
from vidlat.report.comparison import report_comparison

pytestmark = pytest.mark.browser

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CLIPS = {"clip a.mp4": 30.0, "clip b.mp4": 9.5, "clip c.mp4": 41.0}
PSNRS = {
    f"tiny stack {4 * number}": {clip: psnr + number for clip, psnr in CLIPS.items()}
    for number in range(1, 5)
}


@pytest.fixture(scope="module")
def chromium():
    """Skips before Playwright, which may not be there, is imported."""
    path = require_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A page of each kind, by name."""
    folder = tmp_path_factory.mktemp("pages")
    report_comparison(comparison_events(folder / "out", PSNRS), folder / "comparison.html")
    videos = {f"s{number % 3}/{number}.mp4": 9 + number for number in range(9)}
    sources = {name: whole_file(f"/data/{name}") for name in videos}
    CacheMaker(folder / "l.zarr").add(videos, sources=sources)
    list(report_cache(folder / "l.zarr", folder / "cache.html"))
    return {name: folder / f"{name}.html" for name in ("comparison", "cache")}


@pytest.fixture
def visit(chromium, files):
    """visit(name): opens a page of that kind. Its .asked is what it fetched, .said what it complained of."""
    contexts = []

    def open_page(name, width=1100, **settings):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def wait(page, condition):
    """Until it holds: Playwright's own way would need `eval`, which the page does not allow."""
    look = f"const look = () => {condition} ? done() : requestAnimationFrame(look)"
    page.evaluate(f"new Promise((done) => {{ {look}; look(); }})")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["comparison", "cache"])
def test_a_page_fetches_nothing_complains_of_nothing_and_fits_a_small_window(visit, files, name, scheme):
    page = visit(name, width=360, color_scheme=scheme)
    wait(page, "[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)")
    page.mouse.wheel(0, 100_000)
    elsewhere = [url for url in page.asked if not url.startswith(("data:", files[name].as_uri()))]
    assert (elsewhere, page.said) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", ["comparison", "cache"])
def test_texts_stand_out_from_their_background_in_both_themes(visit, name):
    lights = []
    for scheme in ("light", "dark"):
        page = visit(name, color_scheme=scheme)
        for selector in ("p.dim", "td", "h1", "svg .tick"):
            back, text = (
                luminance(page.evaluate(f"getComputedStyle(document.querySelector('{place}')).{style}"))
                for place, style in (
                    ("body", "backgroundColor"),
                    (selector, "fill" if "svg" in selector else "color"),
                )
            )
            dark, light = sorted((back, text))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, selector)  # WCAG 2.2, 1.4.3
        lights.append(back)
    assert lights[0] > 0.9
    assert lights[1] < 0.1


def luminance(colour):
    """Of `rgb(...)`, relative, as WCAG defines it."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def column(page, number):
    """The texts in that column of the first table, without a star."""
    cells = page.locator("table").nth(0).locator(f"tbody td:nth-child({number})")
    return [text.split("★")[0].strip() for text in cells.all_inner_texts()]


def test_a_click_on_a_heading_sorts_by_numbers_and_a_second_one_the_other_way_round(visit):
    page = visit("comparison")
    heading = page.locator("table").nth(0).locator("th", has_text="PSNR dB")
    heading.locator("button").click()
    ascending = column(page, 4)
    assert ascending == sorted(ascending, key=float)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert column(page, 4) == ascending[::-1]
    assert column(page, 1) == ["4", "3", "2", "1"]


def test_a_table_can_be_sorted_and_scrolled_by_keyboard(visit):
    page = visit("comparison", width=360)
    page.locator("table").nth(0).locator("th button").nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(page, 1) == ["4", "3", "2", "1"]  # `tiny stack 16` comes after `tiny stack 8`
    region = page.locator(".scroll").nth(0)
    region.focus()
    page.keyboard.press("ArrowRight")
    wait(page, "document.querySelector('.scroll').scrollLeft > 0")


def test_pictures_move_while_they_are_seen(visit):
    page = visit("comparison")
    page.locator("video").nth(0).scroll_into_view_if_needed()
    wait(page, "document.querySelector('video').currentTime > 0.1")
    page.evaluate("scrollTo(0, 0)")
    wait(page, "document.querySelector('video').paused")


def test_with_reduced_motion_pictures_wait_for_a_reader(visit):
    page = visit("comparison", reduced_motion="reduce")
    first = page.locator("video").nth(0)
    first.scroll_into_view_if_needed()
    wait(page, "document.querySelector('video').readyState >= 2")
    # An observer that was made later than that of the page is told later that the picture is seen.
    page.evaluate(
        "new Promise((done) => new IntersectionObserver((entries) => entries[0].isIntersecting && done())"
        ".observe(document.querySelector('video')))"
    )
    assert first.evaluate("(video) => video.paused && video.currentTime === 0 && video.controls")
    first.evaluate("(video) => video.play()")
    wait(page, "document.querySelector('video').currentTime > 0")


def test_a_script_that_is_not_the_pages_own_does_not_run(visit):
    page = visit("cache")
    page.evaluate("""{
        const other = document.createElement("script");
        other.textContent = "document.title = 'changed'";
        document.body.append(other);
    }""")
    assert page.title().startswith("Latents")
    assert "Content Security Policy" in " ".join(page.said)


def test_on_paper_it_is_dark_on_light(visit):
    page = visit("cache", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    back, text = (
        luminance(page.evaluate(f"getComputedStyle(document.body).{style}"))
        for style in ("backgroundColor", "color")
    )
    assert back > 0.9
    assert text < 0.1


def test_on_paper_a_still_takes_the_place_of_a_moving_picture(visit):
    page = visit("comparison")
    assert [page.locator(name).first.is_visible() for name in ("video", "img.still")] == [True, False]
    page.emulate_media(media="print")
    assert [page.locator(name).first.is_visible() for name in ("video", "img.still")] == [False, True]
