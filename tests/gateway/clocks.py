"""A clock for tests."""


class SetClock:
    """A clock that shows what a test sets, in any unit.

    Args:
        now: The time at the start.
    """

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
