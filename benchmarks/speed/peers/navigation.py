"""MAML-TRPO on 2D navigation in PyTorch and NumPy, in the style of its PyTorch ports: `... navigation SHARE THREADS`.

It has a vectorised NumPy environment, Python loops over time and tasks, and a least-squares linear baseline. Autograd
computes the adaptation, the meta-gradient and the Hessian-vector products of the mean divergence. SHARE is the share of
tasks whose divergence gives the curvature (the ports use all tasks, and ten conjugate-gradient steps instead of five).
"""

import math
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.worker_protocol import serve

TASKS, TRAJECTORIES, HORIZON, HIDDEN = 20, 20, 100, 100
RATE, MAX_KL, DAMPING, PRODUCTS, BACKTRACKS, RATIO = 0.5, 0.01, 1e-5, 5, 15, 0.8
DISCOUNT, RIDGE = 0.99, 1e-5


class Batch(NamedTuple):
    """One task's trajectories, `[steps, trajectories, ...]`, as a surrogate needs them."""

    seen: Any
    actions: Any
    advantages: Any
    mask: Any
    log_probs: Any
    mean: Any
    log_std: Any
    returns: float


def steps_of(position: np.ndarray, action: np.ndarray, goal: np.ndarray) -> tuple[Any, Any, Any]:
    """One step of the vectorised environment: next positions, rewards and whether they are done."""
    position = position + 0.1 * np.clip(action, -1, 1)
    away = position - goal
    return position, -np.linalg.norm(away, axis=-1), (np.abs(away) < 0.01).all(-1)


