"""Write the silhouette of land and the points of territories for the console: `python -m scripts.world_map`. Needs npm.

The data is Natural Earth's, from the npm package `world-atlas`. It is projected once (Equal Earth). To update it, raise
`VERSION`, run the script and look at the page.
"""

from __future__ import annotations

import json
import math
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from babel.core import get_global

from providers.territories import territory_data, territory_name

VERSION = "2.0.2"
FOLDER = Path(__file__).parents[1] / "gateway/console/static"
LAND, POINTS = FOLDER / "land.svg", Path(__file__).parents[1] / "gateway/console/points.toml"

# The width of the map in its own units. Coordinates are whole units.
_WIDTH = 10_000
_NORTH, _SOUTH = 84.0, -58.0
# Deviations and islands below these sizes are left out of the silhouette. The marks show small territories.
_TOLERANCE, _MIN_AREA = 4.0, 60.0

# Territories without an identifier in `world-atlas`: latitude and longitude in degrees.
# Source: the field "Geographic coordinates" of the CIA World Factbook, which lists GF, GP, MQ, RE and YT on its page of
# France; for BQ the island Bonaire in GeoNames.
OTHER_POINTS: Mapping[str, tuple[float, float]] = {
    "BQ": (12.2, -68.27),
    "BV": (-54.43, 3.4),
    "CC": (-12.5, 96.83),
    "CX": (-10.5, 105.67),
    "GF": (4.0, -53.0),
    "GP": (16.25, -61.58),
    "MQ": (14.67, -61.0),
    "RE": (-21.1, 55.6),
    "SJ": (78.0, 20.0),
    "TK": (-9.0, -172.0),
    "XK": (42.58, 21.0),
    "YT": (-12.83, 45.17),
}

_Point = tuple[float, float]
_Ring = Sequence[_Point]
_ELLIPSE = (1.340264, -0.081106, 0.000893, 0.003796)
_SQRT3 = math.sqrt(3)


def equal_earth(longitude: float, latitude: float) -> _Point:
    """Return the position in the Equal Earth projection of the unit sphere, with y to the north.

    Šavrič, Patterson and Jenny, "The Equal Earth map projection", 2018, https://doi.org/10.1080/13658816.2018.1504949.
    """
    a1, a2, a3, a4 = _ELLIPSE
    theta = math.asin(_SQRT3 / 2 * math.sin(math.radians(latitude)))
    square = theta * theta
    sixth = square**3
    slope = 9 * a4 * sixth * square + 7 * a3 * sixth + 3 * a2 * square + a1
    x = 2 * _SQRT3 * math.radians(longitude) * math.cos(theta) / (3 * slope)
    return x, theta * (a4 * sixth * square + a3 * sixth + a2 * square + a1)


_SCALE = _WIDTH / (2 * equal_earth(180, 0)[0])
_TOP = equal_earth(0, _NORTH)[1]
HEIGHT = round((_TOP - equal_earth(0, _SOUTH)[1]) * _SCALE)


def position(longitude: float, latitude: float) -> _Point:
    """Return the position on the map in its units. A place south of the map is at its lower edge."""
    x, y = equal_earth(longitude, latitude)
    return _WIDTH / 2 + x * _SCALE, min((_TOP - y) * _SCALE, HEIGHT - 60.0)


def rings_of(topology: Any, geometry: Any) -> Iterator[list[_Point]]:
    """Yield the outer ring of each polygon of a TopoJSON geometry, as longitudes and latitudes."""
    scale, translate = topology["transform"]["scale"], topology["transform"]["translate"]

    def arc_points(number: int) -> list[_Point]:
        x = y = 0
        points = []
        for dx, dy in topology["arcs"][number if number >= 0 else ~number]:
            x, y = x + dx, y + dy
            points.append((x * scale[0] + translate[0], y * scale[1] + translate[1]))
        return points if number >= 0 else points[::-1]

    if geometry["type"] == "GeometryCollection":
        for member in geometry["geometries"]:
            yield from rings_of(topology, member)
        return
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]
    for polygon in polygons:
        ring: list[_Point] = []
        for number in polygon[0]:
            ring += arc_points(number)[1 if ring else 0 :]
        yield ring


def area_and_centroid(ring: _Ring) -> tuple[float, _Point]:
    """Return the area of a ring in the plane, and its centroid."""
    twice = x = y = 0.0
    first = ring[0]  # subtracted, so that the cross products of a small ring stay exact
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], first], strict=True):
        cross = (x1 - first[0]) * (y2 - first[1]) - (x2 - first[0]) * (y1 - first[1])
        twice += cross
        x += (x1 + x2 - 2 * first[0]) * cross
        y += (y1 + y2 - 2 * first[1]) * cross
    if twice == 0:
        return 0.0, first
    return abs(twice) / 2, (first[0] + x / (3 * twice), first[1] + y / (3 * twice))


