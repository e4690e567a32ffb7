"""Every picture of the service, the report and Argilla in the docs and the README, from one rehearsal run.

Starts a service on runs of its own, starts a run there and looks at it with Chromium; sends rows to an Argilla server
and looks at one there. Writes docs/*.png. Run it with `python docs/pictures.py`, then look at each: it takes two
minutes. What does not come is named, with the run's state, and nothing is waited for in vain; docs/review.png stays as
it is where argilla-server is not installed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from curation.review.serve import serving
from service.http.tokens import Tokens
from service.store import Store

DOCS = Path(__file__).parent
NAME = "spring"
RUN = {
    "name": NAME,
    "config": {
        "seed": 5,
        "prompts": {"harmful": 40, "benign": 24},
        "variants": ["direct", "improved", "short", "nocot"],
        "roles": {"reasoning": "rehearsal"},
        "judging": {"judges": ["rehearsal-judge", "rehearsal-guard"]},
    },
}
# What is waited for at most, by us and by the browser.
_PATIENCE_S = 120
_MOVING = ("queued", "running", "cancelling")


def served(runs: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A service on these runs, and its address. What it prints goes to a file: a pipe that nobody reads would fill."""
    command = [sys.executable, "-m", "saferthoughts", "--runs", str(runs), "serve", "--port", "0", "--rate", "1000"]
    log = runs.parent / "service.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    until = time.monotonic() + _PATIENCE_S
    while "login?code=" not in (printed := log.read_text()):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise SystemExit(f"The service did not start: {printed or 'it says nothing'}")
        time.sleep(0.1)
    return process, printed.split()[-1].partition("/login")[0]


def state_where(client: httpx.Client, what: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The run's state as soon as it fits; a run that is over, or too slow, without having fitted ends the script."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        answer = client.get(f"/runs/{NAME}")
        state: dict[str, Any] = answer.raise_for_status().json()
        if fits(state):
            return state
        if state["state"] not in _MOVING or time.monotonic() > until:
            problem = state["problem"] or state["job"]["message"]
            raise SystemExit(f"Waited for {what}; the run is {state['state']} at {state['stage']}. {problem}")
        time.sleep(0.05)


def verdicts_come(progress: dict[str, Any]) -> bool:
    """Whether a run under way has some verdicts."""
    stage: str = progress["stage"]
    return (stage == "judge" and progress["done"] > 20) or stage in ("repair", "check", "release")


def take(page: Page, url: str, name: str, ready: str, height: int = 900, width: int = 1360) -> None:
    """A picture of a page as soon as it shows what it is to show."""
    page.set_viewport_size({"width": width, "height": height})
    page.goto(url)
    page.locator(ready).first.wait_for()
    page.screenshot(path=DOCS / f"{name}.png")


def pictures(page: Page, client: httpx.Client, url: str) -> None:
    """Take them in the order in which the run comes to them."""
    answer = client.post("/runs", json=RUN)
    assert answer.status_code == 202, answer.text
    # Or later: judging may be over between two looks.
    state_where(client, "verdicts", lambda state: bool(at := state["progress"]) and verdicts_come(at))
    take(page, f"{url}/ui/runs/{NAME}", "service-run", "#live progress", 900, 1180)
    state_where(client, "the release", lambda state: state["state"] == "released")
    rows = client.get(f"/runs/{NAME}/rows", params={"where": ["variant:eq:direct", "patterns:ge:1"]}).json()["rows"]
    row = f"{url}/ui/runs/{NAME}/rows/{rows[0]['prompt_id']}?at={rows[0]['response_id']}"
    take(page, row, "service-rows", "article mark", 980, 1180)
    take(page, f"{url}/ui/runs/{NAME}/release", "service-release", ".card-text", 1100, 1180)
    take(page, f"{url}/runs/{NAME}/report", "report", "figure svg")


def review(page: Page, client: httpx.Client, runs: Path) -> None:
    """A row as a person has it in Argilla."""
    argilla = client.get("/argilla").json()
    if argilla["state"] != "stopped" or argilla["problem"]:
        print(f"docs/review.png stays as it is. {argilla['problem'] or 'Another Argilla is named in the environment.'}")
        return
    with serving(runs / ".argilla", 0, 1, lambda line: None) as running:
        assert client.post(f"/runs/{NAME}/review", json={"rows": 32}).status_code == 202
        state_where(client, "rows at Argilla", lambda state: state["job"]["state"] == "done")
        person = next(one for one in running.new_accounts if one["role"] == "annotator")
        page.set_viewport_size({"width": 1200, "height": 800})
        page.goto(f"{running.url}/sign-in")
        page.locator("input").first.fill(person["username"])
        page.locator("input[type=password]").fill(person["password"])
        page.keyboard.press("Enter")
        page.get_by_text(re.compile(rf"^{NAME}-[0-9a-f]{{8}}$")).first.click()
        page.get_by_text("Is the whole response safe?").wait_for()
        page.screenshot(path=DOCS / "review.png", animations="disabled")


def main() -> None:
    """Make all of them."""
    folder = Path(tempfile.mkdtemp())
    service, url = served(folder / "runs")
    try:
        secret = Tokens(Store(folder / "runs")).add("anna", "publish")
        with (
            sync_playwright() as started,
            httpx.Client(base_url=url, headers={"authorization": f"Bearer {secret}"}, timeout=300) as client,
        ):
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(color_scheme="light")
            page.set_default_timeout(1000 * _PATIENCE_S)
            page.goto(f"{url}/login")
            page.get_by_label("Token").fill(secret)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("link", name="Go to the runs").click()
            pictures(page, client, url)
            review(page, client, folder / "runs")
            browser.close()
    finally:
        service.terminate()
        try:
            service.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            service.kill()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
