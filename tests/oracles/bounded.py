"""The bounded cell one number at a time: DESIGN's equations in plain Python, without torch."""

import math
from collections.abc import Mapping, Sequence

Vector = list[float]
Matrix = Sequence[Sequence[float]]


def times(matrix: Matrix, vector: Sequence[float]) -> Vector:
    return [sum(w * x for w, x in zip(row, vector, strict=True)) for row in matrix]


def silu(x: float) -> float:
    return x / (1 + math.exp(-x)) if x > -700 else 0.0


def rms(vector: Sequence[float], eps: float = 1e-6) -> Vector:
    scale = 1 / math.sqrt(sum(x * x for x in vector) / len(vector) + eps)
    return [x * scale for x in vector]


def retention(log_rate: Sequence[float], largest: float) -> Vector:
    """abar = exp(-dt exp(a)), scaled so that it cannot exceed `largest`."""
    return [largest * math.exp(-math.exp(a)) for a in log_rate]


def refine(
    h: Vector, e: Vector, weights: Mapping, largest: float, gain: float | None = None
) -> Vector:
    """One iteration: `abar h + B e + R(norm(h), e)`, or `abar h + (1 - abar) g N(B e + R)`."""
    abar = retention(weights["log_rate"], largest)
    injected = times(weights["inject.weight"], e)
    pre = [
        a + b + c
        for a, b, c in zip(
            times(weights["from_state"], rms(h)),
            times(weights["from_injection.weight"], e),
            weights["from_injection.bias"],
            strict=True,
        )
    ]
    hidden = len(pre) // 2
    gated = [silu(pre[i]) * pre[hidden + i] for i in range(hidden)]
    correction = times(weights["leave"], gated)
    inner = [b + r for b, r in zip(injected, correction, strict=True)]
    if gain is None:
        return [abar[i] * h[i] + inner[i] for i in range(len(h))]
    renewed = rms(inner)
    return [abar[i] * h[i] + (1 - abar[i]) * gain * renewed[i] for i in range(len(h))]


def bound(start: float, weights: Mapping, e: Vector, largest: float) -> float:
    """DESIGN: `max(||h0||, (||B e|| + C_R) / (1 - max abar))`, with C_R from row norms."""
    width = len(e)
    reach = math.sqrt(width)
    offset = [
        a + b
        for a, b in zip(
            times(weights["from_injection.weight"], e),
            weights["from_injection.bias"],
            strict=True,
        )
    ]
    limits = [
        abs(offset[i]) + reach * math.hypot(*row) for i, row in enumerate(weights["from_state"])
    ]
    hidden = len(limits) // 2
    # |silu(x)| <= |x|; the Frobenius norm is at least the spectral one.
    gated = math.hypot(*(limits[i] * limits[hidden + i] for i in range(hidden)))
    correction = math.hypot(*(w for row in weights["leave"] for w in row)) * gated
    injected = math.hypot(*times(weights["inject.weight"], e))
    abar = max(retention(weights["log_rate"], largest))
    return max(start, (injected + correction) / (1 - abar))
