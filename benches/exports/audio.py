"""Models of speech and sound."""

import torch
from case import Case, floats, integers
from torch import nn
from torch.nn import functional
from vision import Named

TIME = {0: "batch", 1: "time"}
SAMPLES = {0: "batch", 1: "samples"}


def whisper():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=100, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=100, num_mel_bins=16, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, attn_implementation="eager",
    )
    return WhisperForConditionalGeneration(config)


def whisper_encoder():
    module = Named(whisper().model.encoder, ["input_features"], ["last_hidden_state"])
    return Case(module, [{"mel": floats(run, run + 1, 16, 200)} for run in range(3)], ["states"], {"mel": {0: "batch"}})


class CachedDecoder(nn.Module):
    """A decoder with the keys and values of earlier tokens as inputs and outputs."""

    def __init__(self, inner, layers, crossed):
        super().__init__()
        self.inner, self.layers, self.crossed = inner, layers, crossed

    def forward(self, tokens, *rest):
        from transformers import DynamicCache, EncoderDecoderCache

        states, past = (rest[0], rest[1:]) if self.crossed else (None, rest)
        cache = DynamicCache()
        for layer in range(self.layers):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        position = torch.arange(tokens.shape[1]) + past[0].shape[2]
        named = {"input_ids": tokens, "use_cache": True, "position_ids": position.unsqueeze(0)}
        if self.crossed:
            cache = EncoderDecoderCache(cache, DynamicCache())
            named |= {"encoder_hidden_states": states}
            if "position_ids" not in self.inner.forward.__code__.co_varnames:
                named.pop("position_ids")
        result = self.inner(past_key_values=cache, **named)
        cache = result.past_key_values
        cache = cache.self_attention_cache if self.crossed else cache
        present = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return (result.last_hidden_state, *present)


