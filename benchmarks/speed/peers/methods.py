"""Each peer's meta-gradient: `method(w, net, tasks)` leaves the mean over tasks in the parameters' `.grad`.

Each method follows its package's documentation. Tasks run one after the other, each differentiated before the next,
which keeps only one graph in memory and is as fast; `torch.func` runs all at once. In ANIL, every peer computes the
body's features once and adapts only the head, which is the fastest way in each package.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from benchmarks.speed.peers.network import Net, criterion
from benchmarks.speed.workloads import HIGHER, LOOP, TORCHOPT, VMAP, Workload

Tasks = tuple[Tensor, Tensor, Tensor, Tensor]
Method = Callable[[Workload, Net, Tasks], None]


def adapted_part(w: Workload, net: Net, *inputs: Tensor) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module that the inner loop adapts, and its inputs: the whole net, or ANIL's head and the body's features."""
    return (net.head, tuple(net.body(x) for x in inputs)) if w.algorithm == "anil" else (net, inputs)


def add_gradients(net: Net, grads: dict[str, Tensor], scale: float) -> None:
    """Add scaled gradients to the parameters' `.grad`."""
    for name, parameter in net.named_parameters():
        part = grads[name].detach() * scale
        parameter.grad = part if parameter.grad is None else parameter.grad + part


def pytorch_loop(w: Workload, net: Net, tasks: Tasks) -> None:
    """`functional_call` with a dictionary of parameters and `torch.autograd.grad`, in a Python loop over tasks."""
    for task in zip(*tasks, strict=True):
        loop_one_task(w, net, *task)


def loop_one_task(w: Workload, net: Net, xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor) -> None:
    """One task of `pytorch_loop`."""
    loss_of, second_order = criterion(w), w.algorithm in ("maml", "anil")
    part, (xs, xq) = adapted_part(w, net, xs, xq) if w.query else (net, (xs, xq))
    params = dict(part.named_parameters())
    if not second_order:
        params = {k: v.detach().requires_grad_() for k, v in params.items()}
    first = params
    for _ in range(w.steps):
        loss = loss_of(functional_call(part, params, (xs,)), ys)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=second_order)
        params = {k: v - w.rate * g for (k, v), g in zip(params.items(), grads, strict=True)}
        if not second_order:
            params = {k: v.detach().requires_grad_() for k, v in params.items()}
    if w.algorithm == "reptile":
        return add_gradients(net, {k: first[k] - params[k] for k in params}, 1 / w.tasks)
    loss = loss_of(functional_call(part, params, (xq,)), yq) / w.tasks
    if second_order:
        return loss.backward()
    grads = torch.autograd.grad(loss, list(params.values()))
    return add_gradients(net, dict(zip(params, grads, strict=True)), 1.0)


def func_vmap(w: Workload, net: Net, tasks: Tasks) -> None:
    """`torch.func`: `vmap(grad(task))`, all tasks at once.

    Not `grad(vmap(task))`, which gives a wrong second-order gradient through `nn.BatchNorm2d` with affine weights in
    PyTorch 2.13.0.
    """
    loss_of = criterion(w)
    head = {k for k, _ in net.named_parameters() if k.startswith("head.")}
    moving = head if w.algorithm == "anil" else {k for k, _ in net.named_parameters()}

    def adapt(params: dict[str, Tensor], xs: Tensor, ys: Tensor) -> dict[str, Tensor]:
        part, own, x = net, params, xs
        if w.algorithm == "anil":
            body = {k.removeprefix("body."): v for k, v in params.items() if k not in head}
            x = functional_call(net.body, body, (xs,))
            part, own = net.head, {k.removeprefix("head."): params[k] for k in moving}
        for _ in range(w.steps):
            g = grad(lambda p: loss_of(functional_call(part, p, (x,)), ys))(own)
            own = {k: v - w.rate * g[k] for k, v in own.items()}
        return {**params, **{f"head.{k}": v for k, v in own.items()}} if w.algorithm == "anil" else own

    def query_loss(params: dict[str, Tensor], xq: Tensor, yq: Tensor) -> Tensor:
        return loss_of(functional_call(net, params, (xq,)), yq)

    def meta_grad(
        params: dict[str, Tensor], xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor
    ) -> dict[str, Tensor]:
        if w.algorithm == "fomaml":
            return grad(query_loss)(adapt(params, xs, ys), xq, yq)
        if w.algorithm == "reptile":
            adapted = adapt(params, xs, ys)
            return {k: params[k] - adapted[k] for k in params}
        return grad(lambda p: query_loss(adapt(p, xs, ys), xq, yq))(params)

    params = {k: v.detach() for k, v in net.named_parameters()}
    grads = vmap(meta_grad, in_dims=(None, 0, 0, 0, 0))(params, *tasks)
    add_gradients(net, {k: g.mean(0) for k, g in grads.items()}, 1.0)


def with_higher(w: Workload, net: Net, tasks: Tasks) -> None:
    """`higher.innerloop_ctx`, as in its MAML example."""
    import higher

    loss_of, second_order = criterion(w), w.algorithm != "fomaml"
    for xs, ys, xq, yq in zip(*tasks, strict=True):
        part, (xs, xq) = adapted_part(w, net, xs, xq)
        optimizer = torch.optim.SGD(part.parameters(), lr=w.rate)
        settings = {"copy_initial_weights": False, "track_higher_grads": second_order}
        with higher.innerloop_ctx(part, optimizer, **settings) as (model, inner):
            for _ in range(w.steps):
                inner.step(loss_of(model(xs), ys))
            loss = loss_of(model(xq), yq) / w.tasks
            if second_order:
                loss.backward()
            else:
                names = [name for name, _ in net.named_parameters()]
                grads = torch.autograd.grad(loss, list(model.parameters()))
                add_gradients(net, dict(zip(names, grads, strict=True)), 1.0)


def with_torchopt(w: Workload, net: Net, tasks: Tasks) -> None:
    """`torchopt.MetaSGD` with extracted and recovered state dicts, as in its few-shot example."""
    import torchopt

    loss_of = criterion(w)
    part = net.head if w.algorithm == "anil" else net
    inner = torchopt.MetaSGD(part, lr=w.rate)
    weights = torchopt.extract_state_dict(part, by="reference", detach_buffers=True)
    state = torchopt.extract_state_dict(inner, by="reference")
    for xs, ys, xq, yq in zip(*tasks, strict=True):
        _, (xs, xq) = adapted_part(w, net, xs, xq)
        for _ in range(w.steps):
            inner.step(loss_of(part(xs), ys))
        (loss_of(part(xq), yq) / w.tasks).backward()
        torchopt.recover_state_dict(part, weights)
        torchopt.recover_state_dict(inner, state)


METHODS: dict[str, Method] = {
    LOOP: pytorch_loop,
    VMAP: func_vmap,
    HIGHER: with_higher,
    TORCHOPT: with_torchopt,
}
