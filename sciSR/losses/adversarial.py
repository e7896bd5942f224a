"""Losses of a generator against a discriminator.

All take the discriminator's raw outputs (no sigmoid), a tensor of any shape or a list of feature maps whose last entry
they are (MONAI's PatchDiscriminator), and average over everything. Fake is what the generator made, real the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from sciSR.errors import InputError

__all__ = ["ADVERSARIAL", "AdversarialLoss", "gradient_penalty"]

Output = Tensor | Sequence[Tensor]


class _Game(NamedTuple):
    """What generator and discriminator each make small, of fake and real logits."""

    generator: Callable[[Tensor, Tensor | None], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]
    needs_real: bool = False


def _towards(logits: Tensor, label: float) -> Tensor:
    return cross_entropy(logits, torch.full_like(logits, label))


def _relative(fake: Tensor, real: Tensor | None, label: float) -> Tensor:
    assert real is not None
    return (_towards(real - fake.mean(), label) + _towards(fake - real.mean(), 1 - label)) / 2


ADVERSARIAL: dict[str, _Game] = {
    # Goodfellow et al. 2014, arXiv:1406.2661, with the non-saturating generator of its section 3
    "vanilla": _Game(
        lambda fake, real: _towards(fake, 1.0), lambda fake, real: (_towards(real, 1.0) + _towards(fake, 0.0)) / 2
    ),
    # Mao et al. 2017, doi:10.1109/ICCV.2017.304, equation 9 (labels 0 and 1); the generator's half is left out, as the
    # weight of the term sets its size
    "least_squares": _Game(
        lambda fake, real: (fake - 1).square().mean(),
        lambda fake, real: ((real - 1).square().mean() + fake.square().mean()) / 2,
    ),
    # Arjovsky et al. 2017, arXiv:1701.07875; with gradient_penalty (Gulrajani et al. 2017, arXiv:1704.00028)
    "wgan_gp": _Game(lambda fake, real: -fake.mean(), lambda fake, real: fake.mean() - real.mean()),
    # Jolicoeur-Martineau 2018, arXiv:1807.00734, relativistic average; as in ESRGAN, arXiv:1809.00219
    "relativistic": _Game(
        lambda fake, real: _relative(fake, real, 0.0), lambda fake, real: _relative(fake, real, 1.0), needs_real=True
    ),
}
"""Name -> the game."""


class AdversarialLoss(nn.Module):
    """One adversarial game.

    Args:
        kind: one of :data:`ADVERSARIAL`: ``"vanilla"``, ``"least_squares"``, ``"wgan_gp"``, ``"relativistic"``.

    Raises:
        InputError: no such game.

    Example:
        >>> game = AdversarialLoss("least_squares")
        >>> float(game.generator(torch.ones(2, 1, 4, 4))), float(game.discriminator(torch.ones(3), torch.ones(3)))
        (0.0, 0.5)
    """

    def __init__(self, kind: str = "vanilla") -> None:
        super().__init__()
        if kind not in ADVERSARIAL:
            raise InputError(f"adversarial loss: {kind!r} is not one of {', '.join(ADVERSARIAL)}")
        self.kind = kind

    @property
    def needs_real(self) -> bool:
        """Whether the generator's loss looks at the real images too."""
        return ADVERSARIAL[self.kind].needs_real

    def generator(self, fake: Output, real: Output | None = None) -> Tensor:
        """What the generator makes small.

        Args:
            fake: the discriminator's output for what was generated.
            real: its output for real images, without gradient; needed by the relativistic game.

        Raises:
            InputError: ``real`` is needed and did not come.
        """
        if self.needs_real and real is None:
            raise InputError(f"adversarial loss: the {self.kind} game compares with real images; give real=")
        return ADVERSARIAL[self.kind].generator(_logits(fake), None if real is None else _logits(real))

    def discriminator(self, fake: Output, real: Output) -> Tensor:
        """What the discriminator makes small; detach what was generated before it is judged for this."""
        return ADVERSARIAL[self.kind].discriminator(_logits(fake), _logits(real))


def gradient_penalty(
    discriminator: Callable[[Tensor], Output],
    fake: Tensor,
    real: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean of (|gradient| - 1)² at random points between fake and real images (arXiv:1704.00028, equation 3).

    Args:
        discriminator: images to logits; without batch normalisation, which would mix the items.
        fake: generated images ``(b, …)``.
        real: real images, same shape.
        generator: of the random points.

    Returns:
        The penalty, to be multiplied by the paper's weight of 10 and added to the discriminator's loss.
    """
    shape = (len(real), *[1] * (real.dim() - 1))
    share = torch.rand(shape, generator=generator, device=real.device, dtype=real.dtype)
    points = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    logits = _logits(discriminator(points))
    (slope,) = torch.autograd.grad(logits.flatten(1).mean(dim=1).sum(), points, create_graph=True)
    penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def _logits(output: Output) -> Tensor:
    return output if isinstance(output, Tensor) else output[-1]