def advantages_of(seen: np.ndarray, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns minus a linear baseline fitted to them, normalised over the valid steps."""
    totals, later = np.zeros_like(rewards), np.zeros(rewards.shape[1])
    for t in reversed(range(HORIZON)):
        later = totals[t] = rewards[t] + DISCOUNT * later
    clock = np.broadcast_to(np.arange(HORIZON)[:, None, None] / 100, (*rewards.shape, 1))
    one = np.ones_like(clock)
    phi = np.concatenate([seen, seen**2, clock, clock**2, clock**3, one], -1)[mask > 0]
    weights = np.linalg.solve(phi.T @ phi + RIDGE * np.eye(phi.shape[1]), phi.T @ totals[mask > 0])
    left = totals[mask > 0] - phi @ weights
    found = np.zeros_like(rewards)
    found[mask > 0] = (left - left.mean()) / (left.std() + 1e-8)
    return found


class Navigator:
    """The peer: its parameters and its meta-iterations."""

    def __init__(self, share: float, threads: int):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch, self.share, self.random = torch, share, np.random.default_rng(0)
        sizes = [(2, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2)]
        self.params = []
        for size in sizes:
            weight = torch.empty(*size)
            torch.nn.init.xavier_uniform_(weight)
            self.params += [weight.requires_grad_(), torch.zeros(size[1], requires_grad=True)]
        self.params.append(torch.zeros(2, requires_grad=True))

    def act(self, params: list, seen: Any) -> Any:
        """The policy's normal distribution over actions."""
        w1, b1, w2, b2, w3, b3, log_std = params
        h = self.torch.relu(seen @ w1 + b1)
        h = self.torch.relu(h @ w2 + b2)
        return self.torch.distributions.Normal(h @ w3 + b3, log_std.exp())

    def rollout(self, params: list, goal: np.ndarray) -> Batch:
        """Sample all trajectories in parallel, in a Python loop over steps."""
        torch = self.torch
        position, alive = np.zeros((TRAJECTORIES, 2)), np.ones(TRAJECTORIES)
        rows: list[tuple] = []
        with torch.no_grad():
            for _ in range(HORIZON):
                seen = position.astype(np.float32)
                action = self.act(params, torch.from_numpy(seen)).sample().numpy()
                position, reward, done = steps_of(position, action, goal)
                rows.append((seen, action, reward * alive, alive))
                alive = alive * ~done
            seen, actions, rewards, mask = (np.stack(x) for x in zip(*rows, strict=True))
            judged = advantages_of(seen, rewards, mask)
            tensor = lambda x: torch.from_numpy(x.astype(np.float32))
            answers, acted = self.act(params, tensor(seen)), tensor(actions)
            log_probs, log_std = answers.log_prob(acted).sum(-1), params[-1].detach()
        returns = float(rewards.sum(0).mean())
        facts = (log_probs, answers.mean, log_std, returns)
        return Batch(tensor(seen), acted, tensor(judged), tensor(mask), *facts)

    def adapt(self, batch: Batch, differentiated: bool = True) -> list:
        """One step of REINFORCE."""
        log_probs = self.act(self.params, batch.seen).log_prob(batch.actions).sum(-1)
        loss = -(log_probs * batch.advantages * batch.mask).sum() / batch.mask.sum()
        grads = self.torch.autograd.grad(loss, self.params, create_graph=differentiated)
        return [p - RATE * g for p, g in zip(self.params, grads, strict=True)]

    def judged(self, pairs: list[tuple[Batch, Batch]], differentiated: bool = True) -> tuple[Any, Any]:
        """Mean query loss and mean divergence at the adapted policies."""
        torch, losses, kls = self.torch, [], []
        for support, query in pairs:
            answers = self.act(self.adapt(support, differentiated), query.seen)
            ratio = (answers.log_prob(query.actions).sum(-1) - query.log_probs).exp()
            weights = query.mask / query.mask.sum()
            losses.append(-(ratio * query.advantages * weights).sum())
            old = torch.distributions.Normal(query.mean, query.log_std.exp())
            kls.append((torch.distributions.kl_divergence(old, answers).sum(-1) * weights).sum())
        return torch.stack(losses).mean(), torch.stack(kls).mean()

    def flat(self, tensors: Any) -> Any:
        """Flatten tensors into one vector."""
        return self.torch.cat([x.reshape(-1) for x in tensors])

    def iteration(self) -> tuple[float, float]:
        """Run one meta-iteration; return the mean return before and after adaptation."""
        pairs = []
        for goal in self.random.uniform(-0.5, 0.5, (TASKS, 2)):
            support = self.rollout(self.params, goal)
            adapted = [p.detach() for p in self.adapt(support, differentiated=False)]
            pairs.append((support, self.rollout(adapted, goal)))
        loss, _ = self.judged(pairs)
        gradient = self.flat(self.torch.autograd.grad(loss, self.params)).detach()
        self.move(pairs, float(loss.detach()), gradient)
        return tuple(float(np.mean([pair[i].returns for pair in pairs])) for i in (0, 1))  # pyright: ignore[reportReturnType]

    def move(self, pairs: list[tuple[Batch, Batch]], before: float, gradient: Any) -> None:
        """Update the parameters by conjugate gradients and a line search."""
        torch = self.torch
        _, kl = self.judged(pairs[: math.ceil(self.share * TASKS)])
        slope = self.flat(torch.autograd.grad(kl, self.params, create_graph=True))

        def product(v: Any) -> Any:
            return self.flat(torch.autograd.grad(slope @ v, self.params, retain_graph=True)) + DAMPING * v

        x, left, p = torch.zeros_like(gradient), gradient.clone(), gradient.clone()
        size = left @ left
        for _ in range(PRODUCTS):
            curved = product(p)
            length = size / (p @ curved)
            x, left = x + length * p, left - length * curved
            smaller = left @ left
            p, size = left + smaller / size * p, smaller
        full = torch.sqrt(2 * MAX_KL / (x @ product(x)).clamp_min(1e-30)) * x
        start = [p.detach().clone() for p in self.params]
        for i in range(BACKTRACKS):
            self.put(start, RATIO**i * full)
            loss, kl = (float(x.detach()) for x in self.judged(pairs, differentiated=False))
            if loss < before and kl <= MAX_KL:
                return
        self.put(start, torch.zeros_like(full))

    def put(self, start: list, step: Any) -> None:
        """Set the parameters to `start - step`."""
        parts = step.split([p.numel() for p in start])
        with self.torch.no_grad():
            for p, s, part in zip(self.params, start, parts, strict=True):
                p.copy_(s - part.view_as(s))

    def steps(self, count: int) -> dict[str, Any]:
        """Run `count` meta-iterations."""
        begun = time.perf_counter()
        returns = [self.iteration() for _ in range(count)]
        return {"seconds": time.perf_counter() - begun, "returns": returns[-1]}


if __name__ == "__main__":
    share, threads = float(sys.argv[1]), int(sys.argv[2])
    serve(lambda: Navigator(share, threads), threads)  # pyright: ignore
