"""The form of API keys."""

from gateway.model.api_key import SECRET_LENGTH, compose_key, digest_of, read_key
from gateway.service.client_admin import new_key
from providers.auth import Secret


def test_new_key_is_read_with_its_cell_and_id() -> None:
    key = new_key("eu-1")
    assert read_key(key.text) == key
    start, cell, key_id, secret, checksum = key.text.split("_")
    assert (start, cell, key_id, len(secret), len(checksum)) == ("agw", "eu-1", key.id, SECRET_LENGTH, 6)
    assert key.text not in repr(key)
    assert new_key("eu-1").text != key.text


def test_key_with_a_mistake_is_not_read() -> None:
    text = compose_key("local", "abc", "x" * 43).text
    for wrong in (
        text[:-1],
        text.replace("x", "y", 1),
        f"{text} ",
        text.upper(),
        f"{text}_1",
        "agw_a",
        "gk-1",
        "agw_é",
    ):
        assert read_key(wrong) is None


def test_digest_depends_on_the_pepper() -> None:
    key = b"agw_local_abc_secret_123456"
    assert digest_of(Secret("a" * 32), key) == digest_of(Secret("a" * 32), key)
    assert digest_of(Secret("b" * 32), key) != digest_of(Secret("a" * 32), key)
