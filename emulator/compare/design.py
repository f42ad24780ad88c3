"""In which order the runs are made, so that time and neighbours favour nobody.

Every repeat runs every mechanism once, with one seed for all.  The orders are the rows of a
Williams design (1949), each followed by its mirror image: for two mechanisms A B, B A, B A, A B.

- Interleaved: a slow change of the machine meets all mechanisms alike.
- After every even number of repeats all mechanisms have the same mean position, so that a steady
  drift cancels.
- After a whole design (n repeats of n mechanisms, 2n if n is odd) each has been in each position,
  and directly after each other one, equally often: so does what a run leaves to the next.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run: the `position`th of all from 1, of a mechanism's number from 0."""

    position: int
    repeat: int  # from 0
    treatment: int
    seed: int


def orders(treatments: int, repeats: int) -> list[tuple[int, ...]]:
    """For each repeat the order in which the treatments 0 to `treatments` - 1 are run.

    Raises ValueError for fewer than two treatments or no repeat.
    """
    if treatments < 2 or repeats < 1:
        raise ValueError(f"{treatments} treatments, {repeats} repeats: needs 2 and 1 or more")
    rows = []
    for shift in range(repeats // 2 + 1):
        row = tuple((step + shift) % treatments for step in _first_row(treatments))
        rows += [row, row[::-1]]
    return rows[:repeats]


def design_repeats(treatments: int) -> int:
    """After how many repeats the design is whole."""
    return treatments if treatments % 2 == 0 else 2 * treatments


def is_balanced(treatments: int, repeats: int) -> bool:
    """Whether positions and neighbours are balanced after so many repeats."""
    return repeats % design_repeats(treatments) == 0


def plan(treatments: int, repeats: int, seed: int) -> list[PlannedRun]:
    """All runs in their order; the repeats have the seeds `seed`, `seed` + 1 and so on."""
    flat = [
        (repeat, treatment)
        for repeat, order in enumerate(orders(treatments, repeats))
        for treatment in order
    ]
    return [
        PlannedRun(position=position, repeat=repeat, treatment=treatment, seed=seed + repeat)
        for position, (repeat, treatment) in enumerate(flat, start=1)
    ]


def _first_row(treatments: int) -> list[int]:
    """0, 1, n-1, 2, n-2, ...: each step to the next is another one, modulo n."""
    row = [0]
    for distance in range(1, treatments // 2 + 1):
        row += [distance, treatments - distance]
    return row[:treatments]
