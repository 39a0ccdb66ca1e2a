"""Target assignment and the three losses: L = l_rpn + l_reg + l_ide (Section 3.4).

Beyond the paper, all chosen by measurement (docs/training.md): boxes are also drawn towards the truth by their overlap, and
the classes are soft, so that scores rank boxes by how tight they are.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import constant, decode, encode, iou
from ..model import CractModel
from ..refine import OFFSET_SCALE
from .pairs import Pairs

POSITIVE_IOU, NEGATIVE_IOU = 0.6, 0.3       # anchors
RPN_POSITIVES, RPN_BETWEEN, RPN_NEGATIVES = 16, 8, 40       # anchors of one pair
REGRESSED_IOU = 0.4                          # proposals that R learns from
LOOSE_IOU, TIGHT_IOU = 0.3, 0.9              # overlaps at which a box is no target at all, and wholly one
PROPOSAL_IOU = 0.5                           # positive and negative proposals, for the log and where boxes are not exact
TRAIN_NMS_IOU = 0.75
JITTERED, OWN = 20, 12                       # proposals drawn around the truth, and the RPN's own
JITTER = (0.12, 0.12, 0.2, 0.2)              # spread at most 1.7 times, at least 0.1 times this
CANDIDATES = 96
CROSSED = 4                                  # proposals that are shown beside another pair's template
OVERLAP_WEIGHT = 3.0                         # of the overlap loss of R against half of the smooth L1 loss


class Batch(NamedTuple):
    """`Pairs` as tensors: crops (B, 3, S, S) float, channels last in memory."""
    template: Tensor
    template_box: Tensor
    search: Tensor
    search_box: Tensor
    negative: Tensor
    exact: Tensor
    others: Tensor
    track: Tensor

    @classmethod
    def of(cls, pairs: Pairs, device: torch.device) -> 'Batch':
        tensors = [torch.from_numpy(part).to(device, non_blocking=True) for part in pairs]
        return cls(*(part.permute(0, 3, 1, 2).float() if part.ndim == 4 else part for part in tensors))


class Losses(NamedTuple):
    rpn_class: Tensor
    rpn_box: Tensor
    regression: Tensor
    identity: Tensor

    def total(self) -> Tensor:
        return sum(self)


class Quality(NamedTuple):
    """What the stages achieve on a batch, for the log."""
    recall: Tensor         # share of positive pairs with a proposal of IoU > 0.5 among those of the RPN
    gain: Tensor           # mean IoU gained by R on its positives
    refined: Tensor        # mean IoU after R of the RPN's proposals that overlapped the target by half
    chosen: Tensor         # mean IoU of the box that I ranks first among the RPN's own, after R
    accuracy: Tensor       # balanced accuracy of I


def pick(mask: Tensor, priority: Tensor, count: int) -> Tensor:
    """(B, M) bool: in each row the `count` entries of `mask` with the highest priority (> 0)."""
    ranked = torch.where(mask, priority, priority.new_full((), -1.0))
    values, index = ranked.topk(count, 1)
    return torch.zeros_like(mask).scatter_(1, index, values >= 0)


def masked_mean(loss: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask; 0 where it is empty."""
    return (loss * mask).sum() / mask.sum().clamp(min=1)


