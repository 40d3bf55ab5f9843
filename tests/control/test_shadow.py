"""The arm of a dry run is where the real one is until it is sent something, and then follows exactly that."""

from __future__ import annotations

import numpy as np

from embodied_vision.control.planning import plan_joint
from embodied_vision.control.shadow import ShadowArm
from tests.control.samples import MODEL


def test_it_follows_what_it_is_sent_and_comes_back_to_the_real_arm() -> None:
    shadow, still = ShadowArm(), np.zeros_like(MODEL.home)
    real = MODEL.home + 0.1
    assert shadow.state(real, still, 5.0)[0] is real
    motion = plan_joint(MODEL, MODEL.home, MODEL.home + 0.4)
    shadow.send(motion, 5.0)
    for time_s in (0.0, 0.3, motion.duration, 60.0):
        q, qd = shadow.state(real, still, 5.0 + time_s)
        expected = motion.sample(time_s)
        np.testing.assert_allclose(q, expected[0], atol=1e-9)
        np.testing.assert_allclose(qd, expected[1], atol=1e-9)
    shadow.forget()
    assert shadow.state(real, still, 70.0)[0] is real
