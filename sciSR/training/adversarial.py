"""Adversarial training in the manner of SRGAN and ESRGAN: a discriminator learns beside the network.

The network is trained with an ordinary loss first; only then does a game make sense (Ledig et al. 2017,
arXiv:1609.04802, section 3.2; Wang et al. 2018, arXiv:1809.00219, section 4.1). The discriminator takes its step after
the network's, on the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.losses import AdversarialLoss, Loss, gradient_penalty
from sciSR.networks.discriminator import Discriminator, build_discriminator
from sciSR.sampling import Pair
from sciSR.training.lessons import Lesson, Tally

__all__ = ["AdversarialLesson", "Game"]


@dataclass(frozen=True)
class Game:
    """Settings of adversarial training.

    Attributes:
        kind: one of :data:`sciSR.losses.ADVERSARIAL`.
        weight: of the adversarial term beside the loss.
        discriminator: ``patch`` or ``vgg``.
        features: channels of the discriminator's first layer.
        layers: of the discriminator; None: its own default.
        learning_rate: the discriminator's, as a part of the network's.
        force: start although the network was never trained without a game.
    """

    kind: str = "relativistic"
    weight: float = 5e-3
    discriminator: str = "patch"
    features: int = 32
    layers: int | None = None
    learning_rate: float = 1.0
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("weight", "features", "layers", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"adversarial.{name}: {value} came, expected more than 0")

    def check(self, pretrained: bool) -> None:
        """Raise InputError for a network that no loss has trained yet."""
        if not (pretrained or self.force):
            raise InputError(
                "adversarial: the network is untrained; train it without a game first and name its weights as network, "
                "or set adversarial.force"
            )

    def referee(self, ndim: int, channels: int) -> Discriminator:
        """The discriminator."""
        count = {} if self.layers is None else {"layers" if self.discriminator == "patch" else "levels": self.layers}
        return build_discriminator(self.discriminator, ndim=ndim, in_channels=channels, features=self.features, **count)


class AdversarialLesson(Lesson):
    """A loss and a game against a discriminator.

    Args:
        loss: between prediction and target.
        game: the settings.
        discriminator: on the device.
        learning_rate: of the network.
        fabric: a launched ``lightning_fabric.Fabric``.
    """

    def __init__(self, loss: Loss, game: Game, discriminator: Discriminator, learning_rate: float, fabric: Any) -> None:
        self.loss = Tally(loss)
        self.game = game
        self.rules = AdversarialLoss(game.kind)
        self._fabric = fabric
        self._plain = discriminator
        optimizer = torch.optim.AdamW(
            discriminator.parameters(), game.learning_rate * learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._judge, self._optimizer = fabric.setup(discriminator, optimizer)
        self._fake: Tensor | None = None
        self._real: Tensor | None = None

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """See :class:`~sciSR.training.lessons.Lesson`."""
        prediction = model(pair.low).float()
        plain = self.loss(prediction, pair.high, pair.low)
        self._plain.requires_grad_(False)
        real = self._plain(pair.high).detach() if self.rules.needs_real else None
        value = plain + self.game.weight * self.rules.generator(self._plain(prediction), real)
        self._plain.requires_grad_(True)
        self._fake, self._real = prediction.detach(), pair.high
        return value

    def terms(self) -> dict[str, Tensor]:
        """Those of the loss beside the game."""
        return self.loss.means()

    def after(self, step: int) -> dict[str, float]:
        """The discriminator's step; how well it tells the two apart."""
        assert self._fake is not None
        assert self._real is not None
        fake, real = self._judge(torch.cat([self._fake, self._real])).chunk(2)
        value = self.rules.discriminator(fake, real)
        if self.game.kind == "wgan_gp":
            value = value + 10.0 * gradient_penalty(self._plain, self._fake, self._real)
        self._fabric.backward(value)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        middle = (fake.mean() + real.mean()) / 2
        right = ((real > middle).float().mean() + (fake < middle).float().mean()) / 2
        return {"discriminator_loss": float(value.detach()), "discriminator_accuracy": float(right)}

    def state_dict(self) -> dict[str, Any]:
        """The discriminator and its optimizer."""
        return {"discriminator": self._plain.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back."""
        self._plain.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
