"""Data whose average velocity is known, in float64: a Gaussian in closed form, points by quadrature."""

import torch

MEAN, STD = 0.7, 0.4
POINTS = torch.tensor([[1.0, 1.0], [-1.0, 0.8], [0.3, -1.2]], dtype=torch.float64)


def column(values):
    return values.view(-1, 1, 1, 1, 1)


class Gaussian:
    """Every value is drawn from the same normal distribution, so each follows a path of its own."""

    def spread(self, timestep):
        """The standard deviation of x_t."""
        return ((1 - timestep) ** 2 * STD**2 + timestep**2).sqrt()

    def velocity(self, x_t, timestep):
        t = column(timestep)
        x0 = MEAN + (1 - t) * STD**2 / self.spread(t) ** 2 * (x_t - (1 - t) * MEAN)
        return (x_t - x0) / t

    def average_velocity(self, x_t, timestep, features, span):
        """x_t keeps its standard score along its path."""
        t, r = column(timestep), column(timestep - span)
        x_r = (1 - r) * MEAN + self.spread(r) / self.spread(t) * (x_t - (1 - t) * MEAN)
        u = (x_t - x_r) / torch.where(t == r, 1.0, t - r)
        return torch.where(t == r, self.velocity(x_t, timestep), u)


class Points:
    """Each of POINTS as often; an item is one of them, as (2, 1, 1, 1)."""

    def weights(self, x_t, timestep):
        """The share (B, 3) of each point in the data that x_t may be of."""
        t = timestep[:, None]
        distances = (x_t.flatten(1)[:, None] - (1 - t)[..., None] * POINTS).square().sum(-1)
        return torch.softmax(-distances / (2 * t**2), dim=1)

    def velocity(self, x_t, timestep):
        x0 = (self.weights(x_t, timestep) @ POINTS).view_as(x_t)
        return (x_t - x0) / column(timestep)

    def average_velocity(self, x_t, timestep, features, span, num=60):
        """By Runge and Kutta's fourth-order steps along the path."""
        x, step = x_t, -column(span) / num
        for index in range(num):
            start, middle, stop = (timestep - span * (index + part) / num for part in (0, 0.5, 1))
            k1 = self.velocity(x, start)
            k2 = self.velocity(x + step / 2 * k1, middle)
            k3 = self.velocity(x + step / 2 * k2, middle)
            k4 = self.velocity(x + step * k3, stop)
            x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return (x_t - x) / torch.where(column(span) == 0, 1.0, column(span))
