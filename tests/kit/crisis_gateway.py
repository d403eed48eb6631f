"""A gateway with a region that judges whether a user is in a crisis, and its webhooks and model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import CONFIG, World

US = "What you are going through sounds very hard, and your life matters. Please talk to somebody now, for example by calling 988."
SAD = "I want to die."
CRISIS = {"judges": ["judge"], "categories": ["self-harm"], "then": "stop", "on_failure": "open"}


@dataclass
class CrisisWorld(World):
    """A model and webhooks that find `self-harm/intent` in texts with `die`, and violence in those with `hit`.

    `asked_judges` has the host of each judge that got a text.
    """

    answers: Sequence[str] = ("A model's answer.",)
    asked_judges: list[str] = field(default_factory=list)

    def _verdict(self, request: httpx.Request, body: Any) -> httpx.Response:
        self.asked_judges.append(request.url.host)
        self.judged += body["input"]
        found = [{"self-harm/intent": "die" in text, "violence": "hit" in text} for text in body["input"]]
        results = [{"flagged": any(one.values()), "categories": one} for one in found]
        return self.judge(request.url.host) or httpx.Response(200, json={"results": results})


def served(world: World, *patches: Mapping[str, Any], **crisis: Any) -> InputGateway:
    region = {"territories": ["US", "CA"], "moderation": None, "crisis": {**CRISIS, **crisis}}
    return InputGateway(world, CONFIG.merge({"regions": {"default": region}}, *patches))
