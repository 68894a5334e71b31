"""grouped_gram_dot on a GPU: two launches for a model."""

import pytest
import torch

from fastrw.ops import grouped_gram_dot
from tests.op_cases import CASES, need

pytestmark = pytest.mark.gpu
CASE = CASES["grouped_gram_dot"]


def arguments(sizes=CASE.large[0]):
    args = CASE.args(sizes, device="cuda")
    need("grouped_gram_dot", "cuda", args)
    return CASE.nest(*args)


@pytest.mark.parametrize("uses", [1, 45, 46])
def test_launches(uses):
    args = arguments((8, *[(1, 4, 64, 64, 1.0)] * uses))
    grouped_gram_dot(*args, backend="cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        grouped_gram_dot(*args, backend="cuda")
        torch.cuda.synchronize()
    launched = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert len(launched) == (2 if uses <= 45 else 3), launched
