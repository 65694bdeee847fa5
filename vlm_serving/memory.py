"""What a decoder remembers while it speaks: keys and values of the pictures, and of what was said of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

# A picture that is done costs its share of every step; taking it out copies all others, two steps' work.
DONE_SHARE = 0.25


@dataclass
class Said:
    """What the decoder remembers of R rows (pictures times beams) and their P pictures. Rows of a picture are
    neighbours.
    """

    beams: int
    length: int  # tokens of each row
    own: Tensor  # keys and values of what was said: (2, layers, R, heads, longest, head_dim)
    seen: list[tuple[Tensor, Tensor]]  # keys and values of the pictures in each layer, (P, heads, T, head_dim) each

    def advance(self, places: Tensor, steps: int) -> Tensor:
        """Make room for `steps` tokens more; returns their rows of `places`."""
        self.length += steps
        return places[self.length - steps : self.length]

    def remember(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add keys and values of the newest tokens, (R, heads, S, head_dim); returns all of that layer, and which of
        them may be read (None: all).
        """
        newest = slice(self.length - key.shape[2], self.length)
        own = self.own[:, layer, : len(key)]
        own[0, :, :, newest], own[1, :, :, newest] = key, value
        keys, values = own[:, :, :, : self.length].unbind(0)
        return keys, values, None

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row `rows[n]` was, of the same picture. (R,) int64"""
        said = self.own[:, :, : len(rows), :, : self.length]
        said.copy_(said.index_select(2, rows))

    def worth_leaving(self, left: int, pictures: int) -> bool:
        """Whether it pays to take those out that are done, if `left` of `pictures` go on."""
        return left <= (1 - DONE_SHARE) * pictures

    def keep(self, pictures: Tensor) -> None:
        """Forget all but these pictures. (P',) int64"""
        self.own = self.own.index_select(2, self.rows_of(pictures))
        self.seen = [(keys.index_select(0, pictures), values.index_select(0, pictures)) for keys, values in self.seen]

    def rows_of(self, pictures: Tensor) -> Tensor:
        """(P',) -> (P' * beams,)."""
        return (pictures[:, None] * self.beams + torch.arange(self.beams, device=pictures.device)).flatten()
