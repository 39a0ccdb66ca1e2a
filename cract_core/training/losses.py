"""Target assignment and the three losses: L = l_rpn + l_reg + l_ide (Section 3.4)."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import constant, decode, encode, iou
from ..model import CractModel
from ..refine import OFFSET_SCALE
from .augment import Pairs

POSITIVE_IOU, NEGATIVE_IOU = 0.6, 0.3       # anchors
RPN_SAMPLES, RPN_POSITIVES = 64, 16          # of one pair
REGRESSION_SAMPLES, IDENTITY_SAMPLES = 16, 32
PROPOSAL_IOU = 0.5                           # positive and negative proposals
TRAIN_NMS_IOU = 0.75
JITTERED = 8                                 # of the proposals are drawn around the truth
JITTER = (0.12, 0.12, 0.2, 0.2)
CANDIDATES = 128


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
    accuracy: Tensor       # balanced accuracy of I


def pick(mask: Tensor, priority: Tensor, count: int) -> Tensor:
    """(B, M) bool: in each row the `count` entries of `mask` with the highest priority (> 0)."""
    ranked = torch.where(mask, priority, priority.new_full((), -1.0))
    values, index = ranked.topk(count, 1)
    return torch.zeros_like(mask).scatter_(1, index, values >= 0)


def balanced(loss: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over positives plus mean over negatives, halved; a missing kind counts 0."""
    def mean(mask):
        return (loss * mask).sum() / mask.sum().clamp(min=1)
    return (mean(positive) + mean(negative)) / 2


def smooth_l1(prediction: Tensor, target: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Smooth L1 summed over the four coordinates and averaged over the masked boxes."""
    loss = F.smooth_l1_loss(prediction, target, reduction='none', beta=beta).sum(-1)
    return (loss * mask).sum() / mask.sum().clamp(min=1)


def rpn_loss(logits: Tensor, offsets: Tensor, anchors: Tensor, pairs: Pairs,
             generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cross entropy and smooth L1 over at most 64 anchors a pair. logits (B, M, 2), offsets (B, M, 4)."""
    truth = pairs.search_box[:, None]
    overlap = iou(anchors, truth)                                                     # (B, M)
    best = overlap >= overlap.amax(1, keepdim=True).clamp(min=0.4)                    # every target has an anchor
    positive = ((overlap > POSITIVE_IOU) | best) & ~pairs.negative[:, None]
    negative = torch.where(pairs.negative[:, None], torch.ones_like(positive), overlap < NEGATIVE_IOU)
    random = torch.rand(overlap.shape, generator=generator, device=overlap.device)
    positive = pick(positive, random, RPN_POSITIVES)
    half = (RPN_SAMPLES - RPN_POSITIVES) // 2
    hard = pick(negative, logits.detach().float().softmax(-1)[..., 1], half)          # the most target-like
    negative = hard | pick(negative & ~hard, random, half)
    entropy = F.cross_entropy(logits.float().transpose(1, 2), positive.long(), reduction='none')
    return (balanced(entropy, positive, negative),
            smooth_l1(offsets.float(), encode(anchors, truth.expand(-1, anchors.shape[0], -1)), positive, 1 / 9))


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


def training_proposals(boxes: Tensor, scores: Tensor, pairs: Pairs, generator: torch.Generator) -> Tensor:
    """(B, 32, 4): boxes drawn around the truth, then the RPN's own best after suppression at 0.75."""
    top = scores.topk(CANDIDATES, 1).indices
    boxes = boxes.gather(1, top[..., None].expand(-1, -1, 4))
    kept = batched_nms(boxes, scores.gather(1, top), TRAIN_NMS_IOU, IDENTITY_SAMPLES - JITTERED)
    own = boxes.gather(1, kept[..., None].expand(-1, -1, 4))
    noise = torch.randn((len(boxes), JITTERED, 4), generator=generator, device=boxes.device)
    around = decode(pairs.search_box[:, None].expand(-1, JITTERED, -1), noise * constant(JITTER, noise))
    return torch.cat([around, own], 1)


def pair_losses(model: CractModel, pairs: Pairs, generator: torch.Generator) -> tuple[Losses, Quality]:
    """The whole path of a training step: features, RPN, R on at most 16 and I on at most 32 proposals a pair."""
    batch = len(pairs.search)
    template = model.template(model.features(pairs.template), pairs.template_box)
    phi = model.features(pairs.search)
    logits, offsets = model.rpn(phi, template.kernels)
    anchors = model.rpn.anchors
    rpn_class, rpn_box = rpn_loss(logits, offsets, anchors, pairs, generator)

    with torch.no_grad():
        proposals = training_proposals(decode(anchors, offsets.float()), logits.float().softmax(-1)[..., 1], pairs,
                                       generator)                                      # (B, P, 4)
    truth = pairs.search_box[:, None]
    count = proposals.shape[1]

    def each(term: Tensor) -> Tensor:  # one template term for each proposal of its pair
        return term.repeat_interleave(count, 0)

    raw = model.regressor(model.pool(phi, proposals), each(template.regress)).view(batch, count, 4).float()
    before = iou(proposals, truth)
    positive = (before > PROPOSAL_IOU) & ~pairs.negative[:, None]
    random = torch.rand(before.shape, generator=generator, device=before.device)
    chosen = pick(positive, random, REGRESSION_SAMPLES)
    target = encode(proposals, truth.expand_as(proposals)) / constant(OFFSET_SCALE, raw)
    regression = smooth_l1(raw, target, chosen, 1.0)

    aligned = model.align(proposals, raw.detach())                                      # Eq. 4, 5
    after = iou(aligned, truth)
    same = (after > PROPOSAL_IOU) & ~pairs.negative[:, None]
    term = model.identifier.proposal_term(model.pool(phi, aligned))
    logits_own = model.identifier.relate(term, each(template.identify)).float()
    # the boxes around the truth, shown beside the next pair's template, are free negatives
    free = JITTERED // 2
    around = term.view(batch, count, *term.shape[1:])[:, :free].flatten(0, 1)
    other = template.identify.roll(1, 0).repeat_interleave(free, 0)
    logits_other = model.identifier.relate(around, other).float()
    known = pairs.negative | pairs.negative.roll(1) | (pairs.track == pairs.track.roll(1))
    crossed = ~known.repeat_interleave(free)
    labels = torch.cat([same.flatten(), torch.zeros_like(crossed)])
    entropy = F.cross_entropy(torch.cat([logits_own, logits_other]), labels.long(), reduction='none')
    identity = balanced(entropy, labels, ~labels & torch.cat([torch.ones_like(same).flatten(), crossed]))

    with torch.no_grad():
        usable = ~pairs.negative
        recall = ((before[:, JITTERED:].amax(1) > 0.5) & usable).sum() / usable.sum()
        gain = ((after - before) * positive).sum() / positive.sum().clamp(min=1)
        answer = logits_own.argmax(-1).bool().view(batch, count)
        accuracy = ((answer & same).sum() / same.sum().clamp(min=1)
                    + (~answer & ~same).sum() / (~same).sum().clamp(min=1)) / 2
    return Losses(rpn_class, rpn_box, regression, identity), Quality(recall, gain, accuracy)
