"""Results as JSON, as a table and as a picture."""

import html
import json

COLOURS = {"hardtack": "#b5651d", "onnxruntime": "#4c72b0", "openvino": "#55a868", "litert": "#8172b2"}


def write(results, peers, folder):
    """Writes `peers.json`, `peers.md` and `peers.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(results, indent=2) + "\n")
    text = markdown(results, peers)
    (folder / "peers.md").write_text(text)
    (folder / "peers.svg").write_text(svg(results, peers))
    return text


def markdown(results, peers):
    """One table for each measure: ours, and each peer's as a multiple of it."""
    measures = sorted({measure for row in results["models"].values() for peer in row.values() for measure in peer if measure != "skipped"})
    parts = [f"Measured on {results['machine']}.\n"]
    for measure in measures:
        others = [peer for peer in peers if peer != "hardtack"]
        parts.append(f"\n### {measure}\n")
        parts.append("| model | hardtack | " + " | ".join(others) + " |")
        parts.append("|---|---:|" + "---:|" * len(others))
        for model, row in results["models"].items():
            own = row["hardtack"].get(measure)
            if own is None:
                continue
            cells = []
            for peer in others:
                value = row.get(peer, {}).get(measure)
                cells.append("–" if value is None else f"{value:.4g} ({value / own:.2f}×)")
            parts.append(f"| {model} | {own:.4g} | " + " | ".join(cells) + " |")
    skipped = [
        f"- {model}, {peer}: {entry['skipped']}"
        for model, row in results["models"].items()
        for peer, entry in row.items()
        if "skipped" in entry
    ]
    if skipped:
        parts.append("\n### Skipped\n")
        parts.extend(skipped)
    return "\n".join(parts) + "\n"


def svg(results, peers, measure="latency, 1 thread (µs)"):
    """Bars: how many times our latency each runtime needs."""
    bar, gap, left, width = 14, 12, 210, 640
    rows = []
    for model, row in results["models"].items():
        own = row["hardtack"].get(measure)
        bars = [(peer, row[peer][measure] / own) for peer in peers if own and measure in row.get(peer, {})]
        if bars:
            rows.append((model, bars))
    most = max((ratio for _, bars in rows for _, ratio in bars), default=1)
    y, body = 40, []
    for model, bars in rows:
        middle = y + len(bars) * bar / 2 + 4
        body.append(f'<text x="{left - 8}" y="{middle:.0f}" text-anchor="end">{html.escape(model)}</text>')
        for peer, ratio in bars:
            length = ratio / most * (width - left - 60)
            body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{COLOURS[peer]}"/>')
            body.append(f'<text x="{left + length + 4:.1f}" y="{y + bar - 4}">{ratio:.2f}</text>')
            y += bar
        y += gap
    legend, x = [], left
    for peer in peers:
        legend.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{COLOURS[peer]}"/>')
        legend.append(f'<text x="{x + 16}" y="22">{peer}</text>')
        x += 110
    style = "font: 12px sans-serif; fill: #222"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" style="{style}">'
    ground = f'<rect width="{width}" height="{y}" fill="white"/>'
    return "\n".join([head, ground, *legend, *body, "</svg>"]) + "\n"
