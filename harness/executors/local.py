"""One process, one cell after the other; a row in one pass where that is exact."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from harness import catalog, machine
from harness.cell import Cell, Result
from harness.engine.evaluate import BLOCK
from harness.model import Live, load
from harness.plan import Options, Planned, Watch
from harness.probe import check_engine, check_identity, reads_alike
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
    for _, of_model in groupby(plan, lambda p: p.cell.model):
        cells = list(of_model)
        live = _loaded(cells[0], options)
        reader = TokenReader(live.tokenizer, machine.cache_folder())
        for together in passes(live, cells):
            for finished in _attempt(live, reader, together, watch):
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


def _loaded(planned: Planned, options: Options) -> Live:
    live = load(
        planned.model,
        device=options.device,
        dtype=planned.dtype,
        trust_remote_code=options.trust_remote_code,
    )
    check_engine(live.model)
    check_identity(live.model)
    return live


def _attempt(
    live: Live, reader: TokenReader, planned: list[Planned], watch: Watch
) -> Iterator[Finished]:
    """The pass; out of memory, again in smaller blocks; then cell by cell; then said so."""
    cells = [p.cell for p in planned]
    if planned[-1].bytes > machine.whole_memory(live.device):
        yield from (refused(cell, "out_of_memory", f"it {planned[-1].why}") for cell in cells)
        return
    block = BLOCK
    while True:
        watch.cell_started(cells, max(p.tokens for p in planned))
        try:
            yield from run(
                live, reader, cells, corpus=planned[0].corpus, block=block, step=watch.progressed
            )
            return
        except Exception as error:  # one cell's fault, whatever it is, must not end the grid
            said = _first_line(error)
            if not _out_of_memory(error):
                reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
                yield from (refused(cell, "failed", reason) for cell in cells)
                return
        block //= 4
        if block < SMALLEST_BLOCK:
            break
        watch.note(f"Out of memory at {_named(cells)}: trying again in blocks of {block} tokens.")
    if len(planned) > 1:
        for one in planned:
            yield from _attempt(live, reader, [one], watch)
    else:
        tried = f"in blocks of {block * 4} tokens"
        yield refused(cells[0], "out_of_memory", f"out of memory, {tried}: {said}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(w in str(error).lower() for w in OUT_OF_MEMORY)


def _named(cells: list[Cell]) -> str:
    return f"{cells[0].method}, {cells[0].task} at {max(c.length for c in cells):,} tokens"
