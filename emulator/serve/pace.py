"""How often something is looked at that may rest for months."""


class Pace:
    """Every `busy_s` while there is news; after each look without, twice as rarely.

    idle_s:  the longest pause;  None: it is always `busy_s`
    """

    def __init__(self, busy_s: float, idle_s: float | None = None) -> None:
        self.pause_s = busy_s
        self._busy_s = busy_s
        self._idle_s = busy_s if idle_s is None else idle_s
        self._found: object = None

    def expect_news(self) -> None:
        """Something is about to change."""
        self._found, self.pause_s = object(), self._busy_s

    def looked(self, found: object) -> bool:
        """This was found; `pause_s` is how long to wait for the next look.  Whether it is news."""
        news = found != self._found
        self._found = found
        self.pause_s = self._busy_s if news else min(2 * self.pause_s, self._idle_s)
        return news
