"""Results as JSON, as tables and as a picture."""

import html
import json

COLOURS = {
    "hardtack": "#b5651d", "onnxruntime": "#4c72b0", "openvino": "#55a868", "openvino-nncf": "#8fc79c",
    "litert": "#8172b2", "ncnn": "#c44e52", "mnn": "#64b5cd", "tract": "#8c8c8c", "tract-f32": "#bcbcbc",
    "rten": "#ccb974", "rten-f32": "#e3d8b0",
}
# Bars of greater ratios are cut here; the number beside them is true.
LONGEST = 8
# A median that is so many times the tenth percentile was measured beside other work.
UNSTEADY = 1.25
# With more load than this the machine was busy before anything was measured.
BUSY = 0.5


def latency(threads, name):
    """Reads a latency, in microseconds."""
    return lambda row: row["latency"].get(str(threads), {}).get(name)


def is_float(row):
    """Whether a runtime ran the float network."""
    return row["form"].startswith("f32")


def unsteady(row, threads):
    """Whether other work disturbed a measurement."""
    median, least = latency(threads, "median_us")(row), latency(threads, "p10_us")(row)
    return bool(median and least and median > least * UNSTEADY)


def measures(results):
    """Title, how to read it off a row, and what to divide by, of each table."""
    for threads in results["threads"]:
        title = f"Latency, {threads} thread{'s'[:threads > 1]}"
        yield f"{title}: median, ms", latency(threads, "median_us"), 1e3
        yield f"{title}: tenth percentile, ms", latency(threads, "p10_us"), 1e3
    yield "Cold process to first result, ms", lambda row: row.get("cold_ms"), 1
    yield "of it, start of the process with interpreter and imports, ms", lambda row: row.get("start_ms"), 1
    yield "of it, load and first result, ms", lambda row: row.get("first_result_ms"), 1
    yield "Most memory, MB", lambda row: row.get("memory_bytes"), 1e6
    yield "File, kB", lambda row: row.get("file_bytes"), 1e3


def write(results, folder):
    """Writes `peers.json`, `peers.md` and `peers.svg`; the text of the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(results, indent=2) + "\n")
    text = markdown(results)
    (folder / "peers.md").write_text(text)
    (folder / "peers.svg").write_text(svg(results))
    return text


def measured(results):
    """The rows of each network without what was skipped."""
    for model, row in results["models"].items():
        yield model, {peer: values for peer, values in row.items() if "skipped" not in values}


def figure(value):
    """A number with three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown(results):
    """A table for each measure: ours, and each peer's with its ratio to ours."""
    others = [peer for peer in results["versions"] if peer != "hardtack"]
    parts = [f"Measured on {results['machine']}, {results['date']}.", "In brackets: the peer divided by hardtack. †: f32."]
    if results["quick"]:
        parts.append("Quick: short turns, so that figures vary by tens of percent.")
    if results["load_before"] > BUSY:
        parts.append(f"The machine was busy before (load {results['load_before']:.1f}): do not quote these figures.")
    disturbed = sorted({
        f"{model}/{peer} ({threads}T)" for model, row in measured(results) for peer, values in row.items()
        for threads in results["threads"] if unsteady(values, threads)
    })
    if disturbed:
        what = f"Disturbed, the median being more than {UNSTEADY} times the tenth percentile"
        parts.append(f"{what}: {', '.join(disturbed)}.")
    parts.append("\nVersions: " + ", ".join(f"{peer} {version}" for peer, version in results["versions"].items()) + ".")
    for title, read, unit in measures(results):
        parts.append(f"\n### {title}\n")
        parts.append("| " + " | ".join(["network", "hardtack", *others]) + " |")
        parts.append("|---|---:|" + "---:|" * len(others))
        for model, row in measured(results):
            own = read(row["hardtack"]) if "hardtack" in row else None
            cells = [model, "–" if own is None else f"**{figure(own / unit)}**"]
            for peer in others:
                value = read(row[peer]) if peer in row else None
                ratio = f" ({value / own:.2f}×)" if value is not None and own else ""
                float_ = "†" if value is not None and is_float(row[peer]) else ""
                cells.append("–" if value is None else f"{figure(value / unit)}{float_}{ratio}")
            parts.append("| " + " | ".join(cells) + " |")
    parts += ["\n### What each was given\n", *forms(results)]
    reasons = list(skipped(results))
    if reasons:
        parts += ["\n### Skipped\n", *reasons]
    return "\n".join(parts) + "\n"


