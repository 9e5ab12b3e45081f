"""What a bundle's joint space tells apart: the phrases in its YAML, which of them a text names, and which a window shows.

Shapes: N windows, Q joint vectors of each (one for each query of the adapter), E joint width, P phrases of a modality.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from string import Formatter
from typing import TYPE_CHECKING

import numpy as np

from anymodal.config_words import SearchSpec
from anymodal.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_WORD = re.compile(r"[a-z]+")


class Phrases:
    """text: embeddings (P, E) of phrases. spelt: what is asked for, spelt right. `words`: of each phrase, by modality; none
    where it says that nothing is."""

    def __init__(self, spec: SearchSpec | None, text: Callable[[Sequence[str]], Tensor],
                 spelt: Callable[[str], str] = str) -> None:
        self.spec, self._text, self._spelt = spec, text, spelt
        groups = {m: [expand(g, spec.words) for g in spec.groups(m)] for m in spec.phrases} if spec else {}
        self.texts = {m: [p for group in rows for p in group] for m, rows in groups.items()}
        self.of_token = {m: _blocks([len(group) for group in rows]) for m, rows in groups.items()}  # (tokens, P)
        unsaid = frozenset(spec.nothing if spec else ())
        self.words = {m: [frozenset() if p in unsaid else frozenset(p.split()) for p in phrases]
                      for m, phrases in self.texts.items()}
        self.known = {w for words in self.words.values() for w in frozenset().union(*words)}
        self._space: dict[str, np.ndarray] = {}  # modality -> (P, E)
        self.named = lru_cache(maxsize=1024)(self._named)

    def _named(self, text: str) -> dict[str, tuple[int, ...]]:
        """Modality -> the phrases that share most words with a text; of modalities that share fewer of the same, none."""
        synonyms = self.spec.synonyms if self.spec else {}
        words = {synonyms.get(w, w) for w in _stems(self._spelt(text).lower(), self.known | set(synonyms))}
        if not words:
            return {}
        shared = {m: [words & phrase for phrase in phrases] for m, phrases in self.words.items()}
        most = {m: max(map(len, rows)) for m, rows in shared.items()}
        found = {m: tuple(i for i, same in enumerate(shared[m]) if len(same) == n) for m, n in most.items() if n}
        read = {m: frozenset().union(*(shared[m][i] for i in numbers)) for m, numbers in found.items()}
        return {m: numbers for m, numbers in found.items() if not any(read[m] < other for other in read.values())}

    def chances(self, modality: str, vectors: np.ndarray) -> np.ndarray:
        """How likely windows show each phrase, (N, P), from their vectors (N, Q, E) or (N, E)."""
        if modality not in self._space:
            self._space[modality] = self._text(self.texts[modality]).float().cpu().numpy()
        vectors, of_token = vectors.reshape(len(vectors), -1, vectors.shape[-1]), self.of_token[modality]
        if len(of_token) not in (1, vectors.shape[1]):
            raise ConfigError(f"search.phrases.{modality} has {len(of_token)} lists, and a window "
                              f"{vectors.shape[1]} tokens", fix="give one list for each, or one for all")
        scale = self.spec.scales.get(modality, self.spec.scale)
        logits = np.where(of_token, scale * vectors @ self._space[modality].T, -np.inf)
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        return (chances / chances.sum(-1, keepdims=True)).max(1)


def expand(templates: Sequence[str], words: dict[str, tuple[str, ...]]) -> list[str]:
    """Every template with every combination of the words that its fields name."""
    rows: list[str] = []
    for template in templates:
        names = list(dict.fromkeys(n for _, n, _, _ in Formatter().parse(template) if n))
        rows += [template.format(**dict(zip(names, chosen, strict=True))) for chosen in product(*(words[n] for n in names))]
    return list(dict.fromkeys(rows))


def _blocks(sizes: Sequence[int]) -> np.ndarray:
    """Which phrases each token tells apart, bool (tokens, P), or (1, P) for all tokens alike."""
    return np.repeat(np.eye(len(sizes), dtype=bool), sizes, axis=1)


def _stems(text: str, known: set[str]) -> set[str]:
    """The known words of a text; a plural or another form counts as its word."""
    found: set[str] = set()
    for word in _WORD.findall(text):
        forms = (word, word.removesuffix("s"), word.removesuffix("es"), word + "s", word.removesuffix("ed") + "ing",
                 word.removesuffix("e") + "ing", word.removesuffix("es") + "ing", word.removesuffix("s") + "ing")
        found |= {next((f for f in forms if f in known), "")}
    return found - {""}
