"""Everything that is learned offline, put together, and its file form."""
from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .backbone import Backbone, Fusion, fold
from .boxes import decode, from_center, to_center
from .refine import RelationHead, apply_offsets
from .roi_align import LEVELS, pyramid_roi_align
from .rpn import Kernels, SiameseRpn
from .weights_file import FORMAT, find_weights, read_weights

CHANNELS = 128  # of phi34
WIDE = 1.3      # R looks at so many times a box's sides: the edges that it seeks lie inside


class Template(NamedTuple):
    """What a target's first frame contributes to every later one."""
    kernels: Kernels   # of the RPN
    regress: Tensor    # R's share of f_init, (B, width, 4, 4)
    identify: Tensor   # I's share of f_init, (B, width, 4, 4); for `refine` of T templates (T, width, 4, 4)


class Refined(NamedTuple):
    """boxes (N, 4) after Eq. 4, their aligned features (N, 3C, 6, 6) and nu+ by each of T templates (T, N)."""
    boxes: Tensor
    features: Tensor
    identification: Tensor


class CractModel(nn.Module):
    """Backbone, fusion, Siamese RPN, box regression R and identifier I.

    A subclass of another structure (an ablation) has a name, `variant`, that its weights file keeps.
    """

    variant = ''
    pool = staticmethod(pyramid_roi_align)
    align = staticmethod(apply_offsets)     # proposals -> boxes whose features are classified (Eq. 4, 5)

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.channels = channels
        self.backbone = Backbone()
        self.fusion = Fusion(channels)
        self.rpn = SiameseRpn(channels)
        self.regressor = RelationHead(len(LEVELS) * channels, 4)
        self.identifier = RelationHead(len(LEVELS) * channels, 2)

    def features(self, crop: Tensor) -> Tensor:
        """phi34 of crops (B, 3, S, S), BGR 0..255."""
        return self.fusion(*self.backbone(crop))

    def pool_wide(self, phi: Tensor, boxes: Tensor) -> Tensor:
        """What R sees of boxes (B, N, 4): `pool` of wider ones."""
        box = to_center(boxes)
        return self.pool(phi, from_center(torch.cat([box[..., :2], WIDE * box[..., 2:]], -1)))

    def template(self, phi: Tensor, boxes: Tensor) -> Template:
        """phi34 of template crops (B, C, 17, 17) and the targets' boxes (B, 4) in them (Eq. 2)."""
        boxes = boxes[:, None]
        return Template(self.rpn.kernels(phi), self.regressor.template_term(self.pool_wide(phi, boxes)),
                        self.identifier.template_term(self.pool(phi, boxes)))

    def propose(self, phi: Tensor, template: Template) -> tuple[Tensor, Tensor]:
        """All anchors, decoded: boxes (B, M, 4) in crop pixels and coarse scores c (B, M)."""
        logits, offsets = self.rpn(phi, template.kernels)
        return decode(self.rpn.anchors, offsets), logits.softmax(-1)[..., 1]

    def refine(self, phi: Tensor, proposals: Tensor, template: Template) -> Refined:
        """Box regression, feature alignment, identification of one frame's proposals (N, 4): Eq. 1, 3-6."""
        f = self.pool_wide(phi, proposals[None])
        boxes = self.align(proposals, self.regressor(f, template.regress))
        aligned = self.pool(phi, boxes[None])
        return Refined(boxes, aligned, self.identify(aligned, template.identify))

    def identify(self, aligned: Tensor, templates: Tensor) -> Tensor:
        """nu+ (T, N) of aligned features (N, 3C, 6, 6) by the shares of T templates in I, (T, width, 4, 4) (Eq. 6)."""
        logits = self.identifier.relate(self.identifier.proposal_term(aligned)[None], templates[:, None])
        return logits.softmax(-1)[:, 1].view(len(templates), -1)

    def fold(self) -> 'CractModel':
        """Merge all batch norms for inference, in place."""
        for block in self.modules():
            if isinstance(block, nn.Sequential) and hasattr(block, 'norm'):
                fold(block)
        return self


def save_weights(model: CractModel, path: str | Path) -> None:
    """Write a model as float16 tensors, batch norm folded; the model itself is not changed."""
    state = copy.deepcopy(model).fold().state_dict()
    tensors = {name: value.to('cpu', torch.float16).contiguous() for name, value in state.items()}
    torch.save({'format': FORMAT, 'variant': model.variant, 'channels': model.channels, 'state': tensors}, path)


def load_weights(path: str | Path = '', variants: bool = True) -> CractModel:
    """Read a model for inference (float32, eval mode). An empty path takes the weights of the package.

    `variants` False takes the tracker's own structure only, whatever ablations are loaded. Nothing but tensors and
    numbers is unpickled. Raises FileNotFoundError or ValueError.
    """
    kinds = {kind.variant: kind for kind in (CractModel, *CractModel.__subclasses__() * variants)}
    weights = read_weights(path, kinds)
    model = kinds[weights.variant](weights.channels).fold()
    try:
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.state.items()})
    except RuntimeError as error:
        raise ValueError(f'the tensors in {find_weights(path)} are not those of this network') from error
    return model.eval().requires_grad_(False)
