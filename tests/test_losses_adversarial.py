"""Adversarial games: by formula, against MONAI, and in a tiny fight."""

import math

import pytest
import torch
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.losses import ADVERSARIAL, AdversarialLoss, gradient_penalty

FAKE, REAL = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 1.0])


def soft(x: float) -> float:
    """-log sigmoid(x)."""
    return math.log1p(math.exp(-x))


def test_vanilla_by_formula() -> None:
    game = AdversarialLoss("vanilla")
    assert float(game.generator(FAKE)) == pytest.approx((soft(0.5) + soft(-1)) / 2)
    expected = (soft(2) + soft(1)) / 2 + (soft(-0.5) + soft(1)) / 2
    assert float(game.discriminator(FAKE, REAL)) == pytest.approx(expected / 2)


def test_least_squares_by_formula() -> None:
    game = AdversarialLoss("least_squares")
    assert float(game.generator(FAKE)) == pytest.approx((0.25 + 4) / 2)
    assert float(game.discriminator(FAKE, REAL)) == pytest.approx(((1 + 0) / 2 + (0.25 + 1) / 2) / 2)


def test_wasserstein_by_formula() -> None:
    game = AdversarialLoss("wgan_gp")
    assert float(game.generator(FAKE)) == 0.25
    assert float(game.discriminator(FAKE, REAL)) == -0.25 - 1.5


def test_relativistic_average_by_formula() -> None:
    game = AdversarialLoss("relativistic")
    real = [r - (-0.25) for r in (2.0, 1.0)]
    fake = [f - 1.5 for f in (0.5, -1.0)]
    generator = (sum(soft(-r) for r in real) / 2 + sum(soft(f) for f in fake) / 2) / 2
    discriminator = (sum(soft(r) for r in real) / 2 + sum(soft(-f) for f in fake) / 2) / 2
    assert float(game.generator(FAKE, REAL)) == pytest.approx(generator)
    assert float(game.discriminator(FAKE, REAL)) == pytest.approx(discriminator)
    assert game.needs_real
    with pytest.raises(InputError, match="give real="):
        game.generator(FAKE)


@pytest.mark.parametrize(("kind", "criterion"), [("least_squares", "least_squares"), ("vanilla", "bce")])
def test_agrees_with_monai(kind: str, criterion: str) -> None:
    from monai.losses.adversarial_loss import PatchAdversarialLoss

    reference = PatchAdversarialLoss(criterion=criterion, no_activation_leastsq=True)
    game = AdversarialLoss(kind)
    fake, real = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    if criterion == "bce":  # MONAI applies the sigmoid and clamps inside; equal up to rounding
        expected = reference(fake, target_is_real=True, for_discriminator=False)
        assert float(game.generator(fake)) == pytest.approx(float(expected), rel=1e-4)
        return
    assert float(game.generator(fake)) == pytest.approx(
        float(reference(fake, target_is_real=True, for_discriminator=False)), rel=1e-5
    )
    both = reference(real, target_is_real=True, for_discriminator=True) + reference(
        fake, target_is_real=False, for_discriminator=True
    )
    assert float(game.discriminator(fake, real)) == pytest.approx(float(both) / 2, rel=1e-5)


def test_a_list_of_features_ends_in_the_logits() -> None:
    game = AdversarialLoss("least_squares")
    assert game.generator([torch.randn(1, 8, 4, 4), FAKE]) == game.generator(FAKE)


def test_gradient_penalty_of_a_linear_critic() -> None:
    weight = torch.tensor([3.0, 4.0])

    def critic(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=1, keepdim=True)

    penalty = gradient_penalty(critic, torch.randn(6, 2), torch.randn(6, 2))
    assert float(penalty) == pytest.approx((5 - 1) ** 2, rel=1e-5)


def test_gradient_penalty_judges_each_item_and_repeats_with_its_generator() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    fake, real = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    values = [gradient_penalty(critic, fake, real, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert values[0] == values[1]
    assert values[0] != values[2]
    torch.autograd.backward(values[0])
    first = critic[0].weight
    assert isinstance(first, nn.Parameter)
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_tiny_fight_moves_the_fake_towards_the_real(kind: str) -> None:
    torch.manual_seed(1)
    game = AdversarialLoss(kind)
    fake = nn.Parameter(torch.zeros(1))
    critic = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    steps = [torch.optim.Adam(p, 0.02, betas=(0.5, 0.9)) for p in ([fake], list(critic.parameters()))]
    best = 9.0
    for _ in range(250):
        real, made = 2 + 0.1 * torch.randn(32, 1), fake + 0.1 * torch.randn(32, 1)
        loss = game.discriminator(critic(made.detach()), critic(real))
        if kind == "wgan_gp":
            loss = loss + 10 * gradient_penalty(critic, made.detach(), real)
        steps[1].zero_grad()
        torch.autograd.backward(loss)
        steps[1].step()
        steps[0].zero_grad()
        torch.autograd.backward(game.generator(critic(made), critic(real).detach()))
        steps[0].step()
        best = min(best, abs(float(fake) - 2))
    assert best < 0.3


def test_unknown_games_are_refused() -> None:
    with pytest.raises(InputError, match="'hinge' is not one of vanilla"):
        AdversarialLoss("hinge")
