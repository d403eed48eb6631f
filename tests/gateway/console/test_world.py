"""The areas of the map, the products that it names, and the territory that a language suggests."""

import re

import pytest

from gateway.console.assets import assets
from gateway.console.texts import texts_in
from gateway.console.vendors import product_of, products
from gateway.console.world import GROUPS, places_in, territory_of_languages, world
from providers.registry import load_registry
from providers.territories import parse_places, territory_data
from scripts.world_map import position
from tests.kit.case_files import cases
from tests.kit.places import PLACES


def rings() -> dict[str, list[list[tuple[int, int]]]]:
    """Return the rings of each area, in the units of the map."""
    found = {}
    for code, path in re.findall(r'<path id="(\w+)"[^>]* d="([^"]+)"', assets()["world.svg"].body.decode()):
        found[code] = []
        for part in path.split("z")[:-1]:
            numbers = [int(number) for number in re.findall(r"-?\d+", part)]
            ring = [(numbers[0], numbers[1])]
            for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
                ring.append((ring[-1][0] + dx, ring[-1][1] + dy))
            found[code].append(ring)
    return found


def is_inside(point: tuple[float, float], parts: list[list[tuple[int, int]]]) -> bool:
    x, y = point
    inside = False
    for ring in parts:
        for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
                inside = not inside
    return inside


@pytest.mark.slow
def test_every_territory_has_a_place_and_all_but_four_have_an_area() -> None:
    areas, places = rings(), world().places
    names = territory_data().names.keys()
    assert places.keys() == names
    assert areas.keys() - names == {"none"}
    assert {code for code in names if not places[code].size} <= names - areas.keys() <= {"AQ", "BV", "TK", "VA"}
    for code, place in places.items():
        assert 0 < place.x < world().width, code
        assert 0 < place.y < world().height, code
    # A place is inside its area, so that a leader line ends there. A unit is rounded away for the smallest.
    outside = {code for code in areas.keys() & names if not is_inside(places[code].position, areas[code])}
    assert {code for code in outside if places[code].size > 30} == set()


@pytest.mark.slow
def test_each_place_is_in_the_area_of_the_territory_that_iso_3166_states() -> None:
    areas = rings()
    for code, latitude, longitude in PLACES:
        point = position(longitude, latitude)
        assert [name for name in areas if is_inside(point, areas[name])] == [code], (code, latitude, longitude)


def test_style_has_the_proportions_of_the_map() -> None:
    assert f"aspect-ratio: {world().width} / {world().height};" in assets()["map.css"].body.decode()


def test_each_provider_has_a_product_and_each_product_a_look_of_its_own() -> None:
    looks = [product.look for product in products()]
    assert looks == [*range(1, len(looks) + 1)]
    style = assets()["map.css"].body.decode()
    for look in looks:
        assert style.count(f"--k{look}: #") == 2, "a colour for light and one for dark"
    named = [provider for product in products() for provider in product.providers]
    assert sorted(named) == sorted(load_registry().adapters)


@cases("provider", "model", "title")
def test_product_is_that_of_the_model_and_then_that_of_the_provider(provider: str, model: str, title: str) -> None:
    assert product_of(provider, model).title("en") == title


@cases("origin", "title")
def test_host_in_the_own_network_is_an_own_server(origin: str, title: str) -> None:
    assert product_of("openai-compatible", "Qwen/Qwen3-8B", origin).title("en") == title
    assert product_of("dashscope", "qwen-plus", origin).title("en") == "Qwen (Alibaba)", "a relay of the vendor"


@cases("header", "code")
def test_language_suggests_a_territory(header: str, code: str | None) -> None:
    assert territory_of_languages(header) == code


SIX = "CH DE ES FR GB IT".split()


@pytest.mark.parametrize(
    ("words", "english", "chinese"),
    [
        (["*"], "anywhere", "任何地方"),
        ([], "nowhere", "没有任何地方"),
        (["*", "!CN"], "anywhere but China", "任何地方，除了中国内地"),
        (["@EEA", "CH"], "the European Economic Area, Switzerland", "欧洲经济区、瑞士"),
        (["US", "!US-CA"], "United States but not United States (US-CA)", "美国，但不包括美国 (US-CA)"),
        (SIX, "Switzerland, Germany, Spain, France, United Kingdom, Italy", "瑞士、德国、西班牙、法国、英国、意大利"),
        (
            [*SIX, "!US-CA", "US"],
            "CH, DE, ES, FR, GB, IT, US but not US-CA",
            "CH、DE、ES、FR、GB、IT、US，但不包括US-CA",
        ),
        (
            ["*", *(f"!{code}" for code in SIX)],
            "any but CH, DE, ES, FR, GB, IT",
            "任何地方，除了CH、DE、ES、FR、GB、IT",
        ),
    ],
)
def test_set_of_territories_has_the_names_of_the_language(words: list[str], english: str, chinese: str) -> None:
    places = parse_places(words).data()
    assert (places_in(texts_in("en"), places), places_in(texts_in("zh-Hans"), places)) == (english, chinese)


def test_every_group_of_territories_has_a_name() -> None:
    assert {*GROUPS} == {*territory_data().groups}
