from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmaib.functional.sliding import slides, stitched, windows
from mmaib.layers.image_cells import next_window
from mmaib.models import AIBNeck, AuxLossMixin
from mmaib.registry import MODELS
from mmaib.sampling.draws import mean_over_draws
from mmaib.sampling.uncertainty import combine

from .aib_uper_head import AIBUPerHead


@MODELS.register_module()
class AIBEncoderDecoder(AuxLossMixin, EncoderDecoder):
    """Segmentor with IB attention (Section 4.2.4 of [AIB]).

    ::

        image -> backbone -> AIBNeck -> AIBUPerHead -> logits
                                |   `-> auxiliary head |
                       loss_vq, loss_commit         loss_kl
                          (loss_kl_map)

    Any of mmseg's decode heads works. The KL of the latent ([AIB]) weighs
    ``decode_head.latent.beta``, that of the map, its authors' later choice
    and the one that a head without a latent has, ``neck.bottleneck.beta``,
    by default 0.

    Args:
        args, kwargs: of :class:`AuxLossMixin` and mmseg's
            ``EncoderDecoder``. With ``test_draws`` the backbone runs once in
            each window, all draws pass neck and head as one batch, and
            logits are averaged; the noise is seeded anew in each window.
            Probabilities and uncertainty are running sums over draws that
            are brought to the size of the image one by one.

    Raises:
        ValueError: if a field is out of range, or asks for draws
            from a part that has none to give.
    """

    draw_parts = {
        'attention': {'neck': AIBNeck},
        'latent': {'decode_head': AIBUPerHead},
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # of the windows of a prediction, while it is made
        self._measured: list[dict[str, Tensor]] | None = None
        self._check_one_class()

    def _check_one_class(self) -> None:
        """Refuse a loss that is zero whatever is predicted."""
        if self.out_channels == 1 and False in _sigmoids(self.decode_head):
            raise ValueError(
                f'decode_head.num_classes={self.num_classes} with one output '
                'channel: the softmax cross entropy of a single class is '
                'always 0. Set loss_decode.use_sigmoid=True, or two classes'
            )

    def encode_decode(
        self, inputs: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """Logits of images or windows, averaged over draws if there are."""
        batch = len(inputs)
        with self.test_draws.open(inputs.device), next_window():
            if self.test_draws.mean_logits:
                logits = super().encode_decode(inputs, batch_img_metas)
                return mean_over_draws(logits, batch)
            drawn = self.decode_head.forward(self.extract_feat(inputs))

            def resized(logits: Tensor) -> Tensor:
                return self.decode_head.predict_by_feat(
                    logits, batch_img_metas
                )

            # one draw after the other at the size of the image
            logits, measures = combine(
                map(resized, drawn.split(batch)),
                lambda: resized(mean_over_draws(drawn, batch)),
            )
        if self._measured is not None:
            self._measured.append(measures)
        return logits

    def predict(
        self, inputs: Tensor, data_samples: list | None = None
    ) -> list:
        """mmseg's; with ``test_draws.uncertainty`` maps ``entropy`` and
        ``mutual_information`` beside the logits, in nats a pixel of the
        original image. Of windows that overlap they are the mean."""
        if not self.test_draws.uncertainty:
            return super().predict(inputs, data_samples)
        self._measured = []
        try:
            samples = super().predict(inputs, data_samples)
            measures = self._whole(self._measured, *inputs.shape[2:])
        finally:
            self._measured = None
        # mmseg's own way from the padded batch to the image
        empty = data_samples and [
            SegDataSample(metainfo=sample.metainfo) for sample in data_samples
        ]
        maps = self.postprocess_result(
            torch.stack([*measures.values()], dim=1), empty
        )
        for sample, own in zip(samples, maps):
            for name, value in zip(measures, own.seg_logits.data):
                sample.set_data({name: PixelData(data=value[None])})
        return samples

    def _whole(
        self, parts: list[dict[str, Tensor]], height: int, width: int
    ) -> dict[str, Tensor]:
        """Maps ``(N, H, W)`` of whole images from those of their windows."""
        if not slides(self):
            return parts[0]
        crop, stride = self.test_cfg['crop_size'], self.test_cfg['stride']
        size = (height, width)
        boxes = windows(size, crop, stride)
        return {
            name: stitched(
                [part[name][:, None] for part in parts], boxes, size
            )[:, 0]
            for name in parts[0]
        }

    def check_probabilities(self) -> None:
        head = self.decode_head
        if self.out_channels > 1 and _sigmoids(head) == {True}:
            raise ValueError(
                "test_draws with uncertainty or average='probabilities' "
                'takes the probabilities of a softmax over classes; '
                f'{type(head).__name__} was trained with use_sigmoid=True'
            )
        if type(head).predict is not BaseDecodeHead.predict:
            raise ValueError(
                "test_draws with uncertainty or average='probabilities' "
                'needs a decode head whose forward() gives logits alone, got '
                f'{type(head).__name__}, which has a predict() of its own'
            )


def _sigmoids(head: Any) -> set[bool]:
    """Whether a head's losses use a sigmoid, where they have that field."""
    losses: Any = getattr(head, 'loss_decode', None)
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    return {x.use_sigmoid for x in losses if hasattr(x, 'use_sigmoid')}
