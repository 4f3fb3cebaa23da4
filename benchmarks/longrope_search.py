"""Seconds of one generation of LongRoPE's search: 16 candidates, 3 documents of 16k tokens.

ours  `harness search`: layer by layer, and candidates that are clearly worse are not read on
full  the same without racing: what the parents must be
loop  plain transformers, a whole forward for each candidate and document, the head in slices, as
      evolution/ of https://github.com/microsoft/LongRoPE
"""

import math
from argparse import Namespace
from collections.abc import Callable
from statistics import fmean

from rich.table import Table
from sides import (
    DTYPE,
    Facts,
    OneDocument,
    Row,
    at_least,
    digest,
    main,
    measured,
    model,
    parser,
    threads,
    whole_perplexity,
)

from harness import catalog
from harness.rope import Encoding, Rope
from harness.rotation import rotated
from harness.search.evolution import Settings, evolve
from harness.search.evolution import Table as Losses
from harness.search.space import Individual, Space

FASTER, WITHIN = 2.0, 0.002
SLICE = 2048
"""Tokens whose logits the loop has at a time."""


def text(given: Namespace) -> Facts:
    """Tokenise once, so that all others find the same tokens."""
    import numpy as np

    from harness import machine
    from harness.corpora import label
    from harness.model import describe, tokenizer
    from harness.reader import TokenReader

    reader = TokenReader(tokenizer(describe(given.model)), machine.cache_folder())
    reach = max(given.lengths)
    found = reader.documents(given.text, reach=reach, first=given.documents)
    tokens = [document.tokens[:reach] for document in found]
    np.save(given.folder / "tokens.npy", np.stack(tokens))
    (given.folder / "bos").write_text(str(reader.bos))
    names = [document.name for document in found]
    return {"corpus": label(given.text), "documents": names, "tokens": digest(tokens)}


def ours(given: Namespace) -> Facts:
    return _engine(given, racing=True)


def full(given: Namespace) -> Facts:
    return _engine(given, racing=False)


def loop(given: Namespace) -> Facts:
    import torch

    live = model(given)
    encoding = _encoding(given, Rope.of(live.model))
    inputs = [torch.from_numpy(request.tokens)[None] for request in _requests(given)]
    decoder, head = live.model.get_decoder(), live.model.get_output_embeddings()

    def read(it: Individual, document: int) -> float:
        tokens, total = inputs[document], 0.0
        with torch.no_grad(), rotated(live.model, encoding(it)):
            hidden = decoder(tokens, use_cache=False).last_hidden_state[0, :-1]
            for some, next_ones in zip(
                hidden.split(SLICE), tokens[0, 1:].split(SLICE), strict=True
            ):
                logits = head(some).float()
                total += float(
                    torch.nn.functional.cross_entropy(logits, next_ones, reduction="sum")
                )
        return total / len(hidden)

    facts = _generation(given, Rope.of(live.model), read, racing=False)
    return facts | {"attention": live.model.config._attn_implementation}


def _engine(given: Namespace, racing: bool) -> Facts:
    from harness.model import describe
    from harness.search.objective import TASK, Objective

    card, task = describe(given.model), catalog.load("tasks", TASK)
    objective = Objective(card, task, None, _requests(given), lambda it: encoding(it), "cpu", DTYPE)
    rope = Rope.of(objective.live.model)
    encoding = _encoding(given, rope)
    return _generation(given, rope, objective.loss, racing)


