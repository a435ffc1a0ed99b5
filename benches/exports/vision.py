"""Classifiers, segmenters and encoders of images."""

import timm
import torch
import torchvision
from case import BATCH, OPEN, SIZES, Case, images
from torch import nn
from torch.nn import functional


def classifier(module, sizes=((64, 64),) * 3, dynamic=BATCH):
    return Case(module, images(sizes=sizes), ["scores"], {"image": dynamic})


def convnext():
    module = timm.create_model("convnext_atto", num_classes=10, depths=(1, 1, 2, 1), dims=(16, 24, 32, 48))
    return classifier(module, SIZES, OPEN)


def swin():
    sizes = {"img_size": 112, "window_size": 7, "embed_dim": 24, "depths": (2, 2, 2), "num_heads": (2, 4, 8)}
    module = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10, **sizes)
    return classifier(module, ((112, 112),) * 3)


def vit():
    module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=10, embed_dim=48, depth=3, num_heads=3, dynamic_img_size=True,
        img_size=64,
    )
    return classifier(module, SIZES, OPEN)


def mobilevit():
    return classifier(timm.create_model("mobilevit_xxs", num_classes=10))


def mobilevit_v2():
    return classifier(timm.create_model("mobilevitv2_050", num_classes=10))


def efficientformer():
    module = timm.create_model("efficientformer_l1", num_classes=10, embed_dims=(16, 24, 32, 48), depths=(1, 1, 1, 2))
    return classifier(module, ((224, 224),) * 3)


def efficientformer_v2():
    module = timm.create_model("efficientformerv2_s0", num_classes=10, img_size=128)
    return classifier(module, ((128, 128),) * 3)


def efficientnet():
    module = timm.create_model("efficientnet_b0", num_classes=10)
    return classifier(module, SIZES, OPEN)


def mobilenet_v3():
    module = torchvision.models.mobilenet_v3_small(num_classes=10, width_mult=0.5)
    return classifier(module, SIZES, OPEN)


def regnet():
    return classifier(timm.create_model("regnety_002", num_classes=10), SIZES, OPEN)


def maxvit():
    module = timm.create_model("maxvit_rmlp_pico_rw_256", num_classes=10, img_size=64, embed_dim=(32, 32, 64, 64))
    return classifier(module)


class Attention(nn.Module):
    """The linear attention of a diffusion U-Net, on feature maps."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, c, h * w).unbind(1)
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / c**0.5, dim=-1)
        return x + torch.einsum("bij,bcj->bci", weights, v).reshape(b, c, h, w)


class UNet(nn.Module):
    """A U-Net for images of any size: each level is resized to its skip connection."""

    def __init__(self, widths=(8, 16, 24), transposed=False):
        super().__init__()
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = 3
        for width in widths:
            self.down.append(self.block(before, width))
            before = width
        self.middle = Attention(before)
        for width in reversed(widths[:-1]):
            up = nn.ConvTranspose2d(before, width, 2, stride=2) if transposed else nn.Conv2d(before, width, 1)
            self.up.append(up)
            self.join.append(self.block(2 * width, width))
            before = width
        self.last = nn.Conv2d(before, 2, 1)

    @staticmethod
    def block(inputs, outputs):
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]
        return nn.Sequential(*layers, nn.Conv2d(outputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.SiLU())

    def forward(self, image):
        x, skips = image, []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        x = self.middle(skips.pop())
        for up, join in zip(self.up, self.join, strict=True):
            skip = skips.pop()
            x = functional.interpolate(up(x), size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = join(torch.cat([skip, x], 1))
        return torch.sigmoid(self.last(x))


def unet():
    inputs = images(sizes=((64, 64), (50, 70), (33, 91)))
    return Case(UNet(), inputs, ["mask"], {"image": OPEN})


def unet_transposed():
    inputs = images(sizes=((64, 64), (50, 70), (40, 91)))
    return Case(UNet(transposed=True), inputs, ["mask"], {"image": OPEN})


class First(nn.Module):
    """Returns one entry of a model's dictionary of outputs."""

    def __init__(self, inner, key):
        super().__init__()
        self.inner, self.key = inner, key

    def forward(self, image):
        return self.inner(image)[self.key]


def deeplab():
    inner = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    return Case(First(inner, "out"), images(sizes=SIZES), ["classes"], {"image": OPEN})


class Named(nn.Module):
    """Calls a model of transformers with named inputs, and returns a tuple of named outputs."""

    def __init__(self, inner, inputs, outputs, **fixed):
        super().__init__()
        self.inner, self.inputs, self.outputs, self.fixed = inner, inputs, outputs, fixed

    def forward(self, *values):
        named = dict(zip(self.inputs, values, strict=True))
        result = self.inner(**named, **self.fixed)
        return tuple(getattr(result, name) for name in self.outputs)


def sam_encoder():
    from transformers.models.sam.modeling_sam import SamVisionConfig, SamVisionEncoder

    config = SamVisionConfig(
        hidden_size=32, output_channels=16, num_hidden_layers=3, num_attention_heads=2, image_size=128,
        window_size=3, global_attn_indexes=[2], mlp_dim=64,
    )
    config._attn_implementation = "eager"
    module = Named(SamVisionEncoder(config), ["pixel_values"], ["last_hidden_state"])
    return Case(module, images(sizes=((128, 128),) * 3), ["embedding"], {"image": BATCH})


def segformer():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32, depths=[1] * 4, num_labels=4)
    module = Named(SegformerForSemanticSegmentation(config), ["pixel_values"], ["logits"])
    return Case(module, images(sizes=SIZES), ["logits"], {"image": OPEN})


def depth_anything():
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=3, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True, reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=48, neck_hidden_sizes=[8, 16, 24, 24],
        fusion_hidden_size=16, head_hidden_size=8,
    )
    module = Named(DepthAnythingForDepthEstimation(config), ["pixel_values"], ["predicted_depth"])
    return Case(module, images(sizes=((56, 56), (84, 70), (56, 98))), ["depth"], {"image": OPEN})
