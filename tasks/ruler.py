"""RULER: thirteen questions whose prompts can be made as long as one likes.

Hsieh et al. 2024, https://arxiv.org/abs/2404.06654; https://github.com/NVIDIA/RULER

Prompt and answer together never pass the length, and each sample is as long as its unit of filler
allows; the published script takes back 10 to 500 units from a sample that is a little too long.
Two things are ours: the lists that words are drawn from, and the default corpus for essays, which
`corpus=text:FILE` replaces by Paul Graham's.

The bare name `ruler` means the eleven that are made here. qa_1 and qa_2 ask questions of SQuAD and
HotpotQA, which are not ours to ship: each reads a file, and is asked for by its name, as
`ruler.qa_1,data=dev-v2.0.json`. RULER's own average is over all thirteen.
"""

from ._documents import Hotpot, Squad
from ._frequency import CommonWords, FrequentWords
from ._niah import AmongNeedles, InEssays, InNoise
from ._tracking import VariableTracking

variants = {
    "niah_single_1": InNoise(),
    "niah_single_2": InEssays(),
    "niah_single_3": InEssays(value="uuids"),
    "niah_multikey_1": InEssays(keys=4),
    "niah_multikey_2": AmongNeedles(),
    "niah_multikey_3": AmongNeedles(key="uuids", value="uuids"),
    "niah_multivalue": InEssays(values=4),
    "niah_multiquery": InEssays(keys=4, queries=4),
    "vt": VariableTracking(),
    "cwe": CommonWords(),
    "fwe": FrequentWords(),
    "qa_1": Squad(),
    "qa_2": Hotpot(),
}
bare_name_means_all = tuple(name for name, task in variants.items() if task.offline)
"""qa_1 and qa_2 each read a file that must be fetched, so each is asked for by its name."""
