"""Places of the world with the ISO 3166 code of their territory. Some are drawn for another country elsewhere."""

from tests.kit.case_files import tables_of

__all__ = ["PLACES"]

PLACES: tuple[tuple[str, float, float], ...] = tuple(map(tuple, tables_of(__file__)["places"]))
"""The code, the latitude and the longitude of each place."""
