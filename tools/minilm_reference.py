"""Embed sentences with the original MiniLM, for tests/numeric/test_adapters.py. Needs torch and transformers.

python -m tools.minilm_reference MODEL_FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

FILE = Path(__file__).parents[1] / "tests" / "numeric" / "minilm_embeddings.json"
SENTENCES = (
    "A man is eating food.",
    "Two dogs run across a snowy field!",
    "command-line tool to convert PDF files to plain text",
    "Perl module for reading and writing CSV files",
    "Real-time strategy game of ancient warfare",
    "Überraschend: naïve café, 你好 and ½",
    "a",
    "don't e-mail user@example.org (v2.0.1-rc3); see https://example.org/~x?y=1",
    "antidisestablishmentarianism and floccinaucinihilipilification",
    "The gradient of the loss after a few steps of gradient descent is taken through those steps, which costs a second "
    "derivative, so that a sentence of more than thirty-two word pieces is needed to see that it is cut.",
)
TOKENS = 32


def main(folder: str) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(
        list(SENTENCES), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state.double()
    real = batch["attention_mask"].unsqueeze(-1).double()
    found = torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1), dim=1)
    rows = [
        {"sentence": s, "tokens": t[m == 1].tolist(), "embedding": [round(x, 8) for x in e.tolist()]}
        for s, t, m, e in zip(SENTENCES, batch["input_ids"], batch["attention_mask"], found, strict=True)
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