def _generation(
    given: Namespace, rope: Rope, read: Callable[[Individual, int], float], racing: bool
) -> Facts:
    scale = max(given.lengths) / rope.original_length
    space = Space(rope.dim // 2, scale)
    ways = (rope.interpolated(scale), rope.ntk_aware(scale), rope.by_parts(scale))
    starts = [space.nearest((rope.frequencies / way).tolist()) for way in ways]
    how = Settings(population=given.candidates, parents=given.parents, iterations=0, racing=racing)
    table: Losses = {}
    found, took = measured(lambda: list(evolve(starts, space, how, read, given.documents, table)))
    return {
        "parents": [_name(it) for it in found[-1].parents],
        "losses": {_name(it): row for it, row in table.items()},
        "documents_read": sum(map(len, table.values())),
        "threads": threads(),
        **took,
    }


def _requests(given: Namespace) -> list:
    import numpy as np

    bos = int((given.folder / "bos").read_text())
    readers = [OneDocument(bos, tokens) for tokens in np.load(given.folder / "tokens.npy")]
    return [whole_perplexity(reader, [max(given.lengths)])[0] for reader in readers]


def _encoding(given: Namespace, rope: Rope) -> Callable[[Individual], Encoding]:
    method, scale = catalog.load("methods", "longrope"), max(given.lengths) / rope.original_length
    return lambda it: method.encoded(rope, it.factors, it.start_tokens, scale)


def _name(it: Individual) -> str:
    return f"{','.join(map(str, it.hundredths))} {it.start_tokens}"


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    mine, whole, looped = (found[name] for name in ("ours", "full", "loop"))
    generation = f"{given.candidates} candidates, {given.documents} documents"
    alike = mine["parents"] == whole["parents"]
    far, apart = _apart(mine, looped)
    same = len({*mine["parents"]} & {*looped["parents"]})
    return [
        at_least(f"{generation}, against the loop", mine, looped, FASTER),
        at_least(f"{generation}, against everything read", mine, whole, None),
        Row(
            what="documents read",
            ours=str(mine["documents_read"]),
            peer=str(looped["documents_read"]),
            ratio=f"{looped['documents_read'] / mine['documents_read']:.1f}x",
        ),
        Row(
            what="parents of everything read",
            ours=f"{len({*mine['parents']} & {*whole['parents']})} of {given.parents}",
            bar="all, in order",
            reached=alike,
        ),
        Row(
            what="parents of the loop",
            ours=f"{same} of {given.parents}",
            bar="all, but for ties",
            reached=apart <= 2 * far,
        ),
        Row(
            what="largest difference of a perplexity from the loop",
            ours=f"{math.expm1(far):.3%}",
            bar=f"≤ {WITHIN:.1%}",
            reached=math.expm1(far) <= WITHIN,
        ),
    ]


def _apart(mine: Facts, looped: Facts) -> tuple[float, float]:
    """Largest difference of a mean loss, and how much worse than the loop's last parent ours are.

    In bfloat16 two kernels round otherwise, and candidates that are nearer than that are tied.
    """
    by_loop = {name: fmean(row) for name, row in looped["losses"].items()}
    far = max(abs(fmean(mine["losses"][name]) - by_loop[name]) for name in mine["parents"])
    last = by_loop[looped["parents"][-1]]
    return far, max(by_loop[name] - last for name in mine["parents"])


def losses(found: dict[str, Facts]) -> Table:
    sides = ("ours", "full", "loop")
    table = Table("candidate", *sides, title="perplexity; p: a parent, -: not read on")
    for number, name in enumerate(found["loop"]["losses"], 1):
        cells = []
        for side in sides:
            row, parent = found[side]["losses"][name], name in found[side]["parents"]
            whole = len(row) == len(found["loop"]["losses"][name])
            cells.append(f"{math.exp(fmean(row)):.4f}{' p' if parent else ''}" if whole else "-")
        table.add_row(str(number), *cells)
    return table


if __name__ == "__main__":
    flags = parser(__doc__, model="smollm2-135m", text="stdlib:validation", lengths="16k")
    flags.add_argument("--documents", type=int, default=3)
    flags.add_argument("--candidates", type=int, default=16)
    flags.add_argument("--parents", type=int, default=8)
    main(flags, {"text": text, "ours": ours, "full": full, "loop": loop}, rows, losses)
