"""Detectors, with box decoding and non-maximum suppression."""

import torch
import torchvision
from case import BATCH, OPEN, SIZES, Case, images
from torch import nn
from vision import Named


def backbone(width):
    layers = []
    for inputs, outputs in [(3, width), (width, width), (width, 2 * width)]:
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.SiLU()]
    return nn.Sequential(*layers)


class Detr(nn.Module):
    """Object queries in a transformer, and suppression of the boxes of the first image."""

    def __init__(self, width=32, queries=20, classes=4):
        super().__init__()
        self.backbone = backbone(width // 2)
        self.transformer = nn.Transformer(width, 2, 1, 2, 64, batch_first=True)
        self.queries = nn.Parameter(torch.rand(queries, width))
        self.rows, self.columns = (nn.Parameter(torch.rand(50, width // 2)) for _ in range(2))
        self.scores, self.boxes = nn.Linear(width, classes + 1), nn.Linear(width, 4)

    def forward(self, image):
        features = self.backbone(image)
        b, _, h, w = features.shape
        place = torch.cat([
            self.columns[:w].unsqueeze(0).repeat(h, 1, 1), self.rows[:h].unsqueeze(1).repeat(1, w, 1),
        ], -1).flatten(0, 1)
        source = features.flatten(2).transpose(1, 2) + place
        found = self.transformer(source, self.queries.unsqueeze(0).repeat(b, 1, 1))
        scores = self.scores(found).softmax(-1)[0, :, :-1]
        boxes = torchvision.ops.box_convert(self.boxes(found).sigmoid()[0], "cxcywh", "xyxy")
        best, label = scores.max(-1)
        kept = torchvision.ops.batched_nms(boxes, best, label, 0.5)
        return boxes[kept], best[kept], label[kept]


def detr():
    return Case(Detr(), images(sizes=SIZES), ["boxes", "scores", "labels"], {"image": OPEN})


class YoloV5(nn.Module):
    """The head with anchors: grids are made from the sizes of the feature maps."""

    def __init__(self, width=16, classes=3):
        super().__init__()
        self.backbone, self.down = backbone(width), nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(2 * width, 3 * (5 + classes), 1) for _ in range(2))
        self.register_buffer("anchors", torch.tensor([[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]]]).float())
        self.outputs = 5 + classes

    def forward(self, image):
        small = self.backbone(image)
        found = []
        for head, features, anchors, stride in zip(self.heads, [small, self.down(small)], self.anchors, [8, 16], strict=True):
            x = head(features)
            b, _, h, w = x.shape
            x = x.view(b, 3, self.outputs, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), 2).expand(1, 3, h, w, 2) - 0.5
            center = (x[..., 0:2] * 2 + grid) * stride
            size = (x[..., 2:4] * 2) ** 2 * anchors.view(1, 3, 1, 1, 2)
            found.append(torch.cat((center, size, x[..., 4:]), -1).view(b, -1, self.outputs))
        return torch.cat(found, 1)


def yolo_v5():
    return Case(YoloV5(), images(sizes=SIZES), ["boxes"], {"image": OPEN})


class YoloV8(nn.Module):
    """The head without anchors: distances are expectations of distributions."""

    def __init__(self, width=16, classes=3, bins=16):
        super().__init__()
        self.backbone, self.down = backbone(width), nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(2 * width, 4 * bins + classes, 1) for _ in range(2))
        self.bins, self.classes = bins, classes

    def forward(self, image):
        small = self.backbone(image)
        maps = [head(x) for head, x in zip(self.heads, [small, self.down(small)], strict=True)]
        points, strides = [], []
        for x, stride in zip(maps, [8, 16], strict=True):
            h, w = x.shape[2:]
            rows, columns = torch.arange(h) + 0.5, torch.arange(w) + 0.5
            rows, columns = torch.meshgrid(rows, columns, indexing="ij")
            points.append(torch.stack((columns, rows), -1).view(-1, 2))
            strides.append(torch.full((h * w, 1), float(stride)))
        points, strides = torch.cat(points).T.unsqueeze(0), torch.cat(strides).T
        x = torch.cat([x.flatten(2) for x in maps], 2)
        distance, scores = x.split((4 * self.bins, self.classes), 1)
        b, _, count = distance.shape
        distance = distance.view(b, 4, self.bins, count).transpose(2, 1).softmax(1)
        weights = torch.arange(self.bins).float().view(1, -1, 1, 1)
        near, far = (distance * weights).sum(1).chunk(2, 1)
        near, far = points - near, points + far
        boxes = torch.cat(((near + far) / 2, far - near), 1) * strides
        return torch.cat((boxes, scores.sigmoid()), 1)


def yolo_v8():
    return Case(YoloV8(), images(sizes=SIZES), ["boxes"], {"image": OPEN})


class Selected(nn.Module):
    """Selects the best boxes of a YOLO v8 head."""

    def __init__(self):
        super().__init__()
        self.inner = YoloV8()

    def forward(self, image):
        boxes, scores = self.inner(image)[0].T.split((4, 3), 1)
        best, label = scores.max(1)
        mask = best > 0.5
        boxes, best, label = boxes[mask], best[mask], label[mask]
        boxes = torchvision.ops.box_convert(boxes, "cxcywh", "xyxy")
        kept = torchvision.ops.nms(boxes + label.unsqueeze(1) * 4096.0, best, 0.45)[:100]
        return boxes[kept], best[kept], label[kept]


def yolo_v8_selected():
    return Case(Selected(), images(sizes=SIZES), ["boxes", "scores", "labels"], {"image": OPEN})


class Torchvision(nn.Module):
    """A detector of torchvision on one image."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, image):
        found = self.inner([image])[0]
        return found["boxes"], found["scores"], found["labels"]


def torchvision_case(inner):
    inputs = [{"image": values["image"][0]} for values in images(sizes=((64, 64), (80, 64), (64, 96)))]
    dynamic = {"image": {1: "height", 2: "width"}}
    return Case(Torchvision(inner), inputs, ["boxes", "scores", "labels"], dynamic)


def ssdlite():
    make = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    return torchvision_case(make(weights=None, weights_backbone=None, num_classes=3))


def faster_rcnn():
    make = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    sizes = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 10}
    return torchvision_case(make(weights=None, weights_backbone=None, num_classes=3, **sizes))


def rt_detr():
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    resnet = RTDetrResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage2", "stage3", "stage4"])
    config = RTDetrConfig(
        backbone_config=resnet, encoder_hidden_dim=32, encoder_in_channels=[24, 32, 40], encoder_ffn_dim=48,
        encoder_attention_heads=2, d_model=32, decoder_in_channels=[32, 32, 32], decoder_attention_heads=2, num_queries=12,
        decoder_layers=2, decoder_ffn_dim=48, num_labels=4, eval_size=None, anchor_image_size=None,
    )
    module = Named(RTDetrForObjectDetection(config), ["pixel_values"], ["logits", "pred_boxes"])
    return Case(module, images(sizes=((64, 64),) * 3), ["logits", "boxes"], {"image": BATCH})
