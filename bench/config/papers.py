"""Papers of the built-in methods, by arXiv id: for links and citations."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.config.methods import BUILT_IN

_PAPERS = {
    "2501.13094": ("Lei", "Robust Representation Consistency Model via Contrastive Denoising", 2025),
    "1902.02918": ("Cohen", "Certified Adversarial Robustness via Randomized Smoothing", 2019),
    "2006.04062": (
        "Jeong",
        "Consistency Regularization for Certified Robustness of Smoothed Classifiers",
        2020,
    ),
    "2206.10550": ("Carlini", "(Certified!!) Adversarial Robustness for Free!", 2022),
    "2211.00322": ("Xiao", "DensePure: Understanding Diffusion Models towards Adversarial Robustness", 2022),
    "2303.01469": ("Song", "Consistency Models", 2023),
    "1906.04584": (
        "Salman",
        "Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers",
        2019,
    ),
    "2001.02378": (
        "Zhai",
        "MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius",
        2020,
    ),
}
"""arXiv id -> (family name of the first author, title, year)."""


def arxiv_id(method: str) -> str:
    """Return the arXiv id of a built-in method's paper; "" where there is none."""
    found = re.search(r"arXiv (\d{4}\.\d{5})", BUILT_IN[method].summary) if method in BUILT_IN else None
    return found[1] if found else ""


def bibtex(methods: Iterable[str]) -> str:
    """Return the papers of these methods as BibTeX entries, each once; "" where none is known."""
    ids = dict.fromkeys(filter(None, map(arxiv_id, methods)))
    return "\n".join(_entry(one) for one in ids if one in _PAPERS)


def _entry(arxiv: str) -> str:
    author, title, year = _PAPERS[arxiv]
    return (
        f"@misc{{{author.lower()}{year},\n  author = {{{author} and others}},\n  title = {{{{{title}}}}},\n"
        f"  year = {{{year}}},\n  eprint = {{{arxiv}}},\n  archivePrefix = {{arXiv}},\n"
        f"  url = {{https://arxiv.org/abs/{arxiv}}}\n}}\n"
    )
