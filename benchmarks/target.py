"""The line with which a benchmark ends: whether what was aimed at was reached."""


def print_target(what: str, value: float, limit: float, *, at_least: bool = False) -> None:
    """Print whether a target was met.

    Args:
        what: what was measured, with its unit.
        value: the figure.
        limit: what it may be at most.
        at_least: the limit is the least that it may be.
    """
    is_met = value >= limit if at_least else value <= limit
    words = "at least" if at_least else "at most"
    print(f"target {'met' if is_met else 'MISSED'}: {what} {value:.3f}, {words} {limit:g}")
