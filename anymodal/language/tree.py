"""Rows of token ids as a tree: beginnings that rows share are there once.

    "now: a bell rings?"          <question> now : a -+- bell rings ? <answer>
    "now: a red star stops?"                          +- red star stops ? <answer>

Nodes are numbered so that a parent comes before its children. S nodes, N rows, L tokens of the longest row, U kinds.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anymodal.language.rows import twins_before


@dataclass(frozen=True, slots=True)
class Tree:
    """`kinds`: nodes of one token at one depth are of one kind; to the first layer, which sees no context, they are one."""

    ids: Tensor  # (S,)
    depths: Tensor  # (S,)
    paths: Tensor  # (N, L): the nodes of each row; behind its end, its last one again
    lengths: tuple[int, ...]  # N
    first: Tensor  # (S,): where in the flat paths each node is found first
    kinds: Tensor  # (S,): the kind of each node,
    examples: Tensor  # (U,): and a node of each kind
    leaves: Tensor  # (N,)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu",
           twins: Container[tuple[int, int]] = ()) -> Tree:
        """rows: N of at least one id each. twins: pairs of ids of which the second is as deep as the first."""
        children: dict[tuple[int, int], int] = {}  # (parent, id) -> node
        kinds: dict[tuple[int, int], int] = {}  # (id, depth) -> kind
        ids: list[int] = []
        depths: list[int] = []
        first: list[int] = []
        kind_of: list[int] = []
        examples: list[int] = []
        longest = max(map(len, rows))
        paths = []
        for number, row in enumerate(rows):
            path, node = [], -1
            depths_here = np.arange(len(row)) - twins_before(row, twins)
            for index, (depth, token) in enumerate(zip(depths_here.tolist(), row)):
                node = children.setdefault((node, token), len(ids))
                if node == len(ids):
                    kind = kinds.setdefault((token, depth), len(examples))
                    if kind == len(examples):
                        examples.append(node)
                    ids.append(token)
                    depths.append(depth)
                    first.append(number * longest + index)
                    kind_of.append(kind)
                path.append(node)
            paths.append(path + [path[-1]] * (longest - len(path)))
        tensors = [torch.tensor(x, device=device) for x in (ids, depths, paths, first, kind_of, examples)]
        return cls(*tensors[:3], tuple(map(len, rows)), *tensors[3:], tensors[2][:, -1])

    def rows_to_the_right(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The paths of some rows (R, T), ended alike; and how many places before each are padding, (R,)."""
        longest = max(self.lengths[row] for row in rows)
        pads = torch.tensor([longest - self.lengths[row] for row in rows], device=self.paths.device)
        at = torch.arange(longest, device=pads.device) - pads[:, None]
        return self.paths[list(rows)].gather(1, at.clamp(min=0)), pads
