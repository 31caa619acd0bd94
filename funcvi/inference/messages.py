"""What fv.infer says of what it found."""

import sys

import tqdm

__all__ = ["IMPROPER", "MODES", "NORMAL", "OUTSIDE", "POOR", "TRACED", "WEIGHTED", "say_to_stderr"]

NORMAL = "the posterior is nearly normal on unconstrained space, as its importance ratios show."
WEIGHTED = "draws of a normal approximation, corrected by importance weights of finite variance."
MODES = (
    "climbs ended at other places of similar ELBO, which this posterior leaves out: compare "
    "them, or order what is exchangeable."
)
IMPROPER = (
    "the log density does not fall far out along {}: there may be no finite mass. Give it a proper "
    "prior."
)
TRACED = (
    "fv.infer chooses its next rung by what it finds, and cannot be called under jit, vmap or "
    "grad: there use fv.batch_and_match, or fv.laplace.\nOf a batch of posteriors made so "
    "fv.diagnose_each tells which are to be trusted."
)
POOR = "the posterior is not normal on unconstrained space, and weights cannot correct it:"
OUTSIDE = (
    "the log density is not finite at {:.2g} % of the draws of a normal approximation{}: it ends "
    "inside of its declared support, or overflows. Declare the support that it has."
)


def say_to_stderr(line: str) -> None:
    """A line of progress, beside any bar of a fit."""
    tqdm.tqdm.write(line, file=sys.stderr)
