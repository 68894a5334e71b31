"""What the engine is given in a call, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fastrw.engine.report import Step, UseReport
from fastrw.nodes.base import Products

Mark = Callable[[str], None]  # called with the name of a phase when it ends
METHODS = ("layerwise", "tangent", "double_backward", "per_example")


@dataclass(frozen=True)
class Options:
    """How scores, weights and weighted gradient are computed."""

    method: str = "auto"
    products: Products = field(default_factory=Products)
    normalize: Callable[[Tensor], Tensor] = lambda s: s
    # The weighted gradient comes from "assembled": the same backward as the scores; "backward": a second one, which
    # takes less memory; "auto": assembled, unless the graph is checkpointed. None: it is not computed.
    update: str | None = "auto"
    # the factor of a GradScaler on losses in a backward, so that float16 gradients do not underflow
    scaling: Tensor | None = None
    scale: float | Tensor = 1.0  # the factor on the weighted gradient; 0-d
    recheck: bool = True  # check again in the 2nd, 4th, 8th ... call
    check: bool = False  # check in this call
    # What numbers decide is not read, but returned, as `Result.sound`: for a pass that is recorded or traced, and so
    # cannot wait for them. Raises Unlearned where a pass that may wait has to come first.
    deferred: bool = False

    def unscaled(self, product: Tensor) -> Tensor:
        """A product of two scaled gradients, without the factors."""
        return product if self.scaling is None else product / self.scaling / self.scaling


@dataclass
class Request:
    """What is to be computed from the graph of `losses` [n]."""

    losses: Tensor
    val_loss: Tensor | None
    selected: Collection[int] | None  # ids of the leaves that scores use; None: all parameters, or all leaves if none
    options: Options
    V: dict[int, Tensor] | None = None  # id of a leaf -> direction; None: the gradient of val_loss
    retain: bool = False  # leave the graph as it is
    free: bool = False  # free what the graph saved: the caller still holds the graph
    must_reach: bool = False  # refuse a validation loss that depends on nothing selected
    names: Mapping[int, str] = field(default_factory=dict)  # id of a leaf -> its name in reports
    model: Any = None  # the owner of the graph, if known
    plan: Any = None  # of a pass over a graph that the same functions made, for one whose numbers are not read
    prefix: str = "fastrw.backward: "  # of error texts


@dataclass
class Result:
    scores: Tensor  # [n]
    weights: Tensor  # [n]
    gradients: list[tuple[Tensor, Tensor]]  # (leaf, sum_i w_i grad f_i), unless update is None
    method: str
    assembled: bool = False  # does the weighted gradient come from the backward of the scores?
    refused: dict[str, str] = field(default_factory=dict)  # method -> reason
    account: Callable[[], tuple[UseReport, ...]] = tuple  # the form and backend of each use
    checked: bool = False  # was a score compared with its example's own gradient in this call?
    learned: bool = False  # was the graph new, so that operations may mix the batch which did not before?
    trusted: bool = True  # was it compared, now or earlier, on a batch that can show an error?
    # 0-d bool, if that is deferred: is all of this right? If not, only a pass that may wait can tell what is. None:
    # nothing depends on numbers.
    sound: Tensor | None = None
    plan: Any = None  # what the graph was cut by: a recorded pass reads its tensors

    def step(self, losses: Tensor, val_loss: Tensor) -> Step:
        update = "assembled" if self.assembled else "backward"
        return Step(self.weights, losses, self.scores, val_loss, self.method, update, self.refused, self.account)
