"""Language models, and recurrent classifiers."""

import numpy
import torch
from audio import cached
from case import Case, floats, integers
from torch import nn
from vision import Named

SEQUENCE = {0: "batch", 1: "sequence"}
SHAPES = [(1, 9), (2, 12), (3, 5)]


def tokens(limit, **others):
    """Returns token inputs at three shapes. `others` makes further inputs from the tokens."""
    found = []
    for run, shape in enumerate(SHAPES):
        values = {"tokens": integers(run, limit, *shape)}
        values |= {name: make(values["tokens"]) for name, make in others.items()}
        found.append(values)
    return found


def padding(values):
    """Returns a mask of the tokens that hides the end of all rows but the first."""
    mask = numpy.ones_like(values)
    mask[1:, 4:] = 0
    return mask


def bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    module = Named(BertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"])
    dynamic = {"tokens": SEQUENCE, "mask": SEQUENCE}
    return Case(module, tokens(100, mask=padding), ["states", "pooled"], dynamic)


def roberta():
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    config = XLMRobertaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, num_labels=3,
        max_position_embeddings=40, attn_implementation="eager",
    )
    module = Named(XLMRobertaForSequenceClassification(config), ["input_ids", "attention_mask"], ["logits"])
    return Case(module, tokens(100, mask=padding), ["logits"], {"tokens": SEQUENCE, "mask": SEQUENCE})


def deberta():
    from transformers import DebertaV2Config, DebertaV2Model

    config = DebertaV2Config(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm", share_att_key=True,
        max_relative_positions=32, max_position_embeddings=64,
    )
    module = Named(DebertaV2Model(config), ["input_ids", "attention_mask"], ["last_hidden_state"])
    return Case(module, tokens(100, mask=padding), ["states"], {"tokens": SEQUENCE, "mask": SEQUENCE})


def gpt2():
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    return cached(GPT2Model(config), 2, 2, 16, 100)


def llama():
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
    )
    return cached(LlamaModel(config), 2, 2, 8, 100)


def t5():
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    return T5Model(config)


def t5_encoder():
    module = Named(t5().encoder, ["input_ids", "attention_mask"], ["last_hidden_state"])
    return Case(module, tokens(100, mask=padding), ["states"], {"tokens": SEQUENCE, "mask": SEQUENCE})


class T5Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = t5().decoder

    def forward(self, tokens, states, mask):
        named = {"encoder_hidden_states": states, "encoder_attention_mask": mask, "use_cache": False}
        return self.inner(input_ids=tokens, **named).last_hidden_state


def t5_decoder():
    inputs = []
    for run, (batch, count, length) in enumerate([(1, 3, 9), (2, 4, 7), (3, 6, 5)]):
        mask = padding(integers(run, 2, batch, length))
        inputs.append({"tokens": integers(run, 100, batch, count), "states": floats(run, batch, length, 32), "mask": mask})
    dynamic = {"tokens": {0: "batch", 1: "tokens"}, "states": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
    return Case(T5Decoder(), inputs, ["states_out"], dynamic)


def t5_cached():
    return cached(t5().decoder, 2, 2, 16, 100, states=(9, 32))


def clip():
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=100, max_position_embeddings=16, eos_token_id=99, **size)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **size)
    inner = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    module = Named(inner, ["input_ids", "pixel_values", "attention_mask"], ["logits_per_image", "text_embeds"])
    inputs = []
    for run, (texts, length, count) in enumerate([(2, 9, 1), (3, 12, 2), (4, 5, 3)]):
        values = integers(run, 99, texts, length)
        values[:, -1] = 99
        inputs.append({"tokens": values, "image": floats(run, count, 3, 32, 32), "mask": numpy.ones_like(values)})
    dynamic = {"tokens": {0: "texts", 1: "sequence"}, "image": {0: "images"}, "mask": {0: "texts", 1: "sequence"}}
    return Case(module, inputs, ["logits", "embedding"], dynamic)


class Packed(nn.Module):
    """A recurrent classifier of padded sequences with their lengths."""

    def __init__(self, kind, bidirectional):
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.layer = kind(12, 16, 2, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(32 if bidirectional else 16, 4)

    def forward(self, tokens, lengths):
        x = nn.utils.rnn.pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=True)
        x, _ = self.layer(x)
        x, _ = nn.utils.rnn.pad_packed_sequence(x, batch_first=True)
        return self.out(x.max(1).values)


def packed(kind, bidirectional):
    inputs = []
    for run, (batch, count) in enumerate([(2, 9), (3, 7), (1, 5)]):
        # The first sequence has all tokens, and lengths do not increase.
        lengths = numpy.maximum(count - 2 * numpy.arange(batch), 1)
        inputs.append({"tokens": integers(run, 50, batch, count), "lengths": lengths.astype(numpy.int64)})
    dynamic = {"tokens": SEQUENCE, "lengths": {0: "batch"}}
    return Case(Packed(kind, bidirectional), inputs, ["scores"], dynamic)


def lstm_packed():
    return packed(nn.LSTM, True)


def gru_packed():
    return packed(nn.GRU, False)


def mamba():
    from transformers import MambaConfig, MambaModel

    config = MambaConfig(vocab_size=100, hidden_size=16, state_size=4, num_hidden_layers=2, intermediate_size=32, time_step_rank=2)
    module = Named(MambaModel(config), ["input_ids"], ["last_hidden_state"], use_cache=False)
    values = [{"tokens": integers(run, 100, run + 1, 8)} for run in range(3)]
    return Case(module, values, ["states"], {"tokens": {0: "batch"}})


class Mixture(nn.Module):
    """A mixture of experts: each token goes through its two best experts."""

    def __init__(self, width=16, experts=4):
        super().__init__()
        self.embed, self.gate = nn.Embedding(50, width), nn.Linear(width, experts)
        self.up, self.down = nn.Parameter(torch.randn(experts, width, 32)), nn.Parameter(torch.randn(experts, 32, width))

    def forward(self, tokens):
        x = self.embed(tokens)
        weights, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        weights = torch.zeros(*x.shape[:2], self.up.shape[0]).scatter(2, chosen, weights / weights.sum(-1, keepdim=True))
        hidden = torch.nn.functional.silu(torch.einsum("bsd,edh->besh", x, self.up))
        return torch.einsum("besh,ehd,bse->bsd", hidden, self.down, weights)


def mixture():
    return Case(Mixture(), tokens(50), ["states"], {"tokens": SEQUENCE})
