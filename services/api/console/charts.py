"""Plots as SVG, drawn by the server: nothing to load, and nothing that runs."""

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 560
BAR_HEIGHT = 22
LABEL_WIDTH = 210
VALUE_WIDTH = 90
COLUMNS_HEIGHT = 130
MOST_LABEL = 32


def bars(rows: Sequence[tuple[str, float, str]]) -> Markup:
    """One horizontal bar for each (label, value, value in words); empty where there is nothing to draw."""
    if not rows:
        return Markup()
    most = max(value for _, value, _ in rows) or 1.0
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    parts = []
    for number, (label, value, words) in enumerate(rows):
        top = number * BAR_HEIGHT
        width = max(room * value / most, 1)
        short = label if len(label) <= MOST_LABEL else f"{label[: MOST_LABEL - 1]}…"
        parts.append(
            f"<g><title>{escape(label)}: {escape(words)}</title>"
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 15}" text-anchor="end">{escape(short)}</text>'
            f'<rect class="console-bar" x="{LABEL_WIDTH}" y="{top + 4}" width="{width:.1f}" height="14" rx="2"/>'
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{top + 15}">{escape(words)}</text></g>'
        )
    return _svg(len(rows) * BAR_HEIGHT, parts, ", ".join(f"{label} {words}" for label, _, words in rows))


def columns(rows: Sequence[tuple[str, int, int]]) -> Markup:
    """One column for each (label, good, bad), the bad on top of the good; empty where all are 0."""
    most = max((good + bad for _, good, bad in rows), default=0)
    if not most:
        return Markup()
    step = WIDTH / len(rows)
    room = COLUMNS_HEIGHT - 32
    parts = [
        f'<text x="0" y="10">{most}</text>',
        f'<line class="console-axis" x1="0" x2="{WIDTH}" y1="{room + 14}" y2="{room + 14}"/>',
    ]
    for number, (label, good, bad) in enumerate(rows):
        left, good_height, bad_height = number * step, room * good / most, room * bad / most
        base = room + 14
        parts += [
            f"<g><title>{escape(label)}: {good} succeeded, {bad} failed</title>",
            _column("console-bar", left + 1, base - good_height, step - 2, good_height),
            _column("console-bar-bad", left + 1, base - good_height - bad_height, step - 2, bad_height),
            "</g>",
        ]
        if number % 6 == 0:
            parts.append(f'<text x="{left:.1f}" y="{COLUMNS_HEIGHT - 4}">{escape(label)}</text>')
    return _svg(COLUMNS_HEIGHT, parts, f"at most {most} jobs in one hour")


def _column(kind: str, left: float, top: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _svg(height: int, parts: Sequence[str], words: str) -> Markup:
    return Markup(  # noqa: S704 # every text in it was escaped
        f'<svg class="console-chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(words)}">'
        f"{''.join(parts)}</svg>"
    )
