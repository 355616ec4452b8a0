"""The blocks of pytorchcv's ResNets. Gates of its own stay, and others come after them."""

from __future__ import annotations

from senetzoo.policies.foreign.rows import Plain, Row, after, before, skip

_M = "pytorchcv.models."
_LAST = "body.conv3|body.conv2"

ROWS = (
    Row(
        (_M + "resnet.ResUnit", _M + "resnext.ResNeXtUnit"),
        # Its convolutions are modules of convolution, norm and activation.
        pre=before("body.conv1", "body.conv1.conv"),
        inner=before(_LAST, "body.conv3.conv|body.conv2.conv"),
        standard=after("body", "body.conv3.conv|body.conv2.conv"),
        identity=skip("identity_conv", "resize_identity"),
        post=after("", "body.conv3.conv|body.conv2.conv"),
    ),
    Row(
        (
            _M + "seresnet.SEResUnit",
            _M + "seresnext.SEResNeXtUnit",
            _M + "senet.SENetUnit",
        ),
        pre=before("body.conv1", "body.conv1.conv"),
        inner=before(_LAST, "body.conv3.conv|body.conv2.conv"),
        standard=after("se", "body.conv3.conv|body.conv2.conv"),
        identity=skip("identity_conv", "resize_identity"),
        post=after("", "body.conv3.conv|body.conv2.conv"),
    ),
)

PLAIN: tuple[Plain, ...] = ()
