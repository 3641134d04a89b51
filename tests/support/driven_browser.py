"""A real Chromium, driven over WebDriver."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_SECONDS = 20.0
MISSING = "Chromium and its driver are not installed (Debian: apt-get install chromium chromium-driver)"


def is_installed() -> bool:
    """Say whether the browser and its driver are on this machine."""
    return all(shutil.which(program) for program in ("chromium", "chromedriver"))


class Browser:
    """A window of a browser. Screenshots go to `directory`."""

    def __init__(self, driver: webdriver.Chrome, directory: Path) -> None:
        self.driver = driver
        self.directory = directory

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, css: str) -> WebElement:
        """Return the element, once it is there."""
        return WebDriverWait(self.driver, WAIT_SECONDS).until(lambda d: d.find_element(By.CSS_SELECTOR, css))

    def texts(self, css: str) -> list[str]:
        """Return the texts of all such elements, read in one step."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
        return self.driver.execute_script(script, css)

    def click(self, css: str) -> None:
        self.find(css).click()

    def follow(self, css: str) -> None:
        """Click on what leads to another page, and wait until that is here."""
        self.run("window.leaving = true")
        self.click(css)
        self.until("return !window.leaving && document.readyState === 'complete'")

    def until(self, script: str) -> None:
        """Wait until a script returns something true; while one page makes way for another it cannot."""
        wait = WebDriverWait(self.driver, WAIT_SECONDS, ignored_exceptions=[WebDriverException])
        wait.until(lambda driver: driver.execute_script(script))

    def write(self, css: str, text: str) -> None:
        self.find(css).send_keys(text)

    def until_text(self, css: str, text: str) -> None:
        """Wait until an element says so; read in one step, as it may be replaced at any time."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        WebDriverWait(self.driver, WAIT_SECONDS).until(lambda d: text in d.execute_script(script, css))

    def run(self, script: str) -> object:
        return self.driver.execute_script(script)

    def copied(self) -> str:
        """Return what is in the clipboard."""
        self.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
        script = (
            "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
        )
        return str(self.driver.execute_async_script(script))

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def darken(self, dark: bool) -> None:
        """Have pages think that the user likes it dark."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def picture(self, name: str) -> Path:
        path = self.directory / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def complaints(self) -> list[str]:
        """Return what went wrong in the pages; that there is no icon is none of it."""
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in severe if "/favicon.ico" not in message]


@contextmanager
def browsing(directory: Path) -> Iterator[Browser]:
    """Open a browser; screenshots go to `SCREENSHOTS` if that names a directory, else to `directory`."""
    kept = Path(os.environ.get("SCREENSHOTS") or directory)
    kept.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for switch in (
        "headless=new",
        "disable-dev-shm-usage",
        "disable-gpu",
        f"user-data-dir={directory / 'profile'}",
    ):
        options.add_argument(f"--{switch}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which Chromium cannot have as root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver, kept)
    finally:
        driver.quit()
