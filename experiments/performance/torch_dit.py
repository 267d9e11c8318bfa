"""The diffusion transformer of specdiff_jax in PyTorch, layer by layer, for the benchmark only.

Patches by Conv2d and ConvTranspose2d, F.scaled_dot_product_attention, tensors [B, C, F, T].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from specdiff_jax.models.layers import swiglu_width
from specdiff_jax.models.positions import axial_angles


class Attention(nn.Module):
    """Multi-head self-attention with biases.  # [B, L, D] -> [B, L, D]"""

    def __init__(self, width, heads, qk_norm):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        make = lambda: nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None
        self.q_norm, self.k_norm = make(), make()

    def forward(self, x, angles):
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, H, L, d]
        return self.out(mixed.transpose(1, 2).reshape(b, n, d))


def rotate(x, angles):
    """Apply rotary positions.  # [B, H, L, d], [L, d / 2] -> as x"""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class SwiGlu(nn.Sequential):
    """Linear to (a, b), silu(a) * b, Linear."""

    def __init__(self, width, hidden):
        super().__init__(nn.Linear(width, 2 * hidden), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x):
        gate, value = self[0](x).chunk(2, dim=-1)
        return self[2](F.silu(gate) * value)


def mlp(model):
    """Return Linear, GELU (tanh form, as in Flax), Linear; or a SwiGlu."""
    width, hidden = model.width, model.mlp_ratio * model.width
    if model.mlp == "swiglu":
        return SwiGlu(width, swiglu_width(model.mlp_ratio, width))
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
    )


class PreLnBlock(nn.Module):
    """x + attention(LN(x)), then x + mlp(LN(x))."""

    def __init__(self, model):
        super().__init__()
        self.norm_1, self.norm_2 = (nn.LayerNorm(model.width, eps=1e-6) for _ in range(2))
        self.attention = Attention(model.width, model.heads, model.qk_norm)
        self.mlp = mlp(model)

    def forward(self, x, time, angles):
        x = x + self.attention(self.norm_1(x), angles)
        return x + self.mlp(self.norm_2(x))


class Modulation(nn.Module):
    """`count` modulation vectors from the RMS-normalized time embedding."""

    def __init__(self, width, count):
        super().__init__()
        self.linear, self.count = nn.Linear(width, count * width), count

    def forward(self, time):
        unit = time * torch.rsqrt(time.square().mean(dim=-1, keepdim=True) + 1e-6)
        return self.linear(F.silu(unit))[:, None].chunk(self.count, dim=-1)


