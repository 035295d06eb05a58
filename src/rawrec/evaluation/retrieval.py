"""Is the text of a picture found among all texts, and the picture of a text among all pictures?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AT_ONCE = 2**24  # scores made at a time
CUTOFFS = (1, 5, 10)


@torch.no_grad()
def pair_recall(
    image: Tensor, text: Tensor, picture_number: Tensor, text_number: Tensor, cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, float]:
    """`image_to_text/recall@k`, `text_to_image/recall@k`, and `recall`, the mean of all of them.

    image, text: `[n, width]`, whose products are scores; row i of the one is of row i of the other. picture_number,
    text_number: `[n]`, equal where the content is equal: what is alike is not counted as another. Of equal scores all
    others are counted as higher, so that an encoder that knows nothing has nothing.
    """
    ranks = {
        "image_to_text": _ranks(image, text, picture_number, text_number),
        "text_to_image": _ranks(text, image, picture_number, text_number),
    }
    found = {f"{way}/recall@{k}": float((r < k).double().mean()) for way, r in ranks.items() for k in cutoffs}
    return {**found, "recall": sum(found.values()) / len(found)}


def _ranks(queries: Tensor, answers: Tensor, *numbers: Tensor) -> Tensor:
    """How many others stand before the right answer of each query, `[n]`."""
    n, parts = len(queries), []
    for rows in torch.arange(n, device=queries.device).split(max(1, AT_ONCE // n)):
        scores = queries[rows] @ answers.T
        own = scores.gather(1, rows[:, None])
        others = torch.ones_like(scores, dtype=torch.bool)
        for number in numbers:
            others &= number[rows, None] != number
        parts.append(((scores >= own) & others).sum(1))
    return torch.cat(parts)
