"""One process, one cell after the other; a row in one pass where that is exact."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from harness import catalog, machine
from harness.cell import Cell, Result
from harness.model import Live, load
from harness.plan import Options, Planned, Watch
from harness.probe import check_engine, reads_alike
from harness.reader import TokenReader
from harness.run import Finished, refused, run
from harness.store import Store

SMALLEST_BLOCK = 128
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def execute(
    plan: Sequence[Planned], store: Store, options: Options, watch: Watch
) -> Iterator[Result]:
    """Run these cells, and yield each result once it is stored.

    Raises:
        LookupError: a model cannot be read, or the engine is not exact on it.
    """
    for name, of_model in groupby(plan, lambda p: p.cell.model):
        live = _loaded(name, options)
        reader = TokenReader(live.tokenizer, machine.cache_folder())
        for cells in passes(live, of_model):
            for finished in _attempt(live, reader, cells, watch):
                store.write(finished.result, losses=finished.losses, samples=finished.samples)
                watch.cell_finished(finished.result)
                yield finished.result


def passes(live: Live, plan: Iterable[Planned]) -> Iterator[list[Planned]]:
    """Cells that one pass fills together: a row whose lengths are read and encoded alike."""
    for (spec, task), row in groupby(plan, lambda p: (p.cell.method, p.cell.task)):
        cells = list(row)
        method = catalog.load("methods", spec)
        lengths = [p.cell.length for p in cells]
        together = (
            catalog.load("tasks", task).one_pass
            and method.unfit(live.model, max(lengths)) is None
            and reads_alike(live.model, method, lengths)
        )
        yield from [cells] if together else ([cell] for cell in cells)


def _loaded(name: str, options: Options) -> Live:
    spec, parameters = catalog.split(name)
    live = load(
        spec,
        device=options.device,
        dtype=parameters.get("dtype", options.dtype),
        trust_remote_code=options.trust_remote_code,
    )
    check_engine(live.model)
    check_engine(live.model, catalog.load("methods", "none").applied_to(live.model, 1))
    return live


def _attempt(
    live: Live, reader: TokenReader, planned: list[Planned], watch: Watch
) -> Iterator[Finished]:
    """The pass; out of memory, again in smaller blocks; then cell by cell; then said so."""
    cells = [p.cell for p in planned]
    block = 2048
    while True:
        watch.cell_started(cells, max(p.tokens for p in planned))
        try:
            yield from run(
                live, reader, cells, corpus=planned[0].corpus, block=block, step=watch.progressed
            )
            return
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                yield from (refused(cell, "failed", reason) for cell in cells)
                return
            said = str(error).strip().partition(".")[0] or "out of memory"
        block //= 4
        if block < SMALLEST_BLOCK:
            break
        watch.note(f"Out of memory at {_named(cells)}: trying again in blocks of {block} tokens.")
    if len(planned) > 1:
        for one in planned:
            yield from _attempt(live, reader, [one], watch)
    else:
        yield refused(cells[0], "out_of_memory", f"{said} (in blocks of {block * 4} tokens)")


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(w in str(error).lower() for w in OUT_OF_MEMORY)


def _named(cells: list[Cell]) -> str:
    return f"{cells[0].method}, {cells[0].task} at {max(c.length for c in cells):,} tokens"
