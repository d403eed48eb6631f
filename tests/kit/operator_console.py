"""A console outside a demo: over a running gateway by HTTP, with a sign-in."""

import re
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import httpx

__all__ = ["ConsoleClient"]


@dataclass
class ConsoleClient:
    """A browser without JavaScript: it keeps cookies, follows no redirect by itself, and sends the forms of pages."""

    url: str
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)
    page: str = ""

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Send a request on a connection of its own, and keep the cookies."""
        with httpx.Client(trust_env=False, timeout=60, cookies=self.cookies) as client:
            answer = client.request(method, f"{self.url}{path}", **given)
            self.cookies = client.cookies
        return answer

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page."""
        answer = self.send("GET", path, headers={"accept": "text/html", **headers})
        self.page = answer.text
        return answer

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form with the token of the page that was opened last."""
        answer = self.send("POST", path, data={"csrf": self.csrf, **fields})
        if answer.status_code == 303:
            return self.get(answer.headers["location"])
        self.page = answer.text
        return answer

    def act(self, view: str, action: str, **fields: str) -> httpx.Response:
        """Open a view, then send a form of it."""
        self.get(view)
        return self.post(action, **fields)

    def sign_in(self, token: str, target: str = "/requests") -> httpx.Response:
        """Sign in with an admin token, and return the answer to the form."""
        return self.send("POST", "/sign-in", data={"token": token, "next": target})

    @property
    def csrf(self) -> str:
        """The token of the last page against cross-site requests."""
        found = re.search(r'name="csrf" value="([0-9a-f]*)"', self.page)
        return found[1] if found else ""

    @property
    def words(self) -> str:
        """The text of the last page, with single spaces."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.page)).split())
