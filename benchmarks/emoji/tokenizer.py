"""CLIPTokenizer of the embedded models.

Every word of the captions is one token; any other text falls back to bytes.
"""

import itertools
import json
from pathlib import Path

from torch import Tensor
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

MAX_TOKENS = 20
_END = "</w>"


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
    characters = bytes_to_unicode().values()  # of GPT-2's byte-level BPE, which CLIP uses
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


def compact(path: Path) -> None:
    """Write a `tokenizer.json` again, on one line."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Return padded token ids [N, MAX_TOKENS]."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids
