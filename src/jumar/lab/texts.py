"""The texts whose numbers, formulas and figures the lab computes, as sources name them."""

BOOK = "Kochenderfer, Wheeler and Wray, Algorithms for Decision Making"
NOTES = "course notes, chapter 4, Policy Gradients"
NATURAL_SLIDES = "lecture slides on natural gradients, TRPO and PPO"
TRPO_SLIDES = "Yang, lecture slides, Trust Region Policy Optimization (TRPO)"
LECTURE = "lecture slides, lecture 9, Advanced Policy Optimization"