class AdaLnZeroBlock(nn.Module):
    """Time shifts, scales and gates each branch."""

    def __init__(self, model):
        super().__init__()
        self.modulation = Modulation(model.width, 6)
        self.norm = nn.LayerNorm(model.width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(model.width, model.heads, model.qk_norm)
        self.mlp = mlp(model)

    def forward(self, x, time, angles):
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(time)
        x = x + gate_1 * self.attention(self.norm(x) * (1 + scale_1) + shift_1, angles)
        return x + gate_2 * self.mlp(self.norm(x) * (1 + scale_2) + shift_2)


class DiT(nn.Module):
    """x_t [B, C, F, T] and t [B] -> [B, C, F, T], with the options of base, tiny and modern."""

    def __init__(self, flax_model):
        super().__init__()
        m = flax_model
        (f, t, c), (pf, pt), d = m.shape, m.patch, m.width
        self.grid, self.fourier = (f // pf, t // pt), m.time_embedding == "fourier"
        self.width, self.pre_ln = d, m.block == "pre_ln"
        self.patch_in = nn.Conv2d(c, m.bottleneck or d, (pf, pt), stride=(pf, pt))
        self.widen = nn.Linear(m.bottleneck, d) if m.bottleneck else None
        if m.positions == "rotary":
            self.positions = None
            angles = torch.tensor(axial_angles(self.grid, d // m.heads))
            self.register_buffer("angles", angles)  # [L, d / 2]
        else:
            self.positions, self.angles = (
                nn.Parameter(torch.empty(1, math.prod(self.grid), d)),
                None,
            )
            nn.init.normal_(self.positions, std=0.02)
        features = d if self.fourier else 1
        self.time = nn.Sequential(nn.Linear(features, d), nn.SiLU(), nn.Linear(d, d))
        block = PreLnBlock if self.pre_ln else AdaLnZeroBlock
        self.blocks = nn.ModuleList(block(m) for _ in range(m.depth))
        self.final_norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=self.pre_ln)
        self.final_modulation = None if self.pre_ln else Modulation(d, 2)
        self.patch_out = nn.ConvTranspose2d(d, c, (pf, pt), stride=(pf, pt))

    def forward(self, x_t, t):
        time = self.time(fourier_time(t, self.width) if self.fourier else t[:, None])
        tokens = self.patch_in(x_t).flatten(2).transpose(1, 2)  # [B, L, D]
        if self.widen is not None:
            tokens = self.widen(tokens)
        if self.positions is not None:
            tokens = tokens + self.positions
        if self.pre_ln:
            tokens = tokens + time[:, None]
        for block in self.blocks:
            tokens = block(tokens, time, self.angles)
        tokens = self.final_norm(tokens)
        if self.final_modulation is not None:
            shift, scale = self.final_modulation(time)
            tokens = tokens * (1 + scale) + shift
        return self.patch_out(tokens.transpose(1, 2).unflatten(2, self.grid))


def fourier_time(t, width):
    """Return sinusoids of 1000 t at log-spaced frequencies.  # [B] -> [B, width]"""
    exponents = torch.arange(width // 2, device=t.device) / (width // 2)
    angles = 1000.0 * t[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def copy_from_flax(model, params):
    """Copy the Flax parameters of the same DiT to `model`, every parameter once."""
    written = {}

    def linear(module, source):
        written[module.weight], written[module.bias] = source["kernel"].T, source["bias"]

    def norm(module, source):
        written[module.weight], written[module.bias] = source["scale"], source["bias"]

    def patches(module, source):  # [pf, pt, C, D] -> [D, C, pf, pt]
        written[module.weight] = source["kernel"].transpose(3, 2, 0, 1)
        written[module.bias] = source["bias"]

    if model.positions is not None:
        written[model.positions] = params["positions"]
    patches(model.patch_in, params["patch_in"])
    if model.widen is not None:
        linear(model.widen, params["widen"])
    patches(model.patch_out, params["patch_out"])
    if model.pre_ln:
        norm(model.final_norm, params["final_norm"])
    else:
        linear(model.final_modulation.linear, params["final_modulation"]["time"])
    linear(model.time[0], params["time"]["Dense_0"])
    linear(model.time[2], params["time"]["Dense_1"])
    for index, block in enumerate(model.blocks):
        source = params[f"block_{index}"]
        linear(block.attention.qkv, source["SelfAttention_0"]["qkv"])
        linear(block.attention.out, source["SelfAttention_0"]["out"])
        if block.attention.q_norm is not None:
            written[block.attention.q_norm.weight] = source["SelfAttention_0"]["q_norm"]["scale"]
            written[block.attention.k_norm.weight] = source["SelfAttention_0"]["k_norm"]["scale"]
        feed = source["SwiGlu_0" if isinstance(block.mlp, SwiGlu) else "Mlp_0"]
        linear(block.mlp[0], feed["Dense_0"])
        linear(block.mlp[2], feed["Dense_1"])
        if model.pre_ln:
            norm(block.norm_1, source["LayerNorm_0"])
            norm(block.norm_2, source["LayerNorm_1"])
        else:
            linear(block.modulation.linear, source["modulation"]["time"])

    assert set(written) == set(model.parameters())
    with torch.no_grad():
        for parameter, value in written.items():
            assert parameter.shape == value.shape, (parameter.shape, value.shape)
            parameter.copy_(torch.tensor(value.copy()))


def diffusion_loss(model, x_0, alpha, sigma):
    """Return the mean-square x_0 error at random discrete t.

    alpha, sigma: [T], for t = 1/T ... T/T.
    """
    index = torch.randint(len(alpha), (len(x_0),), device=x_0.device)
    scale, noise = (table[index][:, None, None, None] for table in (alpha, sigma))
    x_t = scale * x_0 + noise * torch.randn_like(x_0)
    return F.mse_loss(model(x_t, (index + 1) / len(alpha)).float(), x_0)


def ddpm_linear(steps, beta_min, beta_max, device):
    """Return alpha and sigma at t = 1/T ... T/T (Ho et al. 2020, section 4).  # [T] each"""
    betas = torch.linspace(beta_min, beta_max, steps, dtype=torch.float64, device=device)
    log_alpha_bar = torch.cumsum(torch.log1p(-betas), 0)
    return (0.5 * log_alpha_bar).exp().float(), (-torch.expm1(log_alpha_bar)).sqrt().float()


def train_step(model, config, x_shape, device, compiled):
    """Return a function that trains a model for one step on random x_0.

    x_shape is [B, F, T, C]. Uses fused Adam, an EMA of the parameters, and automatic mixed
    precision on a GPU.
    """
    o, s, (batch, bins, frames, channels) = config.optimizer, config.schedule, x_shape
    model = model.to(device)
    x_0 = torch.randn(batch, channels, bins, frames, device=device)
    tables = ddpm_linear(s.steps, s.beta_min, s.beta_max, device)
    params = list(model.parameters())
    ema = [p.detach().clone() for p in params]
    adam = torch.optim.Adam(params, o.learning_rate, (o.b1, o.b2), fused=True)
    loss_fn = torch.compile(diffusion_loss) if compiled else diffusion_loss

    def step(index):
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            loss = loss_fn(model, x_0, *tables)
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - o.ema_decay)
        assert loss.isfinite()
        if device == "cuda":
            torch.cuda.synchronize()

    return step
