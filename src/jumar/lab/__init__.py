"""The lab: small problems in which every quantity of the on-policy family is known exactly.

- ``tabular``: decision processes with a few states and actions; values, visits, and what a policy is worth.
- ``grids``, ``worlds``: grid worlds and chains, as processes and as environments.
- ``dynamic_programming``: optimal policies and values, and policy iteration.
- ``fitted_iteration``, ``conservative_iteration``: what policy iteration loses with fitted values, and steps that cannot lose.
- ``families``: policies with parameters in them: tabular softmax, linear in features, with a hidden layer.
- ``gradients``: their exact policy gradients, Fisher matrices and natural gradients.
- ``improvement``: what is known of a new policy from the old one: surrogate, divergences, lower bounds.
- ``maximum_entropy``: what policies are worth whose entropy counts, and the best of them.
- ``regulator``: one number to be brought to 0; a linear-Gaussian problem with everything in closed form.
- ``regulator_improvement``, ``regulator_clamped``: what is known of a new policy of it from the old one.
- ``textbook``: a textbook's updates of parameters; ``local_models``: what they know of a problem, from rollouts or exactly.
- ``linear_quadratic``, ``quadratic_values``, ``riccati``: linear-quadratic regulation; ``ilqr``: where dynamics are not linear.
- ``rollouts``: drawn trajectories, and the estimators that are to converge to the exact quantities.
- ``worked``: the worked examples of two textbooks, as printed and as they should be.

All are pure functions of arrays, and compute in double precision, whatever precision JAX is in (``precision``).
"""
