"""Curves as SVG, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from reproductions.evidence.documents import Document
from reproductions.gallery.content import Band, ModuleView, Point, RunView, x_column
from reproductions.gallery.markup import capital, escaped, number

# --- Drawing --------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """Something to draw: a line, a band between two lines, or single points."""

    name: str
    points: Sequence[Point]
    style: str  # CSS classes
    upper: Sequence[Point] = ()  # of a band; then `points` is the lower line
    single: bool = False  # points without a line
    note: str = ""  # what the legend says after the name


LEFT, RIGHT, TOP, BOTTOM = 84, 30, 16, 58  # margins


def chart(
    curves: Sequence[Curve], x_name: str, y_name: str, size: tuple[int, int] = (720, 380)
) -> str:
    """Draws curves as an SVG with axes, and a legend below it.

    The vertical axis fits lines and bands; single points far beyond are noted in the legend.

    Args:
      curves: what to draw; numbers that are not finite are left out.
      x_name: what is counted along the horizontal axis, which starts at 0.
      y_name: the vertical axis: quantity and unit.
      size: of the view box; text is about 12 units high.
    """
    width, height = size
    curves = [c._replace(points=_finite(c.points), upper=_finite(c.upper)) for c in curves]
    curves = [c for c in curves if c.points]
    if not curves:
        return "<p class=none>No numbers to draw.</p>"
    fitted = [c for c in curves if not c.single] or curves
    values = [y for c in fitted for _, y in (*c.points, *c.upper)]
    low, high = min(values), max(values)
    room = 0.5 * (high - low) or 0.05 * abs(high) or 1.0
    curves = [_within(c, low - room, high + room) if c.single else c for c in curves]
    values += [y for c in curves if c.single for _, y in c.points]
    low, high = min(values) - 0.1 * room, max(values) + 0.1 * room
    x_max = max(x for c in curves for x, _ in (*c.points, *c.upper)) or 1.0

    def across(x: float) -> float:
        return LEFT + x / x_max * (width - LEFT - RIGHT)

    def up(y: float) -> float:
        return TOP + (high - y) / (high - low) * (height - TOP - BOTTOM)

    def place(point: Point) -> Point:
        return across(point[0]), up(point[1])

    parts = []
    for y in ticks(low, high):
        parts.append(f'<path class=grid d="M{LEFT} {up(y):.1f}H{width - RIGHT}"/>')
        parts.append(f"<text class=y x={LEFT - 10} y={up(y):.1f}>{number(y)}</text>")
    for x in ticks(0, x_max, whole=True):
        parts.append(f'<path class=tick d="M{across(x):.1f} {height - BOTTOM}v6"/>')
        parts.append(f"<text class=x x={across(x):.1f} y={height - BOTTOM + 10}>{number(x)}</text>")
    parts.append(f'<path class=axis d="M{LEFT} {TOP}V{height - BOTTOM}H{width - RIGHT}"/>')
    parts.append(
        f'<text class="x name" x={(LEFT + width - RIGHT) / 2} y={height - 22}>'
        f"{escaped(x_name)}</text>"
    )
    parts += [_drawn(c, place, x_name) for c in curves]
    label = "; ".join(_spoken(c) for c in curves if not c.single)
    kind = "chart large" if width > 600 else "chart"
    return (
        f'<figure class="{kind}"><p class=unit>{escaped(capital(y_name))}</p>'
        f'<svg viewBox="0 0 {width} {height}" role=img aria-label="{escaped(label)}">'
        f"{''.join(parts)}</svg><figcaption class=legend>"
        f"{''.join(_legend(c) for c in curves)}</figcaption></figure>"
    )


def _spoken(curve: Curve) -> str:
    """Where a curve, or both edges of a band, begin and end."""
    first, last = (number(curve.points[i][1]) for i in (0, -1))
    if not curve.upper:
        return f"{curve.name}: {first} to {last}"
    high_first, high_last = (number(curve.upper[i][1]) for i in (0, -1))
    return f"{curve.name}: {first} to {high_first} at first, {last} to {high_last} at last"


def _drawn(curve: Curve, place: Callable[[Point], Point], x_name: str) -> str:
    """A curve as SVG; single points, and those of a short line, are circles with a title."""
    title = f"<title>{escaped(curve.name)}</title>"
    outline = [*curve.points, *reversed(curve.upper)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, outline))
    if curve.upper:
        return f'<polygon class="{curve.style}" points="{path}">{title}</polygon>'
    parts = []
    if not curve.single and len(curve.points) > 1:
        parts.append(f'<polyline class="{curve.style}" points="{path}">{title}</polyline>')
    if curve.single or len(curve.points) <= 60:
        for point in curve.points:
            (x, y), (cx, cy) = point, place(point)
            parts.append(
                f'<circle class="{curve.style}" cx={cx:.1f} cy={cy:.1f} r=4>'
                f"<title>{escaped(curve.name)}, {escaped(x_name)} {number(x)}: {number(y)}</title>"
                "</circle>"
            )
    return "".join(parts)


def _legend(curve: Curve) -> str:
    if curve.upper:
        mark = f'<rect class="{curve.style}" x=1 y=2 width=26 height=10 />'
    elif curve.single:
        mark = f'<circle class="{curve.style}" cx=14 cy=7 r=4 />'
    else:
        mark = f'<path class="{curve.style}" d="M1 7H27"/>'
    return (
        f'<span><svg viewBox="0 0 28 14" width=28 height=14 aria-hidden=true>{mark}</svg>'
        f"{escaped(curve.name + curve.note)}</span>"
    )


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from low to high; integers if they are to be whole."""
    found = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(tick) for tick in found if low <= tick <= high]


