"""Fixtures every test shares: one thread for torch, so that tests are quick side by side and repeatable."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
