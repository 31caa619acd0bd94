"""Bayesian logistic regression on scikit-learn's breast-cancer data: a table and a picture.

python examples/breast_cancer.py [--output breast_cancer.png]
"""

import argparse
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import funcvi as fv

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FEATURES = ["mean texture", "worst area", "worst smoothness", "worst concavity", "worst symmetry"]


def data():
    """Standardised features and malignancy, split into training and test rows."""
    bunch = load_breast_cancer()
    columns = [list(bunch.feature_names).index(name) for name in FEATURES]
    x, malignant = bunch.data[:, columns], 1 - bunch.target
    train, test = train_test_split(
        np.arange(len(x)), test_size=0.3, random_state=0, stratify=malignant
    )
    x = (x - x[train].mean(0)) / x[train].std(0)
    return x[train], malignant[train], x[test], malignant[test]


def model(x, malignant=None):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.0))
    weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.deterministic("odds ratio", jnp.exp(weights))
    with numpyro.plate("patients", x.shape[0]):
        numpyro.sample("malignant", dist.Bernoulli(logits=x @ weights + intercept), obs=malignant)


def table(draws):
    rows = [
        f"{'per standard deviation':24}{'mean':>8}{'sd':>8}{'5%':>8}{'95%':>8}{'odds ratio':>12}"
    ]
    columns = {"intercept": draws["intercept"]}
    columns |= {name: draws["weights"][:, i] for i, name in enumerate(FEATURES)}
    for name, values in columns.items():
        low, high = np.quantile(values, [0.05, 0.95])
        mean, sd = values.mean(), values.std()
        odds = np.exp(values).mean()
        rows.append(f"{name:24}{mean:8.2f}{sd:8.2f}{low:8.2f}{high:8.2f}{odds:12.2f}")
    return "\n".join(rows)


def picture(draws, probability, malignant, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    low, middle, high = np.quantile(draws["weights"], [0.05, 0.5, 0.95], axis=0)
    rows = np.arange(len(FEATURES))
    left.errorbar(middle, rows, xerr=[middle - low, high - middle], fmt="o", capsize=3)
    left.axvline(0, color="0.7", lw=1)
    left.set_yticks(rows, FEATURES)
    left.invert_yaxis()
    left.set_xlabel("log odds of malignancy per standard deviation")
    left.set_title("Posterior medians and 90 % intervals")

    order = np.argsort(probability.mean(0))
    low, high = np.quantile(probability[:, order], [0.05, 0.95], axis=0)
    patients = np.arange(len(order))
    right.fill_between(patients, low, high, color="C0", alpha=0.3, lw=0, label="90 % interval")
    right.plot(patients, probability.mean(0)[order], color="C0", label="probability")
    colours = np.where(malignant[order] == 1, "C3", "C2")
    right.scatter(patients, malignant[order], s=8, c=colours, label="outcome", zorder=3)
    right.set_xlabel("patients held out, by predicted probability")
    right.set_title("Predicted probability that a tumour is malignant")
    right.legend(loc="upper left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="breast_cancer.png")
    options = parser.parse_args()

    started = time.perf_counter()
    x, malignant, x_test, malignant_test = data()
    posterior, report = fv.infer(fv.target(model, x, malignant), key=jax.random.key(0))
    draws = jax.tree.map(np.asarray, fv.sample(posterior, jax.random.key(1), (4000,)))
    logits = draws["weights"] @ x_test.T + draws["intercept"][:, None]
    probability = 1 / (1 + np.exp(-logits))
    accuracy = ((probability.mean(0) > 0.5) == malignant_test).mean()

    print(f"{len(x)} patients to learn from, {len(x_test)} held out\n")
    print(table(draws), "\n")
    print(report)
    print(f"accuracy on patients held out  {accuracy:.3f}")
    picture(draws, probability, malignant_test, options.output)
    print(f"picture in {options.output}; {time.perf_counter() - started:.1f} s in all")


if __name__ == "__main__":
    main()