def _within(curve: Curve, low: float, high: float) -> Curve:
    """Single points, those from low to high; the others move into the note."""
    inside = [(x, y) for x, y in curve.points if low <= y <= high]
    outside = [f"{number(y)} at {number(x)}" for x, y in curve.points if not low <= y <= high]
    note = f" (not shown: {', '.join(outside)})" if outside else ""
    return curve._replace(note=note, points=inside)


def _finite(points: Sequence[Point]) -> list[Point]:
    """The points that can be drawn; what exceeds 1e30 is taken for infinite."""
    return [(x, y) for x, y in points if abs(x) < 1e30 and abs(y) < 1e30]


# --- What there is to draw, and to say ------------------------------------------------------------


def curves_of(view: ModuleView) -> list[Curve]:
    """The loss curves of a module: the original's in grey, the document's numbers, the runs'.

    A run whose loss is in other units is left out.
    """
    document, drawn = view["document"], []
    for curve in document.curves:
        second = " second" if curve != document.curves[0] else ""
        for whose, bands, colour in (
            ("the original", view["original_bands"], "original"),
            ("the port", view["bands"], "run-0"),
        ):
            band = bands.get(curve.column)
            if band is None:
                continue
            name = f"{whose}, {curve.label}, {_seeds(band)}"
            if band.all_until < band.low[-1][0]:
                name += f" (all of them up to {number(band.all_until)})"
            if band.seeds > 1:
                drawn.append(Curve(name, band.low, f"band {colour}{second}", upper=band.high))
            elif whose == "the original":  # the port's only one is drawn as a run
                drawn.append(Curve(name, band.low, f"line {colour}{second}"))
    for i, run in enumerate(view["runs"]):
        for curve in document.curves if not other_units(view, run) else ():
            second = " second" if curve != document.curves[0] else ""
            points = points_of(run, curve.column)
            name = f"{run['name']}{quick_note(run)}, {curve.label}"
            drawn.append(Curve(name, points, f"line run-{i % 5}{second}"))
    what, printed = printed_points(document)
    return [*drawn, Curve(what, printed, "printed", single=True)]


def printed_points(document: Document) -> tuple[str, Sequence[Point]]:
    """What the document, or its upstream, printed: what that is, and the points."""
    printed = document.printed
    if printed is None:
        return "", ()
    return printed.source, list(zip(printed.at, printed.values, strict=True))


def _seeds(band: Band) -> str:
    return f"{band.seeds} seed{'s' * (band.seeds > 1)}"


def other_units(view: ModuleView, run: RunView) -> list[str]:
    """The run's settings, if any, that give its loss other units than the document's."""
    settings = ["objective"] + ["batch-size"] * view["document"].per_batch
    return [changed for changed in run["changed"] if changed.partition(" ")[0] in settings]


def points_of(run: RunView, name: str) -> list[Point]:
    """A column of a run's history, against its epochs or steps."""
    history = run["history"]
    return list(zip(history.get(x_column(history), ()), history.get(name, ()), strict=False))


def quick_note(run: RunView) -> str:
    """What follows the name of a run that was no whole training."""
    return " (quick)" if run["record"].quick else ""


def comparisons(view: ModuleView, run: RunView) -> list[str]:
    """A sentence for each curve: where the run ends, and where the originals were by then.

    Or one that says why the run is not compared.
    """
    other = " and ".join(other_units(view, run))
    if other:
        return [f"With {other} the loss is in other units: not in the chart above."]
    document = view["document"]
    what, printed = printed_points(document)
    sentences = []
    for curve in document.curves:
        points = _finite(points_of(run, curve.column))
        if not points:
            continue
        x, y = points[-1]
        said = [f"After {x_column(run['history'])} {number(x)}: {curve.label} {number(y)}"]
        ours, theirs = view["bands"].get(curve.column), view["original_bands"].get(curve.column)
        if run["reference"] and ours and ours.seeds > 1:
            said.append(_range_at(x, "the port", ours))
        if theirs:
            said.append(_range_at(x, "the original", theirs))
        values = [number(value) for at, value in printed if at == x]
        said.append(f"{what}: {' and '.join(values)}" if values else "")
        sentences.append("; ".join(filter(None, said)) + ".")
    return sentences


def _range_at(x: float, whose: str, band: Band) -> str:
    """What seeds had reached by then, or nothing if they did not get so far."""
    low, high = (dict(side).get(x) for side in (band.low, band.high))
    if low is None or high is None:
        return ""
    if low == high:  # the other seeds, if any, were stopped before
        return f"{whose}, 1 seed: {number(low)}"
    return f"{whose}, {_seeds(band)}: {number(low)} to {number(high)}"
