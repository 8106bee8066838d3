"""What an ablation was made with: versions, commits and devices, all of them."""

from collections.abc import Iterable, Sequence

from deeplab_lit.ablate.table import Row


def origin(rows: Sequence[Row]) -> str:
    """A sentence on the trainings and validations of all rows, and one where they are not alike."""
    records = [record for row in rows for r in row.results for record in (r.fit, r.validation)]
    records = [record for record in records if record]
    versions = each(
        ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        for record in records
    )
    commits = each(record.get("git_commit") or "unknown" for record in records)
    devices = each(record["device"] for record in records)
    text = f"{' / '.join(versions)}; commit {', '.join(commits)}; on {' and '.join(devices)}."
    steps = sorted({r.fit["steps"] for row in rows for r in row.results if "steps" in r.fit})
    if steps:
        text += f" Trained for {' or '.join(f'{number:,}' for number in steps)} optimizer steps."
    kinds = {"versions": versions, "commits": commits, "devices": devices}
    if several := [f"{len(found)} {kind}" for kind, found in kinds.items() if len(found) > 1]:
        text += f" Not all runs were made alike: {', '.join(several)}."
    return text


def each(values: Iterable[str]) -> list[str]:
    """Values once each, in the order in which they come first."""
    return list(dict.fromkeys(values))
