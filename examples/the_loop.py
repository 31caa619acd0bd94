"""The loop that names the family once: fit a Normal, then a Gamma, by changing one line."""

import argparse

import jax
import numpyro.distributions as dist
import optax

import funcvi as fv


def fit_to(start, target, num_steps=2000, num_samples=1000):
    params, q = fv.unconstrain(start)

    def loss(params, key):
        return fv.kl(q(params), target, key=key, num_samples=num_samples)

    fit = fv.fit(loss, params, optax.adam(1e-2), key=jax.random.key(0), num_steps=num_steps)
    return fit, q(fit.params)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps

    fit, fitted = fit_to(dist.Normal(0.0, 1.0), target=dist.Normal(5.0, 5.0), num_steps=steps)
    print(f"Normal(loc={fitted.loc:.3f}, scale={fitted.scale:.3f})  {fit.status}: {fit.reason}")

    fit, fitted = fit_to(dist.Gamma(1.0, 1.0), target=dist.Gamma(5.0, 5.0), num_steps=steps)
    print(f"Gamma({fitted.concentration:.3f}, {fitted.rate:.3f})  {fit.status}: {fit.reason}")


if __name__ == "__main__":
    main()