def balanced(loss: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over positives plus mean over negatives, halved; a missing kind counts 0."""
    return (masked_mean(loss, positive) + masked_mean(loss, negative)) / 2


def soft_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of two classes, logits (..., 2) background, target, against the probability (...) of the target."""
    log = logits.log_softmax(-1)
    return -(label * log[..., 1] + (1 - label) * log[..., 0])


def tightness(overlap: Tensor, exact: Tensor) -> Tensor:
    """Soft class of a box by its overlap with the truth; a hard one where the truth is not `exact` (both broadcast)."""
    soft = ((overlap - LOOSE_IOU) / (TIGHT_IOU - LOOSE_IOU)).clamp(0, 1)
    return torch.where(exact, soft, (overlap > PROPOSAL_IOU).float())


def box_loss(offsets: Tensor, reference: Tensor, truth: Tensor, scale: Tensor, beta: float, overlap_weight: float) -> Tensor:
    """Half of smooth L1, summed over the four offsets, and the lack of overlap of the decoded boxes: (..., 4) -> (...).
    offsets and their targets are in units of `scale` (4,)."""
    target = encode(reference, truth) / scale
    smooth = F.smooth_l1_loss(offsets, target, reduction='none', beta=beta).sum(-1)
    return smooth / 2 + overlap_weight * (1 - iou(decode(reference, offsets * scale), truth))


def rpn_loss(logits: Tensor, offsets: Tensor, anchors: Tensor, batch: Batch,
             generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Soft cross entropy over at most 64 anchors a pair, box loss over the positive. logits (B, M, 2), offsets (B, M, 4)."""
    truth = batch.search_box[:, None]
    overlap = iou(anchors, truth)                                                     # (B, M)
    best = overlap >= overlap.amax(1, keepdim=True).clamp(min=0.4)                    # every target has an anchor
    known = ~batch.negative[:, None]
    positive = ((overlap > POSITIVE_IOU) | best) & known
    between = (overlap >= NEGATIVE_IOU) & ~positive & known
    negative = (overlap < NEGATIVE_IOU) | ~known
    random = torch.rand(overlap.shape, generator=generator, device=overlap.device)
    positive, between = pick(positive, random, RPN_POSITIVES), pick(between, random, RPN_BETWEEN)
    half = RPN_NEGATIVES // 2
    hard = pick(negative, logits.detach().softmax(-1)[..., 1], half)                  # the most target-like
    negative = hard | pick(negative & ~hard, random, half)
    decoded = iou(decode(anchors, offsets.detach()), truth)
    label = tightness(decoded, batch.exact[:, None]) * (positive | between)
    entropy = soft_cross_entropy(logits, label)
    scale = torch.ones_like(offsets[0, 0])
    loss = box_loss(offsets, anchors, truth.expand(-1, anchors.shape[0], -1), scale, 1 / 9, 1.0)
    return balanced(entropy, positive | between, negative), masked_mean(loss, positive & batch.exact[:, None])


def batched_nms(boxes: Tensor, scores: Tensor, threshold: float, count: int) -> Tensor:
    """Greedy suppression in all rows at once: boxes (B, M, 4), scores (B, M) -> indices (B, count). A row that runs out
    of boxes repeats suppressed ones."""
    overlap = iou(boxes[:, :, None], boxes[:, None]) > threshold
    left, kept = scores.clone(), []
    rows = torch.arange(len(boxes), device=boxes.device)
    for _ in range(count):
        index = left.argmax(1)
        kept.append(index)
        left = torch.where(overlap[rows, index], left - 2, left)
    return torch.stack(kept, 1)


def training_proposals(boxes: Tensor, scores: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
    """(B, JITTERED + OWN + others, 4): boxes drawn around the truth, some of them close and some far, the RPN's own best
    after suppression at 0.75, and the other objects of the search region (the truth where there are fewer)."""
    top = scores.topk(CANDIDATES, 1).indices
    boxes = boxes.gather(1, top[..., None].expand(-1, -1, 4))
    kept = batched_nms(boxes, scores.gather(1, top), TRAIN_NMS_IOU, OWN)
    own = boxes.gather(1, kept[..., None].expand(-1, -1, 4))
    shape, device = (len(boxes), JITTERED), boxes.device
    spread = 0.1 + 1.6 * torch.rand((*shape, 1), generator=generator, device=device)
    noise = torch.randn((*shape, 4), generator=generator, device=device) * spread
    truth = batch.search_box[:, None]
    around = decode(truth.expand(-1, JITTERED, -1), noise * constant(JITTER, noise))
    return torch.cat([around, own, torch.where(batch.others.isnan(), truth, batch.others)], 1)


def pair_losses(model: CractModel, batch: Batch, generator: torch.Generator) -> tuple[Losses, Quality]:
    """The whole path of a training step: features, RPN, R and I on all proposals of each pair."""
    pairs, device = len(batch.search), batch.search.device.type
    template_phi, phi = model.features(batch.template).float(), model.features(batch.search).float()
    kernels = model.rpn.kernels(template_phi)
    logits, offsets = (part.float() for part in model.rpn(phi, kernels))
    rpn_class, rpn_box = rpn_loss(logits, offsets, model.rpn.anchors, batch, generator)
    with torch.no_grad():
        scores = logits.softmax(-1)[..., 1]
        proposals = training_proposals(decode(model.rpn.anchors, offsets), scores, batch, generator)
    truth, known = batch.search_box[:, None], ~batch.negative[:, None]
    count = proposals.shape[1]

    def each(term: Tensor, times: int = count) -> Tensor:  # one template term for each proposal of its pair
        return term.repeat_interleave(times, 0)

    with torch.autocast(device, enabled=False):  # small products, which half precision makes slower on a CPU
        wide_init, wide = model.pool_wide(template_phi, batch.template_box[:, None]), model.pool_wide(phi, proposals)
        init = model.pool(template_phi, batch.template_box[:, None])
    raw = model.regressor(wide, each(model.regressor.template_term(wide_init))).view(pairs, count, 4).float()
    before = iou(proposals, truth)
    positive = (before > REGRESSED_IOU) & known
    scale = constant(OFFSET_SCALE, raw)
    loss = box_loss(raw, proposals, truth.expand_as(proposals), scale, 0.5, OVERLAP_WEIGHT)
    regression = masked_mean(loss, positive & batch.exact[:, None])

    aligned = model.align(proposals, raw.detach())                                      # Eq. 4, 5
    after = iou(aligned, truth)
    with torch.autocast(device, enabled=False):
        features = model.pool(phi, aligned)
    identify = model.identifier.template_term(init)
    term = model.identifier.proposal_term(features)
    answer = model.identifier.relate(term, each(identify)).view(pairs, count, 2).float()
    label = tightness(after, batch.exact[:, None]) * known
    entropy = soft_cross_entropy(answer, label)
    # the boxes around the truth, shown beside the next pair's template, are free negatives
    around = term.view(pairs, count, *term.shape[1:])[:, :CROSSED].flatten(0, 1)
    crossed = model.identifier.relate(around, each(identify.roll(1, 0), CROSSED)).view(pairs, CROSSED, 2).float()
    apart = ~(batch.negative | batch.negative.roll(1) | (batch.track == batch.track.roll(1)))[:, None].expand(-1, CROSSED)
    entropy = torch.cat([entropy, soft_cross_entropy(crossed, torch.zeros_like(crossed[..., 0]))], 1)
    target = torch.cat([label > 0, torch.zeros_like(apart)], 1)
    identity = balanced(entropy, target, torch.cat([label == 0, apart], 1))
    return (Losses(rpn_class, rpn_box, regression, identity),
            quality(before, after, answer.detach(), positive, batch.negative))


@torch.no_grad()
def quality(before: Tensor, after: Tensor, answer: Tensor, positive: Tensor, negative: Tensor) -> Quality:
    """Overlaps (B, P) of the proposals with the truth before and after R, and I's logits (B, P, 2)."""
    own = slice(JITTERED, JITTERED + OWN)
    usable, same = ~negative, (after > PROPOSAL_IOU) & ~negative[:, None]
    found = (before[:, own] > PROPOSAL_IOU) & usable[:, None]
    best = answer[:, own].log_softmax(-1)[..., 1].argmax(1, keepdim=True)
    said = answer.argmax(-1).bool()
    return Quality(
        masked_mean(found.any(1).float(), usable), masked_mean(after - before, positive),
        masked_mean(after[:, own], found), masked_mean(after[:, own].gather(1, best)[:, 0], usable),
        (masked_mean(said.float(), same) + masked_mean((~said).float(), ~same)) / 2)
