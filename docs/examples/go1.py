"""The Go1 of MuJoCo Playground in a plain control loop: sensors in, joint targets out, 50 times a second."""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from numpy_policy import NumpyPolicy

PERIOD = 0.02
"""Seconds between two actions."""
DEFAULT_POSE = np.array([0.1, 0.9, -1.8, -0.1, 0.9, -1.8, 0.1, 0.9, -1.8, -0.1, 0.9, -1.8])
"""Radians: hip, thigh and calf of the front right, front left, rear right and rear left leg."""
ACTION_SCALE = 0.5
"""Radians by which an action of 1 moves a joint's target from the default pose."""
STIFFNESS, DAMPING = 35.0, 0.5
"""Of the joints' own controllers, in N m / rad and N m s / rad: torque = 35 (target - angle) - 0.5 speed."""
HELD_READINGS = 5
"""So many bad readings in a row are bridged by the last targets; then the robot is let down."""


class Sensors(NamedTuple):
    """What the robot measures, in the frame of its trunk."""

    velocity: np.ndarray
    """``[3]``, m/s; on the machine itself it is an estimate."""
    gyro: np.ndarray
    """``[3]``, rad/s."""
    gravity: np.ndarray
    """``[3]``, the direction of gravity: (0, 0, -1) where the trunk is level."""
    angles: np.ndarray
    """``[12]``, rad."""
    speeds: np.ndarray
    """``[12]``, rad/s."""


class SimulatedGo1:
    """The robot in MuJoCo. A real one has the same three methods."""

    def __init__(self, scene):
        self.model = mujoco.MjModel.from_xml_path(str(scene))
        self.model.opt.timestep = 0.004
        self.model.opt.ccd_iterations = 20
        self.model.dof_damping[6:] = DAMPING
        self.model.actuator_gainprm[:, 0], self.model.actuator_biasprm[:, 1] = STIFFNESS, -STIFFNESS
        self.data = mujoco.MjData(self.model)
        mujoco.mj_resetDataKeyframe(self.model, self.data, self.model.key("home").id)
        mujoco.mj_forward(self.model, self.data)

    def read(self):
        """Return the sensors' values now."""
        velocity, gyro = (self.data.sensor(name).data.copy() for name in ("local_linvel", "gyro"))
        gravity = -self.data.site("imu").xmat[6:]
        return Sensors(velocity, gyro, gravity, self.data.qpos[7:].copy(), self.data.qvel[6:].copy())

    def write(self, targets):
        """Give the joints' controllers their targets, and wait for a period."""
        self.data.ctrl[:] = targets
        mujoco.mj_step(self.model, self.data, round(PERIOD / self.model.opt.timestep))

    def damp(self):
        """Take the stiffness from the joints, so that the robot sinks to the ground."""
        self.model.actuator_gainprm[:, 0] = self.model.actuator_biasprm[:, 1] = 0.0


class Walker:
    """From sensors and a command to the joints' targets, by a policy."""

    def __init__(self, policy):
        self.policy = policy
        self.action = self.earlier = np.zeros(12)

    def observe(self, sensors, command):
        """Return the policy's observation ``[48]``: the action in it is the one before the last, as in training."""
        relative = sensors.angles - DEFAULT_POSE
        return np.concatenate([*sensors[:3], relative, sensors.speeds, self.earlier, command])

    def targets(self, sensors, command):
        """Return the joints' targets ``[12]`` in rad. Raises ``ValueError`` for a reading that is not finite."""
        action = self.policy({"state": self.observe(sensors, command)})
        self.earlier, self.action = self.action, action
        return DEFAULT_POSE + ACTION_SCALE * action


def walk(robot, walker, command, steps):
    """Walk for so many steps; return the speeds seen ``[steps, 3]``, the seconds that each action took, and why it ended."""
    targets, bad, seen, took = DEFAULT_POSE, 0, [], []
    for _ in range(steps):
        start = time.perf_counter()
        sensors = robot.read()
        if sensors.gravity[2] > 0.0:
            robot.damp()
            return np.array(seen), took, "it fell"
        try:
            targets, bad = walker.targets(sensors, command), 0
        except ValueError:
            bad += 1
            if bad > HELD_READINGS:
                robot.damp()
                return np.array(seen), took, f"{bad} bad readings in a row"
        took.append(time.perf_counter() - start)
        seen.append([*sensors.velocity[:2], sensors.gyro[2]])
        robot.write(targets)
    return np.array(seen), took, "done"


def main():
    """Walk by a saved policy, and say how well the command was followed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", type=Path, help="the folder of policy.json and policy.safetensors")
    parser.add_argument("scene", type=Path, help="Playground's scene_mjx_feetonly_flat_terrain.xml")
    parser.add_argument("--command", type=float, nargs=3, default=(0.8, 0.0, 0.0), help="m/s ahead, m/s left, rad/s")
    parser.add_argument("--seconds", type=float, default=10.0)
    words = parser.parse_args()
    robot, walker = SimulatedGo1(words.scene), Walker(NumpyPolicy(words.policy))
    seen, took, how = walk(robot, walker, np.array(words.command), round(words.seconds / PERIOD))
    print(
        f"{how} after {len(seen) * PERIOD:.1f} s; mean velocity {np.round(seen.mean(axis=0), 2)}, asked {words.command}"
    )
    print(f"an action took {1e3 * np.median(took):.2f} ms (the slowest {1e3 * max(took):.2f}) of {1e3 * PERIOD:.0f} ms")


if __name__ == "__main__":
    main()
