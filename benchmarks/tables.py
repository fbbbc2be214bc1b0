"""Writes the tables of the READMEs, here and above, from the files in results/; no result is "not run yet".

python benchmarks/tables.py            # rewrites both between their markers
python benchmarks/tables.py --check    # exit code 1 where one is not what the results say
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from measures import Record, is_met, medians, value_of, wilson

HERE = Path(__file__).resolve().parent
PAGES = (HERE / "README.md", HERE.parent / "README.md")
RESULTS = HERE / "results"
NOT_RUN = "Not run yet."
_MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COLUMNS = (
    ("command to exit, s", "seconds", ".1f"),
    ("to first step, s", "first_step_seconds", ".1f"),
    ("samples/s", "samples_per_second", ",.0f"),
    ("processor, s", "processor_seconds", ",.0f"),
    ("peak memory, MB", "peak_mb", ",.0f"),
    ("peak GPU memory, MB", "gpu_peak_mb", ",.0f"),
)


def contest_table(record: Record) -> str:
    """One contest: its contestants' medians, and each of its bars with the value that was reached."""
    found = medians(record)
    columns = [column for column in _COLUMNS if any(column[1] in measures for measures in found.values())]
    utilisation = record["facts"].get("flops_per_sample") and record["facts"].get("peak_flops")
    head = ["contestant", "rounds", *(title for title, _, _ in columns), *(["MFU"] if utilisation else []), "accuracy"]
    rows = [head, ["---"] * len(head)]
    for name, measures in found.items():
        cells = [name, str(sum(name in each for each in record["rounds"]))]
        cells += [format(measures[key], form) if key in measures else "" for _, key, form in columns]
        if utilisation:
            rate = measures.get("samples_per_second", 0) * record["facts"]["flops_per_sample"]
            cells.append(f"{rate / record['facts']['peak_flops']:.1%}")
        rows.append([*cells, _accuracy(measures)])
    text = [record["title"], "", *("| " + " | ".join(row) + " |" for row in rows), "", *_bars(record)]
    return "\n".join([*text, "", _circumstances(record)])


def _accuracy(measures: dict[str, float]) -> str:
    if "accuracy" not in measures:
        return ""
    low, high = wilson(measures["accuracy"], measures["test_rows"])
    return f"{measures['accuracy']:.4f} ({low:.3f} to {high:.3f})"


def _bars(record: Record) -> list[str]:
    lines = []
    for bar in record["bars"]:
        value = value_of(record, bar)
        bound = _bound(bar)
        if value is None:
            lines.append(f"- {bar['words']}: {bound}; not run yet.")
            continue
        verdict = "met" if is_met(bar, value[0]) else "**not met**"
        rounds = f"{value[1]} round{'s' * (value[1] != 1)}"
        lines.append(f"- {bar['words']}: **{value[0]:.2f}** ({bound}; {verdict}; {rounds})")
    return [*lines, *_same_accuracy(record)]


def _bound(bar: dict[str, Any]) -> str:
    return f"at least {bar['at_least']:g}" if bar["at_least"] is not None else f"at most {bar['at_most']:g}"


def _same_accuracy(record: Record) -> list[str]:
    """Whether ours scores no lower than the interval of the plain script, or of bare where plain ran in part."""
    found = medians(record)
    plain = next((name for name in found if name.startswith("plain") and "accuracy" in found[name]), None)
    plain = plain or ("bare" if "bare" in found else None)
    if plain is None or "ours" not in found or "accuracy" not in found["ours"]:
        return []
    ours, theirs = found["ours"]["accuracy"], found[plain]["accuracy"]
    low = wilson(theirs, found[plain]["test_rows"])[0]
    verdict = "met" if ours >= low else "**not met**"
    return [f"- accuracy: ours {ours:.4f}, {plain} {theirs:.4f} (no lower than its interval from {low:.3f}; {verdict})"]


def _circumstances(record: Record) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    threads = "" if record["threads"] == "all" else f" {record['threads']} thread(s)."
    return f"{record['date']}, {record['hardware']}; commit {record['commit']}; {versions}.{threads}"


def machines_table(results: Path) -> str:
    """Each bar that was also run on another machine (`results/other_machine`), with what was reached on both."""
    rows: list[str] = []
    machines: tuple[dict[str, set[str]], ...] = ({}, {})
    for other in sorted((results / "other_machine").glob("*.json")):
        records = [json.loads(file.read_text(encoding="utf-8")) for file in (results / other.name, other)]
        for known, record in zip(machines, records, strict=True):
            known.setdefault(f"{record['hardware'].split(';')[0]})", set()).add(record["date"])
        for bar in records[0]["bars"]:
            found = [value_of(record, bar) for record in records]
            reached = [f"{value:.2f}" if is_met(bar, value) else f"**{value:.2f}**" for value, _ in filter(None, found)]
            rows.append(f"| {' | '.join([other.stem, bar['words'], _bound(bar), *reached])} |")
    ours, others = (
        "; ".join(f"{machine}, {' and '.join(sorted(dates))}" for machine, dates in known.items()) for known in machines
    )
    head = f"| contest | promise | bar | {ours} | {others} |\n|---|---|---|---|---|"
    return "\n".join([head, *rows]) if rows else NOT_RUN


def section(name: str, results: Path = RESULTS) -> str:
    """What stands between a section's markers."""
    if name == "techniques":
        from techniques_table import techniques_table

        return techniques_table(results / "techniques.jsonl") or NOT_RUN
    if name == "machines":
        return machines_table(results)
    if name == "techniques-summary":
        from techniques_table import summary

        return summary(results / "techniques.jsonl") or NOT_RUN
    if name == "intervals":
        from interval_table import interval_table

        return interval_table(results / "interval_coverage.json") or NOT_RUN
    if name == "search":
        from search_table import search_table

        return search_table(results / "search.json") or NOT_RUN
    if name == "gpu":
        files = sorted(results.glob("gpu-*.json"))
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        full = [record for record in records if record["scale"] == "full"]
        return "\n\n".join(f"#### {record['contest']}\n\n{contest_table(record)}" for record in full) or NOT_RUN
    if name == "plot":
        return "![Time against accuracy](time_accuracy.png)" if (HERE / "time_accuracy.png").is_file() else NOT_RUN
    file = results / f"{name}.json"
    return contest_table(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else NOT_RUN


def written(text: str, results: Path = RESULTS) -> str:
    """A page with every marked section made anew."""
    return _MARKED.sub(lambda found: f"{found[1]}{section(found['name'], results)}\n{found[3]}", text)


def main() -> int:
    """Write the pages, or say by the exit code whether --check finds them up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = written(before)
        stale |= int(before != after)
        if not options.check:
            page.write_text(after, encoding="utf-8")
    return stale if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
