"""Numbers as people read them."""

SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86_400


def number(value: float, digits: int = 4) -> str:
    """`12,345` for whole numbers, else so many significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits}g}" if abs(value) < 1e6 else f"{value:,.0f}"


def short(value: float) -> str:
    """`179.5 B`, `3.7 M`, `812`."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"


def size(count: float) -> str:
    """Bytes in binary units: `1.5 GiB`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """`2 d 03 h`, `2 h 05 min`, `3 min 07 s`, `42 s`."""
    whole = round(seconds)
    if whole >= DAY:
        return f"{whole // DAY} d {whole % DAY // HOUR:02} h"
    if whole >= HOUR:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02} min"
    if whole >= MINUTE:
        return f"{whole // MINUTE} min {whole % MINUTE:02} s"
    return f"{seconds:.3g} s"


def percent(share: float) -> str:
    """`41.2 %`."""
    return f"{100 * share:.3g} %"


def rate(flops: float) -> str:
    """FLOP/s: `989.5 TFLOP/s`."""
    for power, unit in ((15, "P"), (12, "T"), (9, "G")):
        if flops >= 10**power:
            return f"{flops / 10**power:.4g} {unit}FLOP/s"
    return f"{flops:.3g} FLOP/s"
