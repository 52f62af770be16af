"""The lab: small problems in which every quantity of the on-policy family is known exactly.

- ``tabular``: decision processes with a few states and actions; values, visits, and what a policy is worth.
- ``grids``, ``worlds``: grid worlds and chains, as processes and as environments.
- ``dynamic_programming``: optimal policies and values, and policy iteration.
- ``fitted_iteration``, ``conservative_iteration``: what policy iteration loses with fitted values, and steps that cannot lose.
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
- ``regulator_improvement``, ``regulator_clamped``: what is known of a new policy of it from the old one.
- ``textbook``: a textbook's updates of parameters; ``local_models``: what they know of a problem, from rollouts or exactly;
  ``exact_tabular``: the same of a tabular process; ``iterated_ascent``: an update repeated.
- ``linear_quadratic``, ``quadratic_values``, ``riccati``: linear-quadratic regulation; ``ilqr``: where dynamics are not linear.
- ``rollouts``: drawn trajectories, and the estimators that are to converge to the exact quantities.
- ``worked``: the worked examples of two textbooks, as printed and as they should be.
- ``examples``: those and the formulas of five texts, computed anew; ``texts``: what the texts are called.
- ``arguments``: what the functions are given.

All are pure functions of arrays, and compute in double precision, whatever precision JAX is in (``precision``).
"""