def cached(inner, layers, heads, size, vocabulary, states=None):
    """Returns the case of a decoder with cached keys and values."""
    inputs = []
    for run, (batch, past, tokens) in enumerate([(1, 3, 1), (2, 7, 3), (3, 5, 1)]):
        values = {"tokens": integers(run, vocabulary, batch, tokens)}
        if states:
            values["states"] = floats(run, batch, *states)
        for layer in range(layers):
            values[f"past.{layer}.key"] = floats(run + 10 * layer, batch, heads, past, size)
            values[f"past.{layer}.value"] = floats(run + 10 * layer + 5, batch, heads, past, size)
        inputs.append(values)
    dynamic = {name: {0: "batch", 2: "past"} for name in inputs[0] if name.startswith("past")}
    dynamic |= {"tokens": {0: "batch", 1: "new"}}
    if states:
        dynamic["states"] = {0: "batch"}
    present = [f"present.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    return Case(CachedDecoder(inner, layers, bool(states)), inputs, ["hidden", *present], dynamic)


def whisper_decoder():
    return cached(whisper().model.decoder, 2, 2, 16, 100, states=(100, 32))


class Conformer(nn.Module):
    """Blocks of feed-forward, relative attention and convolution, on subsampled spectra."""

    def __init__(self, mels=20, width=32, heads=2, blocks=2, kernel=15):
        super().__init__()
        self.subsample = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
        )
        self.project = nn.Linear(8 * (((mels - 1) // 2 - 1) // 2), width)
        self.blocks = nn.ModuleList(Block(width, heads, kernel) for _ in range(blocks))
        self.out = nn.Linear(width, 30)

    def forward(self, spectrum):
        x = self.subsample(spectrum.unsqueeze(1))
        b, c, t, f = x.shape
        x = self.project(x.transpose(1, 2).reshape(b, t, c * f))
        for block in self.blocks:
            x = block(x)
        return self.out(x).log_softmax(-1)


class Block(nn.Module):
    def __init__(self, width, heads, kernel):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(2)
        )
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.place = nn.Linear(width, width, bias=False)
        self.u, self.v = (nn.Parameter(torch.randn(heads, width // heads)) for _ in range(2))
        self.pointwise, self.last = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)

    def attention(self, x):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, -1) for part in self.qkv(x).chunk(3, -1))
        steps = torch.arange(t - 1, -t, -1).unsqueeze(1).float()
        rates = torch.exp(torch.arange(0, c, 2).float() * (-4.0 / c))
        table = torch.stack([torch.sin(steps * rates), torch.cos(steps * rates)], -1).flatten(1)
        place = self.place(table).view(1, 2 * t - 1, self.heads, -1).transpose(1, 2)
        content = (q + self.u).transpose(1, 2) @ k.permute(0, 2, 3, 1)
        shifted = (q + self.v).transpose(1, 2) @ place.transpose(-2, -1)
        shifted = functional.pad(shifted, (1, 0)).view(b, self.heads, 2 * t, t)[:, :, 1:].view(b, self.heads, t, 2 * t - 1)
        scores = (content + shifted[..., :t]) / (c // self.heads) ** 0.5
        return self.out((scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2).reshape(b, t, c))

    def convolution(self, x):
        x = functional.glu(self.pointwise(x.transpose(1, 2)), 1)
        return self.last(functional.silu(self.batch_norm(self.depthwise(x)))).transpose(1, 2)

    def forward(self, x):
        x = x + 0.5 * self.feed[0](self.norms[0](x))
        x = x + self.attention(self.norms[1](x))
        x = x + self.convolution(self.norms[2](x))
        return self.norms[4](x + 0.5 * self.feed[1](self.norms[3](x)))


def conformer():
    inputs = [{"spectrum": floats(run, batch, time, 20)} for run, (batch, time) in enumerate([(1, 40), (2, 63), (3, 50)])]
    return Case(Conformer(), inputs, ["scores"], {"spectrum": TIME})


class RnntDecoder(nn.Module):
    def __init__(self, vocabulary=40, width=24):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(vocabulary, width), nn.LSTM(width, width, 2, batch_first=True)

    def forward(self, token, h, c):
        out, (h, c) = self.lstm(self.embed(token), (h, c))
        return out, h, c


def rnnt_decoder():
    inputs = [
        {"token": integers(run, 40, batch, count), "h": floats(run, 2, batch, 24), "c": floats(run + 9, 2, batch, 24)}
        for run, (batch, count) in enumerate([(1, 1), (2, 1), (3, 4)])
    ]
    dynamic = {"token": {0: "batch", 1: "tokens"}, "h": {1: "batch"}, "c": {1: "batch"}}
    return Case(RnntDecoder(), inputs, ["out", "next_h", "next_c"], dynamic)


class RnntJoiner(nn.Module):
    def __init__(self, width=24, vocabulary=40):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, encoded, decoded):
        joined = self.encoder(encoded).unsqueeze(2) + self.decoder(decoded).unsqueeze(1)
        return self.out(joined.tanh()).log_softmax(-1)


def rnnt_joiner():
    inputs = [
        {"encoded": floats(run, batch, time, 24), "decoded": floats(run + 9, batch, count, 24)}
        for run, (batch, time, count) in enumerate([(1, 1, 1), (2, 5, 3), (1, 7, 2)])
    ]
    dynamic = {"encoded": {0: "batch", 1: "time"}, "decoded": {0: "batch", 1: "tokens"}}
    return Case(RnntJoiner(), inputs, ["scores"], dynamic)


class Demucs(nn.Module):
    """A waveform U-Net with gated units and a bidirectional LSTM."""

    def __init__(self, channels=8, depth=3):
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = 2
        for level in range(depth):
            width = channels << level
            self.down.append(nn.Sequential(nn.Conv1d(before, width, 8, 4), nn.ReLU(), nn.Conv1d(width, 2 * width, 1), nn.GLU(1)))
            after = 4 if level == 0 else before
            last = [] if level == 0 else [nn.ReLU()]
            layers = [nn.Conv1d(width, 2 * width, 3, padding=1), nn.GLU(1), nn.ConvTranspose1d(width, after, 8, 4), *last]
            self.up.insert(0, nn.Sequential(*layers))
            before = width
        self.lstm, self.linear = nn.LSTM(before, before, 2, bidirectional=True), nn.Linear(2 * before, before)

    def forward(self, mix):
        length = mix.shape[-1]
        mean, deviation = mix.mean((1, 2), keepdim=True), mix.std((1, 2), keepdim=True)
        x, skips = (mix - mean) / (deviation + 1e-5), []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.linear(self.lstm(x.permute(2, 0, 1))[0]).permute(1, 2, 0)
        for block in self.up:
            skip = skips.pop()
            x = block(x + skip[..., : x.shape[-1]])
        x = functional.pad(x, (0, length - x.shape[-1]))
        return x * deviation + mean


def demucs():
    inputs = [{"mix": floats(run, batch, 2, length)} for run, (batch, length) in enumerate([(1, 1024), (2, 1500), (1, 2203)])]
    return Case(Demucs(), inputs, ["sources"], {"mix": {0: "batch", 2: "samples"}})


def wav2vec2():
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=(16, 16, 16),
        conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        num_feat_extract_layers=3, attn_implementation="eager",
    )
    module = Named(Wav2Vec2ForCTC(config), ["input_values"], ["logits"])
    inputs = [{"audio": floats(run, batch, length)} for run, (batch, length) in enumerate([(1, 800), (2, 1200), (1, 1777)])]
    return Case(module, inputs, ["logits"], {"audio": SAMPLES})


class Vad(nn.Module):
    """A voice detector: a Fourier transform, convolutions and a kept state."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv1d(65, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 16, 3, 2, 1), nn.ReLU())
        self.gru, self.out = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, audio, state):
        audio = functional.pad(audio.unsqueeze(1), (64, 64), mode="reflect").squeeze(1)
        spectrum = torch.stft(audio, 128, 64, window=torch.hann_window(128), center=False, return_complex=False)
        x = self.convolutions((spectrum**2).sum(-1).clamp(min=1e-5).log())
        x, state = self.gru(x.transpose(1, 2), state)
        return self.out(x).sigmoid().mean(1), state


def vad():
    inputs = [
        {"audio": floats(run, batch, length), "state": floats(run + 5, 1, batch, 16)}
        for run, (batch, length) in enumerate([(1, 512), (2, 1024), (3, 1024)])
    ]
    return Case(Vad(), inputs, ["voice", "next_state"], {"audio": SAMPLES, "state": {1: "batch"}})


class Vocoder(nn.Module):
    """A generator of waveforms: transposed convolutions with residual blocks of dilated ones."""

    def __init__(self, mels=20, width=32):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.first = norm(nn.Conv1d(mels, width, 7, padding=3))
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for stride in (4, 4):
            self.ups.append(norm(nn.ConvTranspose1d(width, width // 2, 2 * stride, stride, stride // 2)))
            width //= 2
            self.blocks.append(nn.ModuleList(norm(nn.Conv1d(width, width, 3, dilation=d, padding=d)) for d in (1, 3, 5)))
        self.last = norm(nn.Conv1d(width, 1, 7, padding=3, padding_mode="replicate"))

    def forward(self, mel):
        x = self.first(mel)
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = up(functional.leaky_relu(x, 0.1))
            for layer in block:
                x = x + layer(functional.leaky_relu(x, 0.1))
        return self.last(functional.elu(x)).tanh()


def vocoder():
    inputs = [{"mel": floats(run, batch, 20, time)} for run, (batch, time) in enumerate([(1, 16), (2, 23), (1, 40)])]
    return Case(Vocoder(), inputs, ["audio"], {"mel": {0: "batch", 2: "time"}})


def encodec():
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=32, num_lstm_layers=1, upsampling_ratios=[4, 2])
    inner = EncodecModel(config)

    class Codec(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, audio):
            codes = self.inner.quantizer.encode(self.inner.encoder(audio), 1.5)
            return codes, self.inner.decoder(self.inner.quantizer.decode(codes))

    inputs = [{"audio": floats(run, batch, 1, length)} for run, (batch, length) in enumerate([(1, 400), (2, 640), (1, 777)])]
    return Case(Codec(), inputs, ["codes", "decoded"], {"audio": {0: "batch", 2: "samples"}})
