"""funcvi: functional variational inference on JAX.

A family is a pure function from a pytree of unconstrained parameters to a distribution, and back.
"""

from funcvi.families import Family, family, unconstrain
from funcvi.families.roles import fixed, free, shared, tied
from funcvi.constraints import bijection_for
from funcvi.bijections import Exp, Softplus
from funcvi.sampling import sample, sample_in_chunks, relaxed_one_hot, straight_through_one_hot
from funcvi.objectives import (
    expectation,
    forward_kl,
    importance_weighted_elbo,
    kl,
    negative_elbo,
    negative_importance_weighted_elbo,
    negative_renyi_elbo,
)
from funcvi import fitting
from funcvi.fitting import Fit, Status, fit
from funcvi.gradient_check import GradientCheck, check_gradients
from funcvi.targets import Target, target
from funcvi.guides import (
    Guide,
    Posterior,
    blocks,
    flow,
    full_rank,
    guide,
    laplace,
    low_rank,
    mean_field,
    mixture,
)
from funcvi.inference import EmpiricalPosterior, Report, batch_and_match, infer
from funcvi.files import load_posterior, save_posterior
from funcvi.moments import from_moments
from funcvi import networks
from funcvi.networks import bayesian
from funcvi.control import apply_first, choose, repeat, while_loop
from funcvi.unused import only_used
from funcvi.diagnostics import Diagnosis, diagnose, diagnose_each

__version__ = "0.1.0"

__all__ = [
    "Family",
    "family",
    "unconstrain",
    "fixed",
    "free",
    "shared",
    "tied",
    "bijection_for",
    "Exp",
    "Softplus",
    "sample",
    "sample_in_chunks",
    "relaxed_one_hot",
    "straight_through_one_hot",
    "kl",
    "expectation",
    "importance_weighted_elbo",
    "negative_elbo",
    "negative_importance_weighted_elbo",
    "negative_renyi_elbo",
    "forward_kl",
    "fitting",
    "Fit",
    "Status",
    "fit",
    "GradientCheck",
    "check_gradients",
    "Target",
    "target",
    "Guide",
    "Posterior",
    "guide",
    "mean_field",
    "full_rank",
    "low_rank",
    "mixture",
    "flow",
    "blocks",
    "laplace",
    "infer",
    "Report",
    "EmpiricalPosterior",
    "batch_and_match",
    "save_posterior",
    "load_posterior",
    "from_moments",
    "networks",
    "bayesian",
    "apply_first",
    "choose",
    "repeat",
    "while_loop",
    "only_used",
    "Diagnosis",
    "diagnose",
    "diagnose_each",
]
