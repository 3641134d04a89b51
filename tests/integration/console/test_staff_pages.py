"""What staff see in a real browser: the admin finds, draws and operates; the console keeps itself up to date."""

import asyncio

import pytest
from django.contrib.auth import get_user_model

from orchestrator.db import run_db
from orchestrator.workflow import echo, sweep
from runners.models import ActorName
from tests.support import driven_browser
from tests.support.driven_browser import Browser, browsing
from tests.support.live import has_status, wake
from tests.support.management import make_actor
from tests.support.scripted_runner import SLEEP, ScriptedRunner

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(240)]

PASSWORD = "a password for tests alone"
UNLABELLED = """
return [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
    .filter((one) => !one.labels?.length && !one.ariaLabel && !one.title).map((one) => one.outerHTML)
"""
WIDER_THAN_ITS_WINDOW = "return document.documentElement.scrollWidth > window.innerWidth"
TAB = "\ue004"
PHONE, DESK = (390, 844), (1280, 900)


@pytest.fixture
def browser(tmp_path):
    if not driven_browser.is_installed():
        pytest.skip(driven_browser.MISSING)
    with browsing(tmp_path) as window:
        window.resize(*DESK)
        yield window


@pytest.fixture
def root(db) -> None:
    get_user_model().objects.create_superuser("root", password=PASSWORD)


def log_in(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.write("#id_username", "root")
    browser.write("#id_password", PASSWORD)
    browser.follow("[type=submit]")


async def slept(namespace, runner: ScriptedRunner) -> str:
    """Make an actor that has run and fallen asleep again."""
    actor = await run_db(make_actor, namespace, name="chat", key="lobby")
    await run_db(ActorName.objects.create, namespace=namespace, name="chat")
    await wake(actor.pk)
    await has_status(actor.pk, "running")
    await runner.say(actor.pk, SLEEP)
    await has_status(actor.pk, "asleep")
    return str(actor.pk)


def find_and_wake(browser: Browser, url: str, actor_id: str) -> None:
    log_in(browser, f"{url}/admin/actors/actor/")
    browser.write("#searchbar", "chat/lobby")
    browser.follow("#changelist-search [type=submit]")
    browser.follow(f"a[href*='/{actor_id}/change/']")
    assert {"Actor workflow", "StartActor", "running", "stopped"} <= set(browser.texts("svg.sequence text"))
    browser.picture("admin-actor")
    browser.follow(f"a[href*='/{actor_id}/timeline/']")
    browser.write("[name=generation]", "0")
    browser.follow("form.filter [type=submit]")
    browser.until_text("svg.sequence", "generation 0")
    browser.click("[data-copies]")
    browser.until_text("[data-copies]", "Copied")
    assert browser.copied().startswith("sequenceDiagram\n")
    browser.picture("admin-timeline")
    assert not browser.run(UNLABELLED)

    browser.open(f"{url}/admin/actors/actor/?q={actor_id}")
    browser.click("input.action-select")
    browser.click("select[name=action] option[value=wake]")
    browser.picture("admin-list")
    browser.follow("button[name=index]")
    browser.until_text("#content", "nothing has been done yet")
    browser.picture("admin-wake")
    browser.follow("[name=confirmed]")
    browser.until_text(".messagelist", "asked for")


def see_the_audit(browser: Browser, url: str, actor_id: str) -> None:
    browser.open(f"{url}/admin/orchestrator/auditentry/")
    browser.until_text("#result_list", actor_id)
    assert "wake" in browser.find("#result_list").text
    browser.picture("admin-audit")
    assert browser.complaints() == []


async def test_an_actor_is_found_drawn_woken_and_audited(browser, root, engine_url, host, worker, namespace):
    actor_id = await slept(namespace, await host())
    await asyncio.to_thread(find_and_wake, browser, engine_url, actor_id)
    await has_status(actor_id, "running")
    await asyncio.to_thread(see_the_audit, browser, engine_url, actor_id)


def watch(browser: Browser, url: str) -> None:
    log_in(browser, f"{url}/console/")
    browser.until_text("#live", "live")
    browser.until_text("[data-count=running]", "0")
    browser.run("window.sameAsBefore = true")


def see_the_wake(browser: Browser) -> None:
    browser.until_text("[data-count=running]", "1")
    browser.until_text("[data-piece=latency]", "Half took up to")
    assert browser.run("return window.sameAsBefore"), "the page was loaded again"
    browser.picture("console")
    assert not browser.run(UNLABELLED)


def watch_the_actor(browser: Browser, actor_id: str) -> None:
    browser.write("#find", "chat/lobby")
    browser.follow(".find button")
    browser.until_text("h1", actor_id)
    browser.until_text("#status", "running")
    browser.until_text("#live", "live")
    browser.run("document.querySelector('details').open = true")


def see_it_sleep(browser: Browser, url: str) -> None:
    browser.until_text("#status", "asleep")
    assert browser.run("return document.querySelector('details').open"), "what is open stays open"
    for name, size, dark in (("desk", DESK, False), ("phone-dark", PHONE, True)):
        browser.resize(*size)
        browser.darken(dark)
        browser.picture(f"console-actor-{name}")
        assert not browser.run(WIDER_THAN_ITS_WINDOW)
    browser.open(f"{url}/console/")
    browser.until_text("#live", "live")
    browser.picture("console-phone-dark")
    assert not browser.run(WIDER_THAN_ITS_WINDOW)
    browser.write("body", TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.complaints() == []


async def test_the_console_shows_a_wake_as_it_happens(browser, root, engine_url, host, worker, namespace):
    runner = await host()
    actor_id = await slept(namespace, runner)
    for queue in sweep.queues():
        await run_db(echo.answer, queue)
    await asyncio.to_thread(watch, browser, engine_url)
    await wake(actor_id)
    await asyncio.to_thread(see_the_wake, browser)
    await asyncio.to_thread(watch_the_actor, browser, actor_id)
    await runner.say(actor_id, SLEEP)
    await asyncio.to_thread(see_it_sleep, browser, engine_url)
