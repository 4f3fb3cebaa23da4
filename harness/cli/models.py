"""`harness models`: published long-context checkpoints, and what each was trained with."""

import json

from harness.cli.look import Json

HELP = (
    "List published long-context checkpoints: what `--model NAME` finds on the hub, with the "
    "method on that it was trained with.\n\n"
    "Models that need no hub are in `list models`."
)
EXAMPLES = "harness models\n\nharness models --json"


def models(as_json: Json = False) -> None:
    """List published long-context checkpoints."""
    from rich import box
    from rich.table import Table

    from harness.checkpoints import every
    from harness.lengths import label
    from harness.report.table import console

    if as_json:
        rows = [{"model": c.key, **c.model_dump()} for c in every()]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("--model", "base", "trained", "tested", "method", "hub"):
        table.add_column(head, overflow="fold", justify="right" if "ed" in head else "left")
    for c in every():
        trained = label(c.trained) if c.trained else "-"
        table.add_row(c.key, c.base, trained, label(c.tested), c.method, c.hub or "not published")
    screen = console()
    screen.print(table)
    notes: dict[str, list[str]] = {}
    for c in every():
        notes.setdefault(c.note or "", []).append(c.key)
    for note, keys in notes.items():
        if note:
            screen.print(f"{', '.join(keys)}: {note}", style="dim")
    for page, source in dict.fromkeys((c.page, c.source) for c in every()):
        screen.print(f"{page}: {source}", style="dim", soft_wrap=True)
