"""The table of docs/reliability.md: how much was tried."""

from __future__ import annotations

from collections import Counter

from tables.common import lines, table


def figures() -> str:
    """What was tried, and how often; a line of a record is a test that passed."""
    of: dict[str, list[dict[str, object]]] = {}
    for line in lines("reliability.jsonl"):
        of.setdefault(str(line["of"]), []).append(line)
    threads, signals = of.get("threads", []), of.get("signals", [])
    cut = of.get("cut files", [])
    words, images = of.get("wrong words and bytes", []), of.get("odd images", [])
    names = Counter(str(line["signal"]) for line in signals)
    in_workers = sum(bool(line["workers"]) for line in signals)
    stopped = sum(bool(line["stopped"]) for line in signals)
    rows = [
        [
            "ways to call functions and engines, by several threads at a time",
            str(len({line["function"] for line in threads})),
            f"by {max((int(str(line['threads'])) for line in threads), default=0)} threads each",
        ],
        [
            "signals to a run at a random moment, then the same command again",
            str(len(signals)),
            ", ".join(f"{count} by {name}" for name, count in names.items())
            + f"; {in_workers} with workers; {stopped} came before the run's end",
        ],
        [
            "files of runs and networks, the manifest and a record truncated or changed, then read",
            f"{sum(int(str(line['cases'])) for line in cut):,}",
            f"{len(cut)} pairs of a file and a reader",
        ],
        [
            "command lines, references, policies, stems, settings, documents, images, changed at "
            "random",
            f"{sum(int(str(line['cases'])) for line in words):,}",
            f"{len(words)} kinds",
        ],
        [
            "odd images",
            str(len(images)),
            f"{sum(bool(line['refused']) for line in images)} of them rejected",
        ],
    ]
    return table(["tried", "times", "in detail"], rows)
