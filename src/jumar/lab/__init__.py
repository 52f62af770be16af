"""The lab: small problems in which every quantity of the on-policy family is known exactly.

- ``tabular``: decision processes with a few states and actions; values, visits, and what a policy is worth.
- ``families``: policies with parameters in them: tabular softmax, linear in features, with a hidden layer.
- ``gradients``: their exact policy gradients, Fisher matrices and natural gradients.
- ``improvement``: what is known of a new policy from the old one: surrogate, divergences, lower bounds.
- ``bounds``: the same from both sides, and by total variation.
- ``trajectories``: likelihoods, divergences and ratios of whole trajectories, and all that there are.
- ``variances``: of importance sampling, and of gradients by signal and baseline.
- ``trust_regions``, ``minorise``: the best tabular policy in a region, under a penalty, and of a lower bound.
- ``steepest``: the best step of a given size, not linearised.
- ``compatible``: natural actor-critic.
- ``maximum_entropy``: what policies are worth whose entropy counts, and the best of them.
- ``regulator``: one number to be brought to 0; a linear-Gaussian problem with everything in closed form.
- ``rollouts``: drawn trajectories, and the estimators that are to converge to the exact quantities.
- ``worked``: the worked examples of two textbooks, as printed and as they should be.

All are pure functions of arrays, and compute in double precision, whatever precision JAX is in (``precision``).
"""
