r"""3×3 convolutions of a CPU that take fewer products, or fewer passes over memory, than PyTorch's.

All take images with a row above and below that belongs to the neighbourhood, and pad with zeros left and right.
"""

import torch
from torch.nn import functional

from direct_deepen.priors.cpu.scratch import Scratch

# Winograd's F(4, 3) at the points 0, ±1, ±2 and infinity: six numbers of a kernel of three.
_OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_ROWS = Scratch()


def convolution_by_rows_of_four(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    r"""Return the convolution with half the products: Winograd's algorithm along the columns.

    Four rows of the result need six convolutions by kernels of one row instead of twelve. With the rows d₀ … d₅ that
    four rows y₀ … y₃ depend on, and the kernel's rows g,

    .. math:: y &= M^T \bigl((G g) * (B^T d)\bigr), \qquad
              G^T = \frac{1}{24} \begin{pmatrix} 6&-4&-4&1&1&0\\ 0&-4&4&2&-2&0\\ 0&-4&-4&4&4&24 \end{pmatrix}, \\
              B^T &= \begin{pmatrix} 4&0&-5&0&1&0\\ 0&-4&-4&1&1&0\\ 0&4&-4&-1&1&0\\ 0&-2&-1&2&1&0\\ 0&2&-1&-2&1&0\\
              0&4&0&-5&0&1 \end{pmatrix}, \quad
              M^T = \begin{pmatrix} 1&1&1&1&1&0\\ 0&1&-1&2&-2&0\\ 0&1&1&4&4&0\\ 0&1&-1&8&-8&1 \end{pmatrix},

    each product a convolution along the row (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016,
    section 4, in one dimension). Whole rows are added at a time. The rounding error is twice that of the direct sum.

    Parameters
    ----------
    x
        Real (batch, channel, height + 2, width), channels last in memory; ``height`` a multiple of four.
    weight
        (out channels, channel, 3, 3).
    bias
        (out channels,), or None.

    Returns
    -------
    (batch, out channels, height, width), with channels last in memory; the next call in the same thread takes over its
    place.
    """
    transform = weight.new_tensor(_OF_KERNEL)
    # (6, out, 1, 3, in): a kernel of one row each, channels last in memory.
    kernels = torch.einsum("tr,oirc->toci", transform, weight).contiguous().unsqueeze(2).permute(0, 1, 4, 2, 3)

    def convolved(rows: torch.Tensor, number: int, bias: torch.Tensor | None = None) -> torch.Tensor:
        return functional.conv2d(rows, kernels[number], bias, padding=(0, 1))

    batch, channels, padded_height, width = x.shape
    height, out_channels = padded_height - 2, len(weight)
    shapes = [(height // 4, channels)] * 3 + [(height // 4, out_channels)] * 2 + [(height, out_channels)]
    lengths = [batch * width * rows * count for rows, count in shapes]
    even, odd, rows, near, far, result = (
        memory.view(batch, -1, width, shape[1]).permute(0, 3, 1, 2)
        for memory, shape in zip(_ROWS.stretch(sum(lengths), x.dtype).split(lengths), shapes, strict=True)
    )

    d0, d1, d2, d3, d4, d5 = (x[:, :, row : row + height - 3 : 4] for row in range(6))
    torch.sub(d4, d2, alpha=4, out=even)
    torch.sub(d3, d1, alpha=4, out=odd)
    # The second row of products is in all four rows of the result with weight one: there the bias goes.
    m1 = convolved(torch.add(even, odd, out=rows), 1, bias)
    m2 = convolved(torch.sub(even, odd, out=rows), 2)
    torch.add(m1, m2, out=near)
    near_difference = m1.sub_(m2)

    torch.sub(d4, d2, out=even)
    torch.sub(d3, d1, out=odd)
    m3 = convolved(torch.add(even, odd, alpha=2, out=rows), 3)
    m4 = convolved(torch.sub(even, odd, alpha=2, out=rows), 4)
    torch.add(m3, m4, out=far)
    far_difference = m3.sub_(m4)
    torch.add(near_difference, far_difference, alpha=2, out=result[:, :, 1::4])
    torch.add(near, far, alpha=4, out=result[:, :, 2::4])

    m0 = convolved(torch.add(even, torch.sub(d0, d2, out=rows), alpha=4, out=rows), 0)
    torch.add(m0.add_(near), far, out=result[:, :, 0::4])
    m5 = convolved(torch.sub(d5, d3, out=rows).sub_(odd, alpha=4), 5)
    torch.add(m5.add_(near_difference), far_difference, alpha=8, out=result[:, :, 3::4])
    return result


def convolution_to_few_channels(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the convolution as one product of matrices and nine shifts.

    From 64 channels to two, PyTorch's convolution on a CPU takes twice as long.

    Parameters
    ----------
    x
        Real (batch, channel, height + 2, width), fastest where channels lie last in memory.
    weight
        (few channels, channel, 3, 3).
    bias
        (few channels,), or None.

    Returns
    -------
    (batch, few channels, height, width), with channels last in memory, of single precision at least.
    """
    batch, channels, padded_height, width = x.shape
    few, height = weight.shape[0], padded_height - 2
    products = x.permute(0, 2, 3, 1).reshape(-1, channels) @ weight.permute(1, 2, 3, 0).reshape(channels, 9 * few)
    products = products.view(batch, padded_height, width, 3, 3, few)
    # A column to spare at both sides takes what is shifted out.
    result = x.new_zeros(batch, height, width + 2, few, dtype=torch.promote_types(x.dtype, torch.float32))
    if bias is not None:
        result += bias
    for row in range(3):
        for column in range(3):
            result[:, :, 2 - column : 2 - column + width] += products[:, row : row + height, :, row, column]
    return result[:, :, 1:-1].permute(0, 3, 1, 2)
