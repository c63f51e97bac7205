"""Numbers of images, whatever the number of their dimensions."""

import torch


def per_image(numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return one number an image, (batch,) or (chain, batch), as what multiplies its images.

    The axes of ``numbers`` are the first of ``images``, an image has all others: height and width, or three.
    """
    return numbers.reshape(*numbers.shape, *[1] * (images.ndim - numbers.ndim))
