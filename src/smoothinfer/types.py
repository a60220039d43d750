"""The legend of axes and units: every tensor of the library is one of these.

| name   | shape        | unit |
|--------|--------------|------|
| Images | (N, C, H, W) | pixels in [0, 1], float |
| Labels | (N,)         | class index, int64 |
| Logits | (N, K)       | one noisy pass |
| Votes  | (N, K)       | what one pass gives to each class, not negative |
| Scores | (N, K)       | log scale, the largest decides, safe as logits |
| Counts | (N, K)       | how many passes put the class first, int64 |

N images, C x H x W pixels, K classes.
"""

from __future__ import annotations

from torch import Tensor

Images = Tensor
Labels = Tensor
Logits = Tensor
Votes = Tensor
Scores = Tensor
Counts = Tensor

ABSTAIN = -1
