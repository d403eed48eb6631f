"""Write the areas of the territories for the map of the console: `python -m scripts.world_map`. Needs npm.

The data is Natural Earth's, from the npm package `world-atlas`. It is simplified and projected once (Equal Earth). To
update it, raise `VERSION`, run the script and look at the page.
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
ROOT = Path(__file__).parents[1]
AREAS, POINTS = ROOT / "gateway/console/static/world.svg", ROOT / "gateway/console/world.toml"

# The width of the map in its own units. Coordinates are whole units.
_WIDTH = 100_000
_NORTH, _SOUTH = 84.0, -58.0
# In degrees: the largest and the smallest deviation of a border, and the part of a territory's diameter that it may be.
_TOLERANCE, _LEAST_TOLERANCE, _OF_DIAMETER = 0.06, 0.002, 0.015
# An island is left out if it is below this many square degrees, and below this part of its territory's largest one.
_MIN_AREA, _OF_LARGEST = 0.02, 0.05

# Features of Natural Earth without a code of ISO 3166, and the territory whose code counts there. The others
# (the Siachen Glacier, reefs that several countries claim) have no code: they are drawn as land without an answer.
OWNERS: Mapping[str, str] = {
    "Akrotiri": "CY",
    "Baikonur": "KZ",
    "Clipperton I.": "FR",
    "Coral Sea Is.": "AU",
    "Cyprus U.N. Buffer Zone": "CY",
    "Dhekelia": "CY",
    "Kosovo": "XK",
    "N. Cyprus": "CY",
    "Somaliland": "SO",
    "USNB Guantanamo Bay": "CU",
}
NEUTRAL = "none"

# Parts of a feature that have a code of their own: west, south, east and north in degrees.
# ISO 3166-2 lists Crimea as UA-43 and UA-40; Natural Earth's default draws who administers it.
PARTS: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
    "France": {
        "GF": (-55, 1, -51, 7),
        "GP": (-62, 15.8, -60.9, 16.6),
        "MQ": (-61.4, 14.3, -60.7, 15),
        "RE": (55, -22, 56, -20),
        "YT": (44.8, -13.2, 45.5, -12.5),
    },
    "Norway": {"SJ": (-10, 70, 36, 82), "BV": (3, -55, 4, -54)},
    "Netherlands": {"BQ": (-69, 11.8, -62.8, 18)},
    "New Zealand": {"TK": (-173, -10, -171, -8)},
    "Indian Ocean Ter.": {"CC": (96, -13, 97.5, -11), "CX": (105, -11, 106, -10)},
    "Russia": {"UA": (32.3, 44.2, 36.7, 46.3)},
}
# The northern border of Western Sahara (EH). Natural Earth's default draws who administers its west.
_SAHARA = 27.6667

# Territories that `world-atlas` leaves out, or that are smaller than a unit: latitude and longitude in degrees.
# Source: the field "Geographic coordinates" of the CIA World Factbook.
OTHER_POINTS: Mapping[str, tuple[float, float]] = {
    "AQ": (-90.0, 0.0),
    "BV": (-54.43, 3.4),
    "TK": (-9.0, -172.0),
    "VA": (41.9, 12.45),
}

_Point = tuple[float, float]
_Ring = Sequence[_Point]
_Edges = dict[tuple[_Point, _Point], None]
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
    return _WIDTH / 2 + x * _SCALE, min((_TOP - y) * _SCALE, HEIGHT - 900.0)


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


def simplify(line: _Ring, tolerance: float) -> list[_Point]:
    """Return the line without points that deviate less than the tolerance (Douglas and Peucker)."""
    keep = [False] * len(line)
    keep[0] = keep[-1] = True
    spans = [(0, len(line) - 1)]
    # A degree of longitude is shorter than one of latitude. The line of a whole island starts where it ends.
    narrow = max(math.cos(math.radians(line[0][1])), 0.2)
    while spans:
        start, end = spans.pop()
        (x1, y1), (x2, y2) = line[start], line[end]
        dx, dy = (x2 - x1) * narrow, y2 - y1
        length = math.hypot(dx, dy)
        farthest, distance = start, 0.0
        for index in range(start + 1, end):
            x, y = (line[index][0] - x1) * narrow, line[index][1] - y1
            offset = abs(dx * y - x * dy) / length if length else math.hypot(x, y)
            if offset > distance:
                farthest, distance = index, offset
        if distance > tolerance:
            keep[farthest] = True
            spans += [(start, farthest), (farthest, end)]
    return [point for point, is_kept in zip(line, keep, strict=True) if is_kept]


def lines_of(topology: Any) -> list[list[_Point]]:
    """Return the arcs of a topology as longitudes and latitudes, which neighbours share."""
    scale, translate = topology["transform"]["scale"], topology["transform"]["translate"]
    lines = []
    for arc in topology["arcs"]:
        x = y = 0
        line: list[_Point] = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            longitude = x * scale[0] + translate[0]
            line.append((round(longitude, 5), round(y * scale[1] + translate[1], 5)))
        lines.append(line)
    return lines


def polygons_of(geometry: Any) -> list[list[list[int]]]:
    """Return the polygons of a geometry, as rings of numbers of arcs."""
    arcs: list[list[list[int]]] = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]
    return arcs


def joined(ring: Iterable[int], lines: Sequence[_Ring]) -> list[_Point]:
    """Return a ring of arcs as its points. A negative number is an arc in the other direction."""
    points: list[_Point] = []
    for number in ring:
        line = lines[number] if number >= 0 else lines[~number][::-1]
        points += line[1 if points else 0 :]
    return points


def code_of(name: str, number: str, ring: _Ring) -> str:
    """Return the ISO 3166 code of a polygon of a feature."""
    longitude, latitude = area_and_centroid(ring)[1]
    for code, (west, south, east, north) in PARTS.get(name, {}).items():
        is_outside_norway = code != "SJ" or latitude > 74 or longitude < 0
        if west < longitude < east and south < latitude < north and is_outside_norway:
            return code
    codes = get_global("territory_aliases")
    return OWNERS.get(name) or (codes[number][0] if number in codes else NEUTRAL)


def territory_rings(topology: Any) -> dict[str, list[list[_Point]]]:
    """Return the rings of each territory, simplified. Neighbours have the same border."""
    lines = lines_of(topology)
    polygons: dict[str, list[list[list[int]]]] = {}
    for geometry in topology["objects"]["countries"]["geometries"]:
        for polygon in polygons_of(geometry):
            ring = joined(polygon[0], lines)
            code = code_of(geometry["properties"]["name"], geometry.get("id", ""), ring)
            polygons.setdefault(code, []).append(polygon)
    largest = {
        code: max(area_and_centroid(joined(polygon[0], lines))[0] for polygon in listed)
        for code, listed in polygons.items()
    }
    tolerance = [_TOLERANCE] * len(lines)
    edges: dict[str, _Edges] = {}
    for code, listed in polygons.items():
        kept = min(_TOLERANCE, max(_LEAST_TOLERANCE, math.sqrt(largest[code]) * _OF_DIAMETER))
        for number in (number for polygon in listed for ring in polygon for number in ring):
            number = number if number >= 0 else ~number
            tolerance[number] = min(tolerance[number], kept)
    simple = [simplify(line, most) for line, most in zip(lines, tolerance, strict=True)]
    for code, listed in polygons.items():
        own = edges.setdefault(code, {})
        for polygon in listed:
            size = area_and_centroid(joined(polygon[0], lines))[0]
            if size < min(_MIN_AREA, _OF_LARGEST * largest[code]):
                continue
            for numbers in polygon:
                own.update(dict.fromkeys(pairwise(joined(numbers, simple))))
    south = [_clipped(ring, _SAHARA, -1, axis=1) for ring in _chained(edges["MA"])]
    north = [_clipped(ring, _SAHARA, 1, axis=1) for ring in _chained(edges["MA"])]
    edges["EH"].update(dict.fromkeys(edge for ring in south if ring for edge in pairwise([*ring, ring[0]])))
    edges["MA"] = dict.fromkeys(edge for ring in north if ring for edge in pairwise([*ring, ring[0]]))
    return {code: list(_chained(own)) for code, own in edges.items()}


def _chained(edges: _Edges) -> Iterator[list[_Point]]:
    """Yield the rings of edges. A border inside the territory has an edge in each direction, and is left out."""
    following: dict[_Point, list[_Point]] = {}
    for start, end in edges:
        if start != end and (end, start) not in edges:
            following.setdefault(start, []).append(end)
    while following:
        start = next(iter(following))
        ring = [start]
        while ring[-1] in following:
            ends = following[ring[-1]]
            ring.append(ends.pop())
            if not ends:
                del following[ring[-2]]
            if ring[-1] == start:
                break
        if len(ring) > 3:
            yield ring[:-1]


def within_map(ring: _Ring) -> Iterator[list[_Point]]:
    """Yield the parts of a ring between the edges of the map. A ring may cross the 180th meridian."""
    shift, before, points = 0.0, ring[0][0], []
    for longitude, latitude in ring:
        if abs(longitude - before) > 180:
            shift += 360.0 if longitude < before else -360.0
        before = longitude
        points.append((longitude + shift, latitude))
    for turn in (-360.0, 0.0, 360.0):
        part: list[_Point] = [(longitude + turn, latitude) for longitude, latitude in points]
        part = _clipped(_clipped(_clipped(part, 180.0, -1), -180.0, 1), _SOUTH, 1, axis=1)
        if len(part) > 2:
            yield part


def _clipped(ring: _Ring, limit: float, side: int, axis: int = 0) -> list[_Point]:
    """Return the part of a ring on one side of a meridian or a parallel (Sutherland and Hodgman)."""
    kept: list[_Point] = []
    for before, here in pairwise([ring[-1], *ring] if ring else []):
        is_inside, was_inside = (here[axis] - limit) * side >= 0, (before[axis] - limit) * side >= 0
        if is_inside != was_inside:
            part = (limit - before[axis]) / (here[axis] - before[axis])
            x, y = (before[i] + (here[i] - before[i]) * part for i in (0, 1))
            kept.append((x, y))
        if is_inside:
            kept.append(here)
    return kept


def on_map(rings: Iterable[_Ring]) -> list[list[tuple[int, int]]]:
    """Return rings in the units of the map."""
    parts = []
    for part in (part for ring in rings for part in within_map(ring)):
        points = [(round(x), round(y)) for x, y in (position(*point) for point in part)]
        distinct = [point for point, before in pairwise([*points, points[0]]) if point != before]
        if len(distinct) > 2:
            parts.append(distinct)
    return parts


def path_of(parts: Iterable[Sequence[tuple[int, int]]]) -> str:
    """Return rings as one SVG path with relative whole units. `z` closes a ring."""
    return "".join(
        f"M{ring[0][0]},{ring[0][1]}l{' '.join(f'{x2 - x1},{y2 - y1}' for (x1, y1), (x2, y2) in pairwise(ring))}z"
        for ring in parts
    ).replace(",-", "-").replace(" -", "-")  # fmt: skip


def inner_circle(parts: Sequence[Sequence[tuple[int, int]]]) -> tuple[float, _Point]:
    """Return the radius and the centre of about the largest circle in the largest ring."""
    ring = max(parts, key=lambda part: area_and_centroid(part)[0])
    edges = list(pairwise([*ring, ring[0]]))
    xs, ys = [x for x, _ in ring], [y for _, y in ring]
    step = max(max(xs) - min(xs), max(ys) - min(ys), 1) / 2
    centre: _Point = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    best, cells = (-math.inf, centre), 12
    while cells:
        offsets = [step * number / cells for number in range(-cells, cells + 1)]
        grid = [(centre[0] + dx, centre[1] + dy) for dx in offsets for dy in offsets]
        best = max(best, *((_inside_by(point, edges), point) for point in grid))
        centre, step, cells = best[1], step / cells, 4 if cells == 12 else 0
    return best


def _inside_by(point: _Point, edges: Sequence[tuple[_Point, _Point]]) -> float:
    """Return the distance to the border; negative outside."""
    x, y = point
    is_inside, least = False, math.inf
    for (x1, y1), (x2, y2) in edges:
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            is_inside = not is_inside
        dx, dy = x2 - x1, y2 - y1
        along = min(1.0, max(0.0, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy))) if dx or dy else 0.0
        least = min(least, math.hypot(x - x1 - along * dx, y - y1 - along * dy))
    return least if is_inside else -least


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
        countries = json.loads((root / "countries-10m.json").read_text("utf-8"))
        licence = (root / "LICENSE").read_text("utf-8")
    names = territory_data().names
    shapes = {code: on_map(rings) for code, rings in territory_rings(countries).items() if code in {*names, NEUTRAL}}
    shapes = {code: parts for code, parts in shapes.items() if parts}
    rows = {code: (0.0, 0.0, position(longitude, latitude)) for code, (latitude, longitude) in OTHER_POINTS.items()}
    for code, parts in shapes.items():
        radius, centre = inner_circle(parts)
        rows[code] = max(math.sqrt(area_and_centroid(part)[0]) for part in parts), max(radius, 0.0), centre
    if missing := sorted(names.keys() - rows.keys()):
        raise SystemExit(f"no area and no point for {', '.join(missing)}: add them to OTHER_POINTS with their source")
    comment = "\n".join(notice(licence)).replace("--", "-")
    paths = "\n".join(
        f'<path id="{code}" vector-effect="non-scaling-stroke" d="{path_of(parts)}"/>'
        for code, parts in sorted(shapes.items())
    )
    box = f'viewBox="0 0 {_WIDTH} {HEIGHT}"'
    AREAS.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<!--\n{comment}\n-->\n{paths}\n</svg>\n', "utf-8"
    )
    head = "\n".join(f"# {line}".rstrip() for line in notice(licence))
    listed = [
        f"{code} = [{round(x)}, {round(y)}, {round(size)}, {round(radius)}] # {territory_name(code)}"
        for code, (size, radius, (x, y)) in sorted(rows.items(), key=lambda row: -row[1][0])
        if code != NEUTRAL
    ]
    about = (
        "# Each territory on the map of `static/world.svg`, the largest first: the centre of a circle in its largest\n"
        "# part, the square root of that part's area, and the circle's radius."
    )
    size = f"width = {_WIDTH}\nheight = {HEIGHT}"
    text = f'{about}\n{head}\n\nworld_atlas = "{VERSION}"\n{size}\n\n[places]\n' + "\n".join(listed) + "\n"
    POINTS.write_text(text, "utf-8")
    print(f"wrote {AREAS.name} ({len(paths) // 1024} KB) and {POINTS.name}: world-atlas {VERSION}")


if __name__ == "__main__":
    main()
