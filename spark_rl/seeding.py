"""Counter-based randomness: every draw is a function of the run's seed and of where in the run it is made.

Never of the task attempt, the executor, the clock or the process; so a retry, a speculative twin and a resumed run
draw the same numbers. Source: Salmon et al. 2011 (counter-based generators); numpy's SeedSequence, whose spawn keys
give independent streams.
"""

from __future__ import annotations

import numpy as np

# One stream per purpose, so that a draw more in one never shifts another.
ACTION = 1  # sampling actions: (iteration, group)
ENVIRONMENT = 2  # resets of single environments: (env, episode); of vector environments: (first env, iteration)
LEARNER = 3  # minibatch order: (iteration)
INIT = 4  # initial weights
EVALUATION = 5  # resets of evaluation environments: (episode, 0)
PROBE = 6  # proving that an environment's state can be carried


def sequence(seed: int, stream: int, *place: int) -> np.random.SeedSequence:
    """The seed sequence of one place in the run; `place` is iteration, group, env ... as the stream's comment says."""
    return np.random.SeedSequence(seed, spawn_key=(stream, *place))


def generator(seed: int, stream: int, *place: int) -> np.random.Generator:
    """A generator for one place in the run. Philox: the same numbers on every platform and numpy >= 1.17."""
    return np.random.Generator(np.random.Philox(sequence(seed, stream, *place)))


def integer(seed: int, stream: int, *place: int) -> int:
    """A seed in [0, 2**31) for interfaces that take one number, such as `env.reset(seed=...)` and torch."""
    return int(sequence(seed, stream, *place).generate_state(1, np.uint32)[0] >> 1)
