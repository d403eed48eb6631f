"""Places of the world with the ISO 3166 code of their territory. Some are drawn for another country elsewhere."""

__all__ = ["PLACES"]

PLACES: tuple[tuple[str, float, float], ...] = (
    ("CN", 39.5, 76.0),  # Kashgar
    ("CN", 43.8, 87.6),  # Urumqi
    ("CN", 30.0, 90.0),  # Lhasa
    ("CN", 47.5, 131.0),  # the north-east
    ("CN", 52.0, 122.0),
    ("CN", 19.2, 109.7),  # Hainan
    ("MN", 46.0, 104.0),
    ("RU", 60.0, 105.0),  # Siberia
    ("RU", 66.0, 172.0),  # Chukotka
    ("RU", 66.5, -175.0),  # beyond the 180th meridian
    ("RU", 54.7, 21.0),  # Kaliningrad
    ("US", 65.0, -153.0),  # Alaska
    ("US", 19.6, -155.5),  # Hawaii
    ("US", 39.0, -98.0),
    ("GF", 4.0, -53.0),
    ("FR", 46.5, 2.5),
    ("FR", 42.2, 9.1),  # Corsica
    ("RE", -21.1, 55.5),
    ("HK", 22.4, 114.1),
    ("SG", 1.36, 103.82),
    ("TW", 23.7, 121.0),
    ("KR", 36.5, 128.0),
    ("KP", 40.0, 127.0),
    ("LS", -29.5, 28.3),  # inside South Africa
    ("ZA", -29.0, 25.0),
    ("GL", 72.0, -40.0),
    ("SJ", 78.6, 16.0),
    ("AU", -42.0, 146.6),  # Tasmania
    ("NZ", -44.0, 170.5),
    ("UA", 45.3, 34.3),  # Crimea, UA-43
    ("EH", 26.0, -13.0),  # west of the berm
    ("MA", 32.0, -6.0),
    ("CY", 35.25, 33.5),  # the north of Cyprus
    ("SO", 9.5, 45.5),  # Somaliland
    ("XK", 42.6, 20.9),
    ("KZ", 45.9, 63.3),  # Baikonur
    ("IN", 22.0, 79.0),
    ("ID", -2.0, 113.0),
    ("IE", 53.2, -8.0),
    ("GB", 54.7, -6.8),  # Northern Ireland
)
"""The code, the latitude and the longitude of each place."""
