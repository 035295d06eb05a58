"""The page in a browser: Debian's Chromium, driven by Playwright; where one is lacking, all of it is skipped."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from odd_shop import ARABIC, CHINESE, EMOJI, LONG, MARKUP, SIGNS, TURNED

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
import uvicorn
from playwright.sync_api import sync_playwright

from rawrec.browse.export import export_page
from rawrec.browse.opening import opened
from rawrec.browse.view import View
from rawrec.server.run import Options, application, held, listen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
TOKEN = "0123456789abcdef"
STRANGE_IDS = [MARKUP, CHINESE, ARABIC, EMOJI, LONG, TURNED, SIGNS]
to = "(parts, options) => browse.to(parts, options)"
SETTLED = "!document.querySelector('[aria-busy]') && !!document.querySelector('main h1')"
UNNAMED = """() => [...document.querySelectorAll('a, button, input, select, textarea, canvas, img')].filter((node) => {
  if (node.tagName === 'IMG') return !node.hasAttribute('alt');
  const named = node.getAttribute('aria-label') || node.textContent.trim() || (node.labels && node.labels.length);
  return !named && !node.closest('[hidden]');
}).map((node) => node.outerHTML.slice(0, 120))"""
"""What somebody who listens would not be told the name of."""


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application in a thread of its own; the address."""
    place = listen(Options(port=0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(20)
        place.close()


@pytest.fixture(scope="module")
def views(odd: dict[str, Path]) -> list[tuple[str, Any]]:
    return [(name, opened(odd[name])) for name in ("em3", "bpr")]


@pytest.fixture(scope="module")
def address(views: list[tuple[str, Any]]) -> Iterator[str]:
    options = Options(threads=1, deadline=60.0, waiting=256)
    with serving(application(held(views[0][1], options), options, views[1:])) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page on which nothing may go wrong, and from which nothing may be asked elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made, wrong = context.new_page(), list[str]()
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on(
        "console", lambda said: wrong.append(said.text) if said.type == "error" and "422" not in said.text else None
    )
    made.on("request", lambda asked: None if asked.url.startswith((address, "blob:", "file:", "data:"))
            else wrong.append(asked.url))  # fmt: skip
    yield made
    context.close()
    assert wrong == []


def go(page: Any, url: str) -> None:
    page.goto("about:blank")
    page.goto(url)
    settle(page)


def settle(page: Any) -> None:
    until(page, lambda: page.evaluate(SETTLED))


def until(page: Any, true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait; Playwright's own way to wait for a condition is not allowed by the page's policy."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, page.evaluate("document.querySelector('main').innerText.slice(0, 500)")
        page.wait_for_timeout(30)


def tiles(page: Any, heading: str) -> list[str]:
    """Items of the strip under a heading, in order."""
    return page.evaluate(
        """(name) => {
          const strips = [...document.querySelectorAll('.strip-of')];
          const strip = strips.find((one) => one.querySelector('h3').textContent.startsWith(name));
          return strip ? [...strip.querySelectorAll('.tile')].map((tile) => tile.dataset.item) : [];
        }""",
        heading,
    )


def test_every_view_at_every_width_names_what_it_shows(page: Any, address: str) -> None:
    go(page, address)
    views = [page.evaluate(f"({to})({parts}, {options})") for parts, options in (
        ("[]", "{}"), ("['user', 'u1']", "{until: 'now'}"), ("['user', 'quiet']", "{}"), ("['item', 'i1']", "{}"),
        ("['items']", "{find: 'red'}"), ("['cold']", "{}"), ("['try']", "{user: 'u1'}"), ("['map']", "{by: 'age'}"),
        ("['live']", "{}"), ("['user', 'nobody']", "{}"), ("['item']", "{}"), ("['no-such-view']", "{}"),
    )]  # fmt: skip
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        for view in views:
            go(page, address + view)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (view, width)
            assert page.evaluate(UNNAMED) == [], view
            assert page.evaluate("document.querySelectorAll('main h1').length") == 1, view
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
        assert (sum(map(int, shade)) > 700) is (scheme == "light")


@pytest.mark.parametrize("item", STRANGE_IDS, ids=ascii)
def test_what_others_wrote_is_text(page: Any, address: str, item: str) -> None:
    go(page, address)
    for parts in (["item", item], ["user", MARKUP]):
        page.evaluate("(parts) => { location.hash = browse.to(parts); }", parts)
        until(page, lambda shown=parts[1]: page.evaluate("(one) => browse.place().parts[1] === one", shown))
        page.wait_for_timeout(50)
        settle(page)
        assert "This cannot be shown" not in page.inner_text("main h1")
        assert page.title() != "taken"
        assert (
            page.evaluate("document.querySelectorAll('main script, main [onerror], main b.bold, main bold').length")
            == 0
        )
        assert page.evaluate("(sign) => !document.body.innerText.includes(sign)", "\u202e")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_user_with_list_reasons_and_what_came_next(page: Any, address: str, views: list[tuple[str, Any]]) -> None:
    go(page, f"{address}#/user/u1")
    view = View(views)
    found = view.user("u1")
    assert tiles(page, "History") == [one[0] for one in found["history"]]
    later = list(dict.fromkeys(one[0] for one in found["later"]))
    assert tiles(page, "What came next") == later
    from rawrec.browse.view import Wish

    marked = 0
    for of, name in enumerate(("em3", "bpr")):
        listed = [one["item"] for one in view.list(Wish("u1"), of)["items"]]
        assert tiles(page, f"Recommended by {name}") == listed
        hits = page.locator(".lists > div").nth(of).locator(".tile.hit")
        assert hits.count() == len(set(listed) & set(later))
        assert all("taken next" in text for text in hits.all_inner_texts())
        marked += hits.count()
    assert marked
    first = page.locator(".lists .tile .face").first
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    why = page.locator(".why").first
    assert "attend" in why.inner_text() and why.locator("tbody tr").count() == 3
    assert "why=" in page.url
    go(page, page.url)  # the address says what is open
    assert page.locator(".why").first.is_visible() and page.locator(".tile.chosen").count() == 1
    rows = page.locator("table.merged tbody tr")
    assert rows.count() == len({one["item"] for of in (0, 1) for one in view.list(Wish("u1"), of)["items"]})


def test_filters_stand_in_the_address(page: Any, address: str) -> None:
    go(page, f"{address}#/user/u1")
    page.locator(".filters summary").click()
    page.locator(".filters select").first.select_option(index=1)
    page.locator(".filters input[type=number]").nth(1).fill("30")
    page.keyboard.press("Tab")
    until(page, lambda: "most" in page.url and page.evaluate(SETTLED))
    before = tiles(page, "Recommended by em3")
    go(page, page.url)
    assert 0 < len(before) < 20 and tiles(page, "Recommended by em3") == before
    assert page.locator(".filters").get_attribute("open") is not None


def test_the_search_by_keyboard(page: Any, address: str) -> None:
    go(page, address)
    page.keyboard.press("/")
    page.keyboard.type("item 1 in green")
    until(page, lambda: page.locator("#hits [role=option]").count() > 0)
    page.keyboard.press("Enter")
    until(page, lambda: "#/item/i1" in page.url and page.evaluate(SETTLED))
    assert page.inner_text("main h1") == "Item 1 in green"
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content" and "#/item/i1" in page.url
    page.keyboard.press("3")
    until(page, lambda: page.url.endswith("#/cold"))
    page.keyboard.press("/")
    page.keyboard.type("u12")
    until(page, lambda: page.locator("#hits [aria-selected=true]").count() == 1)
    page.keyboard.press("Enter")
    until(page, lambda: "#/user/u12" in page.url and page.evaluate(SETTLED))


def test_what_if(page: Any, address: str, tmp_path: Path) -> None:
    go(page, f"{address}#/try?user=u1")
    until(page, lambda: tiles(page, "What they would get"))
    history, before = tiles(page, "History"), tiles(page, "What they would get")
    page.locator(".cross").last.click()
    until(
        page,
        lambda: "▲" in page.inner_text("main") or "▼" in page.inner_text("main") or "new" in page.inner_text("main"),
    )
    assert tiles(page, "History") == history[:-1] and "history=" in page.url
    page.locator(".picker input").nth(1).fill("item 5 in")
    page.locator(".pick").first.click()
    until(page, lambda: tiles(page, "History") == [*history[:-1], "i5"])
    page.get_by_role("button", name="As it was").click()
    until(page, lambda: tiles(page, "What they would get") == before)
    page.locator("textarea").first.fill("a red lamp")
    until(page, lambda: page.locator(".placed").count() == 1)
    assert "It would stand at place" in page.inner_text(".placed")
    buffer = io.BytesIO()
    Image.new("RGB", (50, 50), (200, 40, 40)).save(buffer, "PNG")
    (tmp_path / "red.png").write_bytes(buffer.getvalue())
    page.locator("input[type=file]").set_input_files(tmp_path / "red.png")
    until(page, lambda: "Nearest by picture" in page.inner_text(".tried"))
    assert page.locator(".preview img").evaluate("(image) => image.complete && image.naturalWidth") == 50


def test_the_lasso_shows_what_it_holds(page: Any, address: str) -> None:
    go(page, f"{address}#/map?by=kind")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    left, top, right, bottom = (
        box["x"] + box["width"] * 0.3,
        box["y"] + 5,
        box["x"] + box["width"] * 0.6,
        box["y"] + box["height"] - 5,
    )
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    until(page, lambda: "lasso=" in page.url and tiles(page, "In the lasso"))
    inside = set(tiles(page, "In the lasso"))
    assert 0 < len(inside) < 48
    go(page, page.url)
    until(page, lambda: tiles(page, "In the lasso"))
    assert len(inside ^ set(tiles(page, "In the lasso"))) <= 1  # corners in an address are rounded
    found: set[str] = set()
    for place in range(page.locator(".map-legend button").count()):
        button = page.locator(".map-legend button").nth(place)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        page.wait_for_timeout(200)
        one = set(tiles(page, "In the lasso"))
        assert not one & found  # an item has one colour
        found |= one
    assert len(inside ^ found) <= 1


def test_a_server_that_asks_for_a_token(page: Any, browser: Any, views: list[tuple[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    options = Options(host="0.0.0.0", token_file=path, threads=1)
    with serving(application(held(views[0][1], options), options)) as address:
        made = browser.new_page()
        go(made, address)
        made.fill("#token", "wrong, and too short")
        made.keyboard.press("Enter")
        until(made, lambda: "That was not it" in made.inner_text("main"))
        made.fill("#token", TOKEN)
        made.keyboard.press("Enter")
        until(made, lambda: "Users" in made.inner_text("main"))
        made.evaluate("location.hash = '#/item/i1'")
        until(
            made,
            lambda: (
                made.locator(".item-of img").count() == 1
                and made.locator(".item-of img").evaluate("(one) => one.naturalWidth")
            ),
        )
        made.close()


def test_the_exported_page_opens_from_the_disk(page: Any, views: list[tuple[str, Any]], tmp_path: Path) -> None:
    done = export_page(View(views), tmp_path / "page", users=3, items=30)
    base = done.path.as_uri()
    go(page, base)
    assert "3 of 15 users" in page.inner_text(".notice")
    page.locator(".people a").first.click()
    until(page, lambda: "#/user/" in page.url and page.evaluate(SETTLED))
    assert len(tiles(page, "Recommended by em3")) == 20 and page.locator(".lists img").count() > 0
    until(
        page, lambda: page.evaluate("[...document.querySelectorAll('.lists img')].every((image) => image.naturalWidth)")
    )
    for view in ("cold", "map", "items?find=red", "item/i1"):
        go(page, f"{base}#/{view}")
        assert page.locator(".tile, canvas").count() > 0
    go(page, f"{base}#/try")
    assert "asks the model" in page.inner_text("main")
    go(page, f"{base}#/user/{'u' * 20}")
    assert "it needs a server" in page.inner_text("main")