def simplify(ring: _Ring, tolerance: float) -> list[_Point]:
    """Return the ring without points that deviate less than the tolerance (Douglas and Peucker)."""
    keep = [False] * len(ring)
    keep[0] = keep[-1] = True
    spans = [(0, len(ring) - 1)]
    while spans:
        start, end = spans.pop()
        (x1, y1), (x2, y2) = ring[start], ring[end]
        length = math.hypot(x2 - x1, y2 - y1)
        farthest, distance = start, 0.0
        for index in range(start + 1, end):
            x, y = ring[index]
            offset = abs((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / length if length else math.hypot(x - x1, y - y1)
            if offset > distance:
                farthest, distance = index, offset
        if distance > tolerance:
            keep[farthest] = True
            spans += [(start, farthest), (farthest, end)]
    return [point for point, is_kept in zip(ring, keep, strict=True) if is_kept]


def within_map(ring: _Ring) -> Iterator[_Ring]:
    """Yield the parts of a ring between the two edges of the map. A ring may cross the 180th meridian."""
    shift, before, points = 0.0, ring[0][0], []
    for longitude, latitude in ring:
        if abs(longitude - before) > 180:
            shift += 360.0 if longitude < before else -360.0
        before = longitude
        points.append((longitude + shift, latitude))
    for turn in (-360.0, 0.0, 360.0):
        turned = [(longitude + turn, latitude) for longitude, latitude in points]
        part = _clipped(_clipped(turned, 180.0, 1), -180.0, -1)
        if len(part) > 2:
            yield [*part, part[0]]


def _clipped(ring: _Ring, meridian: float, side: int) -> list[_Point]:
    """Return the part of a ring on the inner side of a meridian (Sutherland and Hodgman)."""
    kept: list[_Point] = []
    for (x1, y1), (x2, y2) in pairwise([ring[-1], *ring] if ring else []):
        is_inside, was_inside = (x2 - meridian) * side <= 0, (x1 - meridian) * side <= 0
        if is_inside != was_inside:
            kept.append((meridian, y1 + (y2 - y1) * (meridian - x1) / (x2 - x1)))
        if is_inside:
            kept.append((x2, y2))
    return kept


def land_path(rings: Iterable[_Ring]) -> str:
    """Return the silhouette as one SVG path with relative whole units."""
    parts = []
    for ring in (part for whole in rings for part in within_map(whole)):
        if max(latitude for _, latitude in ring) < _SOUTH:
            continue
        projected = [position(*point) for point in ring]
        if area_and_centroid(projected)[0] < _MIN_AREA:
            continue
        points = [(round(x), round(y)) for x, y in simplify(projected, _TOLERANCE)]
        distinct = [point for point, before in zip(points, [None, *points], strict=False) if point != before]
        if len(distinct) < 4:
            continue
        # The first point is also the last one: `z` closes the path.
        moves = [f"{x2 - x1},{y2 - y1}" for (x1, y1), (x2, y2) in pairwise(distinct[:-1])]
        parts.append(f"M{distinct[0][0]},{distinct[0][1]}l{' '.join(moves)}z")
    return "".join(parts)


def territory_points(countries: Any) -> dict[str, _Point]:
    """Return the point of each territory: the centroid of its largest polygon, or that of the table above."""
    codes = {number: listed[0] for number, listed in get_global("territory_aliases").items() if number.isdigit()}
    names = territory_data().names
    points = {code: position(longitude, latitude) for code, (latitude, longitude) in OTHER_POINTS.items()}
    largest: dict[str, float] = {}
    for geometry in countries["objects"]["countries"]["geometries"]:
        code = codes.get(geometry.get("id", ""), "")
        if code not in names:
            continue
        for ring in rings_of(countries, geometry):
            area, centroid = area_and_centroid([position(*point) for point in ring])
            if area >= largest.get(code, 0.0):
                largest[code], points[code] = area, centroid
    if missing := sorted(names.keys() - points.keys()):
        raise SystemExit(f"no point for {', '.join(missing)}: add them to OTHER_POINTS with their source")
    return points


def notice(licence: str) -> list[str]:
    """Return the source of the data and its licence, a line each."""
    return [
        "Written by `python -m scripts.world_map`; do not edit.",
        f"Source: Natural Earth 4.1.0 (public domain), from https://www.npmjs.com/package/world-atlas/v/{VERSION}",
        "",
        *licence.strip().splitlines(),
    ]


def main() -> None:
    """Fetch the package with npm, which verifies it, and write the two files."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"world-atlas@{VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # a fixed command
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            package.extractall(folder, filter="data")
        root = Path(folder, "package")
        land, countries = (
            json.loads((root / name).read_text("utf-8")) for name in ("land-50m.json", "countries-10m.json")
        )
        licence = (root / "LICENSE").read_text("utf-8")
    path = land_path(rings_of(land, land["objects"]["land"]))
    comment = "\n".join(notice(licence)).replace("--", "-")
    box = f'viewBox="0 0 {_WIDTH} {HEIGHT}"'
    LAND.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<!--\n{comment}\n-->\n<path id="land" d="{path}"/>\n</svg>\n',
        "utf-8",
    )
    head = "\n".join(f"# {line}".rstrip() for line in notice(licence))
    rows = [
        f"{code} = [{round(x)}, {round(y)}] # {territory_name(code)}"
        for code, (x, y) in sorted(territory_points(countries).items())
    ]
    size = f"width = {_WIDTH}\nheight = {HEIGHT}"
    about = "# The position of each territory on the map of `static/land.svg`."
    text = f'{about}\n{head}\n\nworld_atlas = "{VERSION}"\n{size}\n\n[points]\n' + "\n".join(rows) + "\n"
    POINTS.write_text(text, "utf-8")
    print(f"wrote {LAND.name} ({len(path) // 1024} KB) and {POINTS.name}: world-atlas {VERSION}")


if __name__ == "__main__":
    main()