def forms(results):
    """A line for each peer and form, with the networks that had it."""
    found = {}
    for model, row in measured(results):
        for peer, values in row.items():
            found.setdefault((peer, values["form"]), []).append(model)
    return [f"- {peer}: {form} – {', '.join(models)}" for (peer, form), models in sorted(found.items())]


def skipped(results):
    """A line for each thing that was not measured, with the reason."""
    for model, row in results["models"].items():
        for peer, values in row.items():
            if "skipped" in values:
                yield f"- {model}, {peer}: {values['skipped']}"
            for threads, latency_ in values.get("latency", {}).items():
                if "failed" in latency_:
                    yield f"- {model}, {peer}, threads {threads}: {latency_['failed']}"


def svg(results):
    """Bars, a panel for each number of threads: how many times our latency each runtime needs."""
    panel, head = 560, 46
    peers = list(results["versions"])
    floats = {peer for _, row in measured(results) for peer, values in row.items() if is_float(values)}
    drawn = [bars(results, threads, index * panel, head) for index, threads in enumerate(results["threads"])]
    width, height = panel * len(drawn), max((bottom for _, bottom in drawn), default=head)
    legend = []
    columns = max(width // 112, 1)
    for index, peer in enumerate(peers):
        x, y = 10 + index % columns * 112, height + 8 + index // columns * 18
        legend.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[peer]}"/>')
        legend.append(f'<text x="{x + 16}" y="{y + 10}">{html.escape(peer + (" †" if peer in floats else ""))}</text>')
    height += 30 + 18 * (-(-len(peers) // columns))
    busy = f", busy before (load {results['load_before']:.1f})" if results["load_before"] > BUSY else ""
    caption = html.escape(f"{results['machine']}{busy}, {results['date']}. †: f32.")
    legend.append(f'<text x="10" y="{height - 8}" font-size="9">{caption}</text>')
    style = "font: 11px sans-serif; fill: #222"
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} style="{style}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *(part for body, _ in drawn for part in body), *legend, "</svg>",
    ]) + "\n"


def bars(results, threads, left, top):
    """The panel of one number of threads: its parts, and where it ends."""
    bar, gap, names, room = 13, 10, 170, 340
    read = latency(threads, "median_us")
    groups = []
    for model, row in measured(results):
        own = read(row["hardtack"]) if "hardtack" in row else None
        ratios = {peer: read(values) / own for peer, values in row.items() if own and read(values)}
        if ratios:
            groups.append((model, ratios))
    scale = room / min(max((ratio for _, ratios in groups for ratio in ratios.values()), default=1), LONGEST)
    x0, y, body = left + names, top, []
    title = f"Latency, {threads} thread{'s'[:threads > 1]}: times that of hardtack (shorter is better)"
    body.append(f'<text x="{left + 10}" y="18" font-weight="bold">{title}</text>')
    for model, ratios in groups:
        middle = y + len(ratios) * bar / 2 + 4
        body.append(f'<text x="{x0 - 8}" y="{middle:.0f}" text-anchor="end">{html.escape(model)}</text>')
        for peer, ratio in ratios.items():
            length = min(ratio, LONGEST) * scale
            cut = " »" if ratio > LONGEST else ""
            body.append(f'<rect x="{x0}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{COLOURS[peer]}"/>')
            body.append(f'<text x="{x0 + length + 3:.1f}" y="{y + bar - 4}" font-size="9">{ratio:.2f}{cut}</text>')
            y += bar
        y += gap
    line = x0 + scale
    ends = f'x1="{line:.1f}" x2="{line:.1f}" y1="{top - 8}" y2="{y - gap + 4}"'
    body.append(f'<line {ends} stroke="#222" stroke-dasharray="3 3"/>')
    return body, y
