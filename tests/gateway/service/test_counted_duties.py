"""Each referral, refusal and notice is counted once, in each chat API, whole and as a stream."""

from pathlib import Path

import pytest

from gateway.installation import duty_sums
from tests.kit.crisis_gateway import CRISIS, SAD, US, CrisisWorld
from tests.kit.judged_chats import CONFIG as JUDGED
from tests.kit.judged_chats import EACH_CHAT, ask
from tests.kit.timed_gateway import TimedGateway, headers


def counted(directory: Path) -> dict[tuple[str, str, str, str], int]:
    sums = duty_sums(None, directory, ("2000-01", "2999-12"))
    return {(key.region, key.assistant, key.age_band, key.kind): number for key, number in sums.items()}


@pytest.mark.parametrize("then", ["stop", "answer"])
@EACH_CHAT
def test_each_kind_is_counted_once_a_request(tmp_path: Path, dialect: str, stream: bool, then: str) -> None:
    judge = {"deployments": {"judge": JUDGED.data["deployments"]["judge"]}}
    region = {"regions": {"us-ca": {"crisis": {**CRISIS, "then": then, "text": {"en": US}}}}}
    served = TimedGateway(tmp_path, CrisisWorld(), judge, region)

    def chat(text: str, sub: str | None = "anna") -> int:
        return ask(served, dialect, text, stream=stream, headers=headers("child", sub)).status_code

    # A notice, then a referral, and the limit of the session, which the help goes beyond.
    assert [chat("Hello."), chat(SAD)] == [200, 200]
    served.wait(20)
    assert chat("Hello again.") == 200
    served.wait(25)
    assert chat("Hello again and again.") == 200
    served.wait(20)
    assert [chat("And now?"), chat(SAD), chat("Hello, I am unknown.", None)] == [403, 200, 403]
    found = {kind: number for (*_, kind), number in counted(tmp_path).items()}
    # The help beyond the limit shows the label too.
    assert found == {"crisis": 2, "use_session": 1, "use_unknown": 1, "notice": 5}
    assert set(counted(tmp_path)) == {("us-ca", "assistant", "child", kind) for kind in found}
