"""Take the pictures of the console for the documentation: `make docs-pictures`. Look at each picture afterwards.

It starts a demo and Debian's Chromium, and does what the documentation describes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.console_pictures import take_views
from tests.kit.browsers import LIMIT_MS, chromium

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/images"
_ROUTE = "default: [gemini, qwen-hk, qwen-intl]"


@contextmanager
def running_demo(folder: Path) -> Iterator[str]:
    """Run a demo with a copy of its configuration in this folder, and yield its URL."""
    (folder / "demo.yaml").write_text((ROOT / "config/demo.yaml").read_text("utf-8"), "utf-8")
    command = [sys.executable, "-m", "gateway", "demo", "--config", "demo.yaml", "--port", "0"]
    process = subprocess.Popen(  # noqa: S603  # a fixed command
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101  # it is piped
        shown = ""
        while "Ctrl-C" not in shown:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the demo has ended:\n{shown}")
            shown += line
        found = re.search(r"listens on (\S+)\.", shown)
        if found is None:
            raise SystemExit(f"the demo printed no address:\n{shown}")
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def take(browser: Any, url: str, folder: Path) -> None:
    """Take every picture."""
    page = _opened(browser, f"{url}/?territory=HK", 1440, "light")
    _fail_once(page)
    frame = page.locator("main").bounding_box()
    clip = {"x": 0, "y": 0, "width": 1440, "height": frame["y"] + frame["height"] + 16}
    page.screenshot(path=FOLDER / "console.png", full_page=True, clip=clip)
    page.click("#heal")
    page.context.close()

    page = _opened(browser, f"{url}/?territory=HK", 360, "light", scale=2)
    page.screenshot(path=FOLDER / "console-phone.png", clip={"x": 0, "y": 0, "width": 360, "height": 780})
    page.context.close()

    page = _opened(browser, f"{url}/?territory=JP", 1440, "dark")
    text = (folder / "demo.yaml").read_text("utf-8")
    edit = text.replace(_ROUTE, "default: [chatgpt-us, gemini, qwen-hk, qwen-intl]")
    (folder / "demo.yaml").write_text(edit, "utf-8")
    page.wait_for_selector(".changes h4")
    (folder / "demo.yaml").write_text(text.replace("cn: [qwen-cn]", "cn: [qwen-cm]"), "utf-8")
    page.wait_for_selector(".config .problem")
    page.wait_for_timeout(3000)  # the end of the animation of the outlines
    page.screenshot(path=FOLDER / "console-edit.png", clip={"x": 0, "y": 0, "width": 1440, "height": 820})
    page.context.close()


def _opened(browser: Any, address: str, width: int, scheme: str, scale: int = 1) -> Any:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=scale
    )
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    page.goto(address)
    return page


def _fail_once(page: Any) -> None:
    """Give Qwen in Hong Kong a fault, and ask a question."""
    page.select_option('select[data-fault="qwen-hk"]', "500")
    page.wait_for_selector("select.broken")
    page.click("#ask button")
    page.wait_for_selector("#attempts li")


def main() -> None:
    """Take the pictures, and print their names."""
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as url, chromium() as browser:
        take(browser, url, Path(folder))
        take_views(browser, Path(folder), FOLDER)
    for path in sorted(FOLDER.glob("console*.png")):
        print(f"took {path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
