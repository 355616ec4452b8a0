"""The blocks of pytorchcv's ResNets. Gates of its own stay, and others come after them."""

from __future__ import annotations

from senetzoo.policies.foreign.rows import Plain, Row, after, before, skip

_M = "pytorchcv.models."
_LAST = "body.conv3|body.conv2"
# Where the channels are read: they are convolution, norm and activation in one module.
_WIDTH = "body.conv3.conv|body.conv2.conv"

ROWS = (
    Row(
        (_M + "resnet.ResUnit", _M + "resnext.ResNeXtUnit"),
        pre=before("body.conv1", "body.conv1.conv"),
        inner=before(_LAST, _WIDTH),
        standard=after("body", _WIDTH),
        identity=skip("identity_conv", "resize_identity"),
        post=after("", _WIDTH),
    ),
    Row(
        (_M + "resneta.ResAUnit",),
        pre=before("body.conv1", "body.conv1.conv"),
        inner=before(_LAST, _WIDTH),
        standard=after("body", _WIDTH),
        identity=skip("identity_block", "resize_identity"),
        post=after("", _WIDTH),
    ),
    Row(
        (
            _M + "seresnet.SEResUnit",
            _M + "seresnext.SEResNeXtUnit",
            _M + "senet.SENetUnit",
        ),
        pre=before("body.conv1", "body.conv1.conv"),
        inner=before(_LAST, _WIDTH),
        standard=after("se", _WIDTH),
        identity=skip("identity_conv", "resize_identity"),
        post=after("", _WIDTH),
    ),
)

PLAIN: tuple[Plain, ...] = ()
