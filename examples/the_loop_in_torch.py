"""What the_loop.py replaces, as people first write it in torch, and the two ways it fails."""

import torch


def loop(retain_graph, num_steps=200):
    torch.manual_seed(0)
    mean = torch.zeros((), requires_grad=True)
    log_std = torch.zeros((), requires_grad=True)
    std = log_std.exp()
    q = torch.distributions.Normal(mean, std)  # once, outside the loop
    p = torch.distributions.Normal(5.0, 5.0)
    optimizer = torch.optim.Adam([mean, log_std], lr=1e-1)
    for _ in range(num_steps):
        optimizer.zero_grad()
        x = q.rsample((1000,))
        (q.log_prob(x) - p.log_prob(x)).mean().backward(retain_graph=retain_graph)
        optimizer.step()
    return q, log_std


def main():
    try:
        loop(retain_graph=False)
    except RuntimeError as error:
        # The first backward freed the graph between log_std and std, which is built only once.
        print("as written:       ", str(error).split(".")[0])
    q, log_std = loop(retain_graph=True)
    # std is never computed again: q trains against the value that it was born with.
    print(f"with retain_graph: log_std moved to {log_std.item():.2f}, q.scale is {q.scale.item()}")


if __name__ == "__main__":
    main()
