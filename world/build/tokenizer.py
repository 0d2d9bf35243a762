"""CLIPTokenizer of the embedded models.

Every word of the captions is one token; any other text falls back to bytes.
"""

import itertools
import json
from pathlib import Path

from torch import Tensor
from transformers import CLIPTokenizer

MAX_TOKENS = 20
_END = "</w>"


def _byte_characters() -> list[str]:
    """Return the printable stand-in of each byte in GPT-2's byte-level BPE, which CLIP uses."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    table = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [table[b] for b in [*printable, *others]]


def _merges_of(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return tokens and merges that build each word from left to right.

    Merges of shorter words are used by longer ones.
    """
    tokens: list[str] = []
    merges: list[tuple[str, str]] = []
    for word in sorted(words, key=lambda w: (len(w), w)):
        parts = [*word[:-1], word[-1] + _END]
        while len(parts) > 1:
            pairs = enumerate(itertools.pairwise(parts))
            ranked = [(merges.index(pair), i) for i, pair in pairs if pair in merges]
            at = min(ranked)[1] if ranked else 0
            pair = (parts[at], parts[at + 1])
            if not ranked:
                merges.append(pair)
                tokens.append(pair[0] + pair[1])
            parts[at : at + 2] = [pair[0] + pair[1]]
    return list(dict.fromkeys(tokens)), merges


def build_tokenizer(words: list[str], folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's files to `folder` and open it."""
    characters = _byte_characters()
    tokens, merges = _merges_of(words)
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = dict.fromkeys([*characters, *(c + _END for c in characters), *tokens, *special])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer: CLIPTokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Return padded token ids [N, MAX_TOKENS]."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids
