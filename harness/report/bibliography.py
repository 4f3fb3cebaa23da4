"""Where methods and tasks were published, from the first lines of their files, as BibTeX.

A file opens with its idea and, below, `Peng et al. 2023, https://arxiv.org/abs/2309.00071`. Files
are read as text: nothing of theirs runs.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from harness.catalog import Kind
from harness.report.tex import escaped

TITLES = {
    "14lz7j5": (
        "NTK-Aware Scaled RoPE allows LLaMA models to have extended (8k+) context size without "
        "any fine-tuning and minimal perplexity degradation"
    ),
    "14mrgpr": (
        "Dynamically Scaled RoPE further increases performance of long context LLaMA with zero "
        "fine-tuning"
    ),
    "2104.09864": "RoFormer: Enhanced Transformer with Rotary Position Embedding",
    "2108.12409": (
        "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation"
    ),
    "2202.12172": "Overcoming a Theoretical Limitation of Self-Attention",
    "2305.16300": "Landmark Attention: Random-Access Infinite Context Length for Transformers",
    "2305.16843": "Randomized Positional Encodings Boost Length Generalization of Transformers",
    "2305.19466": "The Impact of Positional Encoding on Length Generalization in Transformers",
    "2306.15595": "Extending Context Window of Large Language Models via Positional Interpolation",
    "2308.12950": "Code Llama: Open Foundation Models for Code",
    "2308.14508": "LongBench: A Bilingual, Multitask Benchmark for Long Context Understanding",
    "2308.16137": "LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models",
    "2309.00071": "YaRN: Efficient Context Window Extension of Large Language Models",
    "2309.10400": (
        "PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training"
    ),
    "2309.12307": "LongLoRA: Efficient Fine-tuning of Long-Context Large Language Models",
    "2309.17453": "Efficient Streaming Language Models with Attention Sinks",
    "2310.16450": "CLEX: Continuous Length Extrapolation for Large Language Models",
    "2401.01325": "LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning",
    "2402.13718": "InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens",
    "2402.13753": "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens",
    "2402.17463": "Training-Free Long-Context Scaling of Large Language Models",
    "2404.06654": "RULER: What's the Real Context Size of Your Long-Context Language Models?",
    "2406.10149": "BABILong: Testing the Limits of LLMs with Long Context Reasoning-in-a-Haystack",
    "2407.21783": "The Llama 3 Herd of Models",
    "2410.02694": "HELMET: How to Evaluate Long-Context Language Models Effectively and Thoroughly",
    "2410.06205": "Round and Round We Go! What makes Rotary Positional Encodings useful?",
    "2410.23771": "What is Wrong with Perplexity for Long-context Language Modeling?",
    "2412.15204": (
        "LongBench v2: Towards Deeper Understanding and Reasoning on Realistic Long-context "
        "Multitasks"
    ),
    "2502.05167": "NoLiMa: Long-Context Evaluation Beyond Literal Matching",
    "9708": "Transformer Upgrade Path: 12, Infinite Extrapolation of ReRoPE?",
    "LLMTest_NeedleInAHaystack": "Needle In A Haystack - Pressure Testing LLMs",
    "archive": "Open LLM Leaderboard (2023-2024)",
    "lm-evaluation-harness": "The Language Model Evaluation Harness",
}
"""By the last part of the address; a file says who and when, not what a paper is called."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one method or task is from."""

    authors: str
    """`Peng et al.`, or two, or a name."""
    year: str
    url: str

    @property
    def key(self) -> str:
        """What BibTeX calls it: `peng2023-2309.00071`."""
        first = re.sub(r"[^a-z0-9]", "", _ascii(self.authors.split()[0]).lower())
        return f"{first}{self.year}-{self.number}"

    @property
    def number(self) -> str:
        """The address's last part."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def entry(self) -> str:
        """BibTeX."""
        authors = self.authors.replace(" et al.", " and others").replace(" & ", " and ")
        names = authors if " and " in authors else f"{{{authors}}}"
        fields = {
            "title": f"{{{escaped(TITLES.get(self.number, self.url))}}}",
            "author": escaped(names, braces=True),
            "year": self.year,
            "howpublished": f"\\url{{{self.url}}}",
        }
        if "//arxiv.org/" in self.url:
            fields["note"] = f"arXiv:{self.number}"
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}}}\n"


def source(kind: Kind, name: str) -> Source | None:
    """Of a bare name, `dynamic-ntk`; None where its file says nothing or lies elsewhere."""
    rest = _first_lines(kind, name).partition("\n")[2]
    found = re.search(
        r"^(\S[^\n,]*?) (\d{4}),(?: (?:section|table) [\d.]+,)? (https?://[^\s;,]+)", rest, re.M
    )
    if not found:
        return None
    authors, year, url = found.groups()
    return Source(authors=authors, year=year, url=url.rstrip("."))


def idea(kind: Kind, name: str) -> str:
    """The file's first line; empty where it lies elsewhere."""
    return _first_lines(kind, name).partition("\n")[0].rstrip(".")


def bibliography(sources: Iterable[Source]) -> str:
    """Each once, by key."""
    entries = {source.key: source.entry for source in sources}
    return "\n".join(entries[key] for key in sorted(entries))


@cache
def _first_lines(kind: Kind, name: str) -> str:
    package = find_spec(f"harness.{kind}")
    file = name.split(".")[0].split(":")[0].replace("-", "_")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, f"{file}.py")
        if path.is_file():
            return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return ""


def _ascii(word: str) -> str:
    from unicodedata import normalize

    return normalize("NFKD", word).encode("ascii", "ignore").decode()
