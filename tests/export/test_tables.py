"""Numbers that stay known beside their tensors: equal to the tensors' own, and forgotten rather than guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from deploydcn.export import symbolic

pytestmark = pytest.mark.backend("ort")

SIZES = [(8, 6), (4, 3), (2, 2)]


def known(make: Callable[[Tensor], Any]) -> tuple[Tensor, Any]:
    """What `make` computes from a table of sizes, and the numbers known of it: None for a tensor of which nothing is known."""
    with symbolic.symbolic_sizes(torch.nn.Identity()):
        result = make(torch.as_tensor(SIZES))
        return result, symbolic._tables.numbers(result)


def counted_up(table: Tensor) -> Tensor:
    """As the loop over levels of Deformable-DETR's proposals; the table itself stays known."""
    first = 0
    for height, width in table:
        first += height * width
    return table[0] + first


@pytest.mark.parametrize(
    "make",
    [
        lambda table: table[1],
        lambda table: table[..., 1:],
        lambda table: table[:, None, 0],
        lambda table: table.prod(1).cumsum(0)[:-1],
        lambda table: torch.cat((table.new_zeros((1,)), table.prod(1).cumsum(0)[:-1])),
        lambda table: torch.stack([table[..., 1], table[..., 0]], -1),
        lambda table: torch.stack([area for area in table.prod(1)]),  # noqa: C416  (a loop over a tensor)
        lambda table: (table[:, 0] * table[:, 1]).sum(),
        lambda table: 60 - table.flip(1).to(torch.int32).reshape(-1),
        lambda table: (table + 1) // 2 - table.flip((0, 1)),
        lambda table: torch.div(table, 2, rounding_mode="floor").long(),
        lambda table: torch.tensor([table[0, 0], 7, table[1].sum()]),
        lambda table: table.sum((0, 1)) == 25,
        lambda table: table.unbind(1)[0].clone(),
        counted_up,
        lambda table: torch._shape_as_tensor(torch.zeros(table[0, 0], 5))[-2:],
    ],
)
def test_numbers_are_the_tensors_own(make: Callable[[Tensor], Tensor]) -> None:
    tensor, numbers = known(make)
    assert numbers is not None
    assert numbers.shape == tuple(tensor.shape)
    assert numbers.tolist() == tensor.tolist()


def changed_in_place(table: Tensor) -> Tensor:
    table[0] += 1
    return table


def changed_in_a_view(table: Tensor) -> Tensor:
    row = table[0]
    row += 1
    return table.sum()


def changed_under_another_name(table: Tensor) -> Tensor:
    table.t().mul_(2)
    return table


@pytest.mark.parametrize(
    "make",
    [
        lambda table: table / 2,
        lambda table: table * 0.5,
        lambda table: table.float(),
        lambda table: table + torch.tensor([1.5]),
        lambda table: table * torch.arange(2),
        lambda table: table.sort(0).values,
        lambda table: table[torch.tensor([0, 2])],
        lambda table: torch.div(table, 2, rounding_mode="trunc"),
        lambda table: table.to(torch.uint8),
        changed_in_place,
        changed_in_a_view,
        changed_under_another_name,
    ],
)
def test_what_is_not_certain_is_not_known(make: Callable[[Tensor], Tensor]) -> None:
    assert known(make)[1] is None


def test_numbers_are_taken_out() -> None:
    with symbolic.symbolic_sizes(torch.nn.Identity()):
        table = torch.as_tensor(SIZES)
        height, width = table[0]
        assert symbolic._Int(height) == 8
        assert (height.item(), table.tolist(), len(range(width))) == (8, [[8, 6], [4, 3], [2, 2]], 6)
        assert torch.zeros(1, 48).view(1, -1, height, width).shape == (1, 1, 8, 6)
        assert [part.shape[1] for part in torch.zeros(1, 64).split([h * w for h, w in table], 1)] == [48, 12, 4]
        expected = torch.linspace(0.5, 7.5, 8)
        torch.testing.assert_close(torch.linspace(0.5, height - 0.5, height), expected)
    assert not symbolic._tables._known, "nothing is remembered beyond an export"
