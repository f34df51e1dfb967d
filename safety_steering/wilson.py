"""The interval of a rate that was counted.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = k / n

Wilson, "Probable inference, the law of succession, and statistical inference", 1927. Unlike the textbook interval it
stays between 0 and 1 and is no single point at 0 of n or n of n, which is where a good steering is.
"""

from __future__ import annotations

import math

from .errors import SafetySteeringError

Z95 = 1.959963984540054


def wilson(hits: int, count: int, z: float = Z95) -> tuple[float, float]:
    """The interval (low, high) of a rate of `hits` in `count` trials; 95 % unless another z is given.

    Raises:
        SafetySteeringError: there are no trials, or not so many.
    """
    if not 0 <= hits <= count or count == 0:
        raise SafetySteeringError(f"{hits} of {count} is no rate: there must be trials, and no more hits than those.")
    rate, share = hits / count, z * z / count
    middle = rate + share / 2
    reach = z * math.sqrt(rate * (1 - rate) / count + share / (4 * count))
    return max(0.0, (middle - reach) / (1 + share)), min(1.0, (middle + reach) / (1 + share))
