"""A bar for each row, from nothing to the median, with a line from the lowest round to the highest. SVG, by hand."""

from html import escape

from rounds import column, middle

WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 860, 220, 90, 44, 30, 16


def write(path, title, rows, key):
    rows = [row for row in rows if column(row["figures"], key)]
    if not rows:
        return
    most = max(max(column(row["figures"], key)) for row in rows) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + STEP * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    for at, row in enumerate(rows):
        values, value = column(row["figures"], key), middle(row["figures"], key)
        y = TOP + STEP * at
        colour = "#2a6fb0" if at == 0 else "#b8c4d0"
        low, high = LEFT + min(values) * scale, LEFT + max(values) * scale
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="#222">{escape(row["name"])}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {y + 8}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8" stroke="#444" fill="none"/>',
            f'<text x="{max(high, LEFT + value * scale) + 8:.1f}" y="{y + 13}" fill="#222">{value:,.1f}</text>',
        ]
    path.write_text("\n".join([*parts, "</svg>", ""]))
