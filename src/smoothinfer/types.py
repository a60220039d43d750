"""Names for the tensors that the library passes around, with their shapes and units.

| name   | shape        | unit |
|--------|--------------|------|
| Images | (N, C, H, W) | pixels in [0, 1], float |
| Labels | (N,)         | class index, int64 |
| Logits | (N, K)       | of one noisy pass |
| Votes  | (N, K)       | what one pass gives to each class, not negative |
| Scores | (N, K)       | log scale, rounded after the verdict; safe to use as logits |
| Counts | (N, K)       | number of passes that put the class first, int64 |

N images of C x H x W pixels, K classes.
"""

from torch import Tensor

Images = Tensor
Labels = Tensor
Logits = Tensor
Votes = Tensor
Scores = Tensor
Counts = Tensor

CLEAN = "none"  # stands for the clean images where an attack is named
ABSTAIN = -1
