"""An objective of your own: score matching at one noise level by absolute errors, which outliers sway less."""

from dataclasses import dataclass

import torch

from direct_deepen.objectives import Loss, Objective, Update
from direct_deepen.parts import setting
from direct_deepen.physics.noise import complex_normal_like


@dataclass
class RobustScoreMatching(Objective):
    """mean |∇E(x + z) − z|, z of one noise level.

    Attributes
    ----------
    level
        Standard deviation of z per real component, in scaled intensities.
    """

    level: float = setting(0.05, above=0)

    def loss(self, update: Update) -> Loss:
        """Return the loss of an update."""
        noise = self.level * complex_normal_like(update.reference, generator=update.generator)
        noisy = (update.reference + noise).requires_grad_()
        (gradient,) = torch.autograd.grad(update.model(noisy).sum(), noisy, create_graph=True)
        loss = torch.view_as_real(gradient - noise).abs().mean()
        return Loss(loss, "robust_loss", {"train/noise_level": self.level})
