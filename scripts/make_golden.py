#!/usr/bin/env python3
"""Golden values: the whole model once more, in PyTorch and float64, written from the definition of the model alone.

    scripts/make_golden.py                 trains tiny models and writes tests/fixtures/golden_*.json
    scripts/make_golden.py --only NAME     one fixture
    scripts/make_golden.py --check         recomputes every number in the files from their own weights; writes nothing

It needs torch and numpy; the C++ tests only read the files.

Each model is first trained on a task that cannot be solved without attention (a random phrase, repeated with a period
that differs from sequence to sequence), so that s, b, n and the rotation all carry weight. The weights are then rounded
to float32, so that a float32 and a float64 run start from the same numbers, and evaluated in float64 on fresh sequences.
"wrong" holds, for each likely mistake, the loss and the largest difference of a logit that it causes; the script refuses
to write a fixture that one of them would pass.

Letters: B sequences, T tokens, C width, H query heads, K key/value heads, D head width, F MLP width, V vocabulary.
Method: Nakanishi, "Scalable-Softmax Is Superior for Attention" (2025); rotation: Su et al., "RoFormer" (2021).
"""

import argparse
import base64
import json
import math
import pathlib

import numpy as np
import torch

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures"
SMALLEST_MOVE = 1e-3  # a mistake must move some logit by more than this,
SMALLEST_MOVE_OF = {"exact_gelu": 1e-5}  # except where the two formulas themselves never differ by more than 5e-4
ENCODING = "tensors: row-major, dtype F32 or F64, data is base64 of the little-endian numbers"

LLAMA = {
    "vocab_size": 37, "context": 24, "layers": 2, "width": 24, "heads": 4, "kv_heads": 2, "mlp_width": 28,
    "norm": "rmsnorm", "mlp": "swiglu", "position": "rope", "rope_theta": 100, "rope_fraction": 1.0,
    "bias": False, "tie_embeddings": False, "qk_norm": False, "norm_eps": 1e-5, "attention": "softmax",
}
GPT2 = LLAMA | {
    "kv_heads": 4, "mlp_width": 40, "norm": "layernorm", "mlp": "gelu", "position": "learned", "bias": True,
    "tie_embeddings": True,
}

# name: (model, T of the stored sequences). Some T lie below the context, where a global n is wrong in two ways.
MODELS = {
    "llama_softmax": (LLAMA | {"kv_heads": 4, "rope_theta": 10000}, 24),
    "llama_ssmax": (LLAMA | {"attention": "ssmax"}, 19),
    "llama_mixed": (
        LLAMA | {
            "vocab_size": 29, "layers": 4, "mlp_width": 16, "rope_fraction": 0.5, "qk_norm": True,
            "attention": ["softmax", "ssmax_bias", "ssmax_fixed", "ssmax"],
        }, 24),
    "gpt2_softmax": (GPT2, 24),
    "gpt2_ssmax": (GPT2 | {"attention": "ssmax"}, 17),
    # What the two families leave out: no positions at all, one key/value head, normalization without bias, tied swiglu.
    "unplaced_ssmax_bias": (
        LLAMA | {
            "kv_heads": 1, "norm": "layernorm", "position": "none", "tie_embeddings": True, "qk_norm": True,
            "norm_eps": 1e-3, "attention": "ssmax_bias",
        }, 21),
}
OPTIMIZER = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "grad_clip": 1.0}


def kinds(model):
    """The attention of each layer; a list of names repeats over the layers."""
    attention = model["attention"]
    names = [attention] if isinstance(attention, str) else attention
    return [names[layer % len(names)] for layer in range(model["layers"])]


def shapes(model):
    """Every tensor of the checkpoint: name to shape."""
    C, H, K, F, V = (model[key] for key in ("width", "heads", "kv_heads", "mlp_width", "vocab_size"))
    D = C // H
    found = {}

    def norm(name, width=C):
        found[name + ".weight"] = (width,)
        if model["norm"] == "layernorm" and model["bias"]:
            found[name + ".bias"] = (width,)

    def linear(name, outputs, inputs):
        found[name + ".weight"] = (outputs, inputs)
        if model["bias"]:
            found[name + ".bias"] = (outputs,)

    found["embed.tokens.weight"] = (V, C)
    if model["position"] == "learned":
        found["embed.positions.weight"] = (model["context"], C)
    for layer, kind in enumerate(kinds(model)):
        block = f"blocks.{layer}."
        norm(block + "norm1")
        linear(block + "attn.qkv", (H + 2 * K) * D, C)
        if model["qk_norm"]:
            found[block + "attn.q_norm.weight"] = (D,)
            found[block + "attn.k_norm.weight"] = (D,)
        if kind != "softmax":
            found[block + "attn.s"] = (H,)
        if kind == "ssmax_bias":
            found[block + "attn.b"] = (H,)
        linear(block + "attn.proj", C, H * D)
        norm(block + "norm2")
        linear(block + "mlp." + ("gate_up" if model["mlp"] == "swiglu" else "up"), F * (1 + (model["mlp"] == "swiglu")), C)
        linear(block + "mlp.down", C, F)
    norm("norm")
    if not model["tie_embeddings"]:
        found["head.weight"] = (V, C)
    return found


def learned(model, name):
    """Everything is, except s of a layer whose s is fixed."""
    return not (name.endswith(".attn.s") and kinds(model)[int(name.split(".")[1])] == "ssmax_fixed")


def initial(model, generator):
    """Weights to start training from. The heads get an s of their own each; one of them starts below zero."""
    auto = 1 / np.mean(np.log(np.arange(1, model["context"] + 1)))
    params = {}
    for name, shape in shapes(model).items():
        if name.endswith(".attn.s"):
            value = auto * torch.linspace(-0.3, 1.7, shape[0], dtype=torch.float64)
            if not learned(model, name):
                value = torch.ones(shape, dtype=torch.float64)
        elif len(shape) == 2:
            value = torch.randn(shape, dtype=torch.float64, generator=generator) / math.sqrt(shape[1])
        else:
            is_weight = name.endswith(".weight")
            value = torch.full(shape, 1.0 if is_weight else 0.0, dtype=torch.float64)
            value += 0.1 * torch.randn(shape, dtype=torch.float64, generator=generator)
        params[name] = value.requires_grad_(learned(model, name))
    return params


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def norm(model, p, name, x):
    weight, eps = p[name + ".weight"], model["norm_eps"]
    if model["norm"] == "rmsnorm":
        return rms_norm(x, weight, eps)
    centred = x - x.mean(-1, keepdim=True)
    y = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + eps) * weight
    return y + p[name + ".bias"] if model["bias"] else y


def linear(model, p, name, x):
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if model["bias"] else y


def rotate(model, x, wrong):
    """RoPE on x (B, heads, T, D): the pairs (i, i + D/2) turn by position * theta^(-2i/D), for i < fraction * D/2."""
    if model["position"] != "rope" or wrong == "no_rope":
        return x
    T, D = x.shape[-2:]
    i = torch.arange(D // 2, dtype=torch.float64)
    turns = i < model["rope_fraction"] * D / 2
    if wrong == "rope_fraction_ignored":
        turns[:] = True
    if wrong == "slowest_pairs_rotate":
        turns = turns.flip(0)
    angle = torch.arange(T, dtype=torch.float64)[:, None] * model["rope_theta"] ** (-2 * i / D) * turns
    cos, sin = angle.cos(), angle.sin() * (-1 if wrong == "rope_backwards" else 1)
    if wrong == "interleaved_rope":
        first, second = x[..., 0::2], x[..., 1::2]
    else:
        first, second = x[..., : D // 2], x[..., D // 2 :]
    y1, y2 = first * cos - second * sin, second * cos + first * sin
    return torch.stack((y1, y2), -1).flatten(-2) if wrong == "interleaved_rope" else torch.cat((y1, y2), -1)


def row_scale(model, p, layer, T, wrong):
    """c(h, n) = s_h ln n + b_h as (H, T, 1), n = 1..T the number of keys a row sees; None for softmax."""
    if kinds(model)[layer] == "softmax" or wrong == "no_scale":
        return None
    n = torch.arange(1, T + 1, dtype=torch.float64)
    if wrong == "global_n_of_context":
        n = torch.full_like(n, model["context"])
    if wrong == "global_n_of_sequence":
        n = torch.full_like(n, T)
    if wrong == "ln_n_plus_1":
        n = n + 1
    s, b = p[f"blocks.{layer}.attn.s"], p.get(f"blocks.{layer}.attn.b")
    if wrong == "s_of_kv_head":
        group = model["heads"] // model["kv_heads"]
        s = s[::group].repeat_interleave(group)
    c = s[:, None] * n.log()[None, :]
    if b is not None and wrong != "no_b":
        c = c + b[:, None]
    return c[:, :, None]


def attention(model, p, layer, x, wrong):
    B, T, C = x.shape
    H, K = model["heads"], model["kv_heads"]
    D = C // H
    name = f"blocks.{layer}.attn."
    qkv = linear(model, p, name + "qkv", x).view(B, T, H + 2 * K, D).transpose(1, 2)
    q, k, v = qkv[:, :H], qkv[:, H : H + K], qkv[:, H + K :]
    scale = row_scale(model, p, layer, T, wrong)
    if scale is not None and wrong == "scale_before_qk_norm":
        q = q * scale
    if model["qk_norm"] and wrong != "no_qk_norm":
        q = rms_norm(q, p[name + "q_norm.weight"], model["norm_eps"])
        k = rms_norm(k, p[name + "k_norm.weight"], model["norm_eps"])
    q, k = rotate(model, q, wrong), rotate(model, k, wrong)
    if scale is not None and wrong != "scale_before_qk_norm":
        q = q * scale
    # Query head h reads key/value head h // (H/K).
    of = [h % K if wrong == "kv_heads_in_turn" else h // (H // K) for h in range(H)]
    scores = q @ k[:, of].transpose(-1, -2)
    if wrong != "no_sqrt_d":
        scores = scores / math.sqrt(D)
    if wrong != "no_causal_mask":
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    weights = weights / weights.sum(-1, keepdim=True)
    heads = (weights @ v[:, of]).transpose(1, 2).reshape(B, T, H * D)
    return linear(model, p, name + "proj", heads)


def mlp(model, p, layer, x, wrong):
    name = f"blocks.{layer}.mlp."
    if model["mlp"] == "swiglu":
        gate, up = linear(model, p, name + "gate_up", x).chunk(2, -1)
        if wrong == "up_before_gate":
            gate, up = up, gate
        hidden = gate / (1 + torch.exp(-gate)) * up
    else:
        u = linear(model, p, name + "up", x)
        if wrong == "exact_gelu":
            hidden = u * (1 + torch.erf(u / math.sqrt(2))) / 2
        else:
            hidden = u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) / 2
    return linear(model, p, name + "down", hidden)


def logits_of(model, p, ids, wrong=None):
    """ids (B, T) to logits (B, T, V). `wrong` names one deliberate mistake."""
    x = p["embed.tokens.weight"][ids]
    if model["position"] == "learned" and wrong != "no_positions":
        start = 1 if wrong == "positions_from_1" and ids.shape[1] < model["context"] else 0
        x = x + p["embed.positions.weight"][start : start + ids.shape[1]]
    for layer in range(model["layers"]):
        block = f"blocks.{layer}."
        x = x + attention(model, p, layer, norm(model, p, block + "norm1", x), wrong)
        x = x + mlp(model, p, layer, norm(model, p, block + "norm2", x), wrong)
    x = norm(model, p, "norm", x)
    return x @ p["embed.tokens.weight" if model["tie_embeddings"] else "head.weight"].T


def loss_of(logits, targets):
    """Mean cross-entropy in nats."""
    top = logits.amax(-1, keepdim=True)
    log_sum = (logits - top).exp().sum(-1, keepdim=True).log() + top
    return (log_sum - logits.gather(-1, targets[..., None])).mean()


def mistakes(model, T):
    """The names of the mistakes that could show in this model, each of which must."""
    scaled = [kind for kind in kinds(model) if kind != "softmax"]
    grouped = 1 < model["kv_heads"] < model["heads"]
    names = ["no_sqrt_d", "no_causal_mask"]
    if scaled:
        names += ["no_scale", "global_n_of_sequence", "ln_n_plus_1"]
        if T < model["context"]:
            names.append("global_n_of_context")
        if model["kv_heads"] < model["heads"]:
            names.append("s_of_kv_head")
    if "ssmax_bias" in scaled:
        names.append("no_b")
    if model["qk_norm"]:
        names.append("no_qk_norm")
        if scaled:
            names.append("scale_before_qk_norm")
    if grouped:
        names.append("kv_heads_in_turn")
    if model["position"] == "rope":
        names += ["no_rope", "interleaved_rope", "rope_backwards"]
        if model["rope_fraction"] < 1:
            names += ["rope_fraction_ignored", "slowest_pairs_rotate"]
    if model["position"] == "learned":
        names += ["no_positions"] + (["positions_from_1"] if T < model["context"] else [])
    names.append("up_before_gate" if model["mlp"] == "swiglu" else "exact_gelu")
    return names


def batch(model, generator, sequences, T):
    """Random phrases of 3 to 6 tokens, repeated: ids and the tokens that follow, both (sequences, T)."""
    tokens = torch.empty(sequences, T + 1, dtype=torch.int64)
    for row in tokens:
        period = int(torch.randint(3, 7, (), generator=generator))
        phrase = torch.randint(model["vocab_size"], (period,), generator=generator)
        row[:] = phrase.repeat(T // period + 2)[: T + 1]
    return tokens[:, :-1], tokens[:, 1:]


def two_groups(params, weight_decay):
    """Weight decay on matrices alone."""
    moving = [p for p in params.values() if p.requires_grad]
    return [{"params": [p for p in moving if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in moving if p.dim() < 2], "weight_decay": 0.0}]


def train(model, params, generator, steps):
    """A few hundred steps on the task; returns the last loss."""
    optimizer = torch.optim.AdamW(two_groups(params, 0.01), lr=1e-2, betas=(0.9, 0.95))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1, (step + 1) / 20) * (1 - step / steps)
        ids, targets = batch(model, generator, 32, model["context"])
        optimizer.zero_grad()
        loss = loss_of(logits_of(model, params, ids), targets)
        loss.backward()
        clip([p for p in params.values() if p.requires_grad], 1.0)
        optimizer.step()
    return loss.item()


def clip(params, limit):
    """Scales all gradients together so that their global norm is at most `limit`; returns the norm before."""
    norm_before = math.sqrt(sum((p.grad**2).sum().item() for p in params))
    if norm_before > limit:
        for p in params:
            p.grad *= limit / norm_before
    return norm_before


def rounded(params):
    """The same weights, rounded to float32 and held in float64."""
    return {name: p.detach().float().double().requires_grad_(p.requires_grad) for name, p in params.items()}


def evaluate(model, params, ids, targets):
    """What a fixture stores besides its inputs: logits, loss, gradients, and what each mistake would give."""
    logits = logits_of(model, params, ids)
    loss = loss_of(logits, targets)
    moving = {name: p for name, p in params.items() if p.requires_grad}
    gradients = dict(zip(moving, torch.autograd.grad(loss, list(moving.values()))))
    wrong = {}
    with torch.no_grad():
        for name in mistakes(model, ids.shape[1]):
            mistaken = logits_of(model, params, ids, name)
            wrong[name] = {"loss": loss_of(mistaken, targets).item(),
                           "max_logit_difference": (mistaken - logits).abs().max().item()}
    return logits.detach(), loss.item(), gradients, wrong


def adamw_steps(model, start, batches, mistake=None):
    """Five updates by the trainer's rules; returns losses (before each update), gradient norms and the weights."""
    params = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in start.items()}
    decay = 0.0 if mistake in ("no_decay", "decay_in_the_gradient") else OPTIMIZER["weight_decay"]
    groups = two_groups(params, decay)
    if mistake == "decay_on_vectors":
        groups[1]["weight_decay"] = decay
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER["lr"], eps=OPTIMIZER["eps"],
                                  betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]), foreach=False)
    losses, norms = [], []
    for ids, targets in batches:
        optimizer.zero_grad()
        loss = loss_of(logits_of(model, params, ids), targets)
        loss.backward()
        moving = [p for p in params.values() if p.requires_grad]
        before = clip(moving, math.inf if mistake == "no_clip" else OPTIMIZER["grad_clip"])
        for p in moving:
            if mistake == "clip_by_norm_squared" and before > 1:
                p.grad /= before
            if mistake == "decay_in_the_gradient" and p.dim() >= 2:
                p.grad += OPTIMIZER["weight_decay"] * p.detach()
        optimizer.step()
        losses.append(loss.item())
        norms.append(before)
    return losses, norms, {name: p.detach() for name, p in params.items()}


ADAMW_SEQUENCES = 24  # enough that the gradient norm of the learned task falls below the limit
ADAMW_MISTAKES = ["no_clip", "clip_by_norm_squared", "no_decay", "decay_on_vectors", "decay_in_the_gradient"]


def evaluate_adamw(model, start, batches):
    losses, norms, final = adamw_steps(model, start, batches)
    wrong = {}
    for name in ADAMW_MISTAKES:
        other_losses, _, other = adamw_steps(model, start, batches, name)
        wrong[name] = {"loss": other_losses[-1],
                       "max_parameter_difference": max((final[k] - other[k]).abs().max().item() for k in final)}
    return losses, norms, final, wrong


def encode(tensor, dtype):
    numbers = tensor.detach().numpy().astype({"F32": "<f4", "F64": "<f8"}[dtype])
    return {"shape": list(tensor.shape), "dtype": dtype, "data": base64.b64encode(numbers.tobytes()).decode()}


def decode(entry):
    numbers = np.frombuffer(base64.b64decode(entry["data"]), {"F32": "<f4", "F64": "<f8"}[entry["dtype"]])
    return torch.from_numpy(numbers.astype(np.float64)).view(entry["shape"])


def encode_all(tensors, dtype):
    return {name: encode(tensor, dtype) for name, tensor in sorted(tensors.items())}


def write(path, fixture):
    """One line for each entry, two levels deep, so that a changed tensor is one changed line."""
    def entry(value):
        if not isinstance(value, dict):
            return json.dumps(value)
        return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
    path.write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {entry(v)}" for k, v in fixture.items()) + "\n}\n")
    print(f"  wrote {path.name}, {path.stat().st_size / 1000:.0f} kB")


def refuse_insensitive(name, wrong, key, smallest_move):
    for mistake, result in wrong.items():
        smallest = SMALLEST_MOVE_OF.get(mistake, smallest_move)
        print(f"    {mistake:24} loss {result['loss']:.6f}, moves by {result[key]:.2e}")
        if not result[key] > smallest:
            raise SystemExit(f"{name}: {mistake} moves nothing by more than {smallest}; the fixture would not notice it")


def make_model(name, model, T, steps):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    params = initial(model, generator)
    trained = train(model, params, generator, steps)
    params = rounded(params)
    ids, targets = batch(model, generator, 2, T)
    logits, loss, gradients, wrong = evaluate(model, params, ids, targets)
    print(f"{name}: trained to {trained:.4f} (uniform: {math.log(model['vocab_size']):.4f}); loss {loss:.6f}")
    refuse_insensitive(name, wrong, "max_logit_difference", SMALLEST_MOVE)
    write(FIXTURES / f"golden_{name}.json", {
        "about": "written by scripts/make_golden.py; loss: mean cross-entropy in nats over B x T",
        "encoding": ENCODING, "model": model, "B": 2, "T": T, "ids": ids.tolist(), "targets": targets.tolist(),
        "loss": loss, "wrong": wrong, "logits": encode(logits, "F64"), "params": encode_all(params, "F32"),
        "gradients": encode_all(gradients, "F64")})
    return params, generator


def make_adamw(model, params, generator):
    T = model["context"]
    batches = [batch(model, generator, ADAMW_SEQUENCES, T) for _ in range(5)]
    for step in (1, 3):  # noise instead of the task: far above the limit
        noise = torch.randint(model["vocab_size"], (ADAMW_SEQUENCES, T + 1), generator=generator)
        batches[step] = noise[:, :-1], noise[:, 1:]
    losses, norms, final, wrong = evaluate_adamw(model, params, batches)
    print("adamw: losses", [round(x, 4) for x in losses], "norms", [round(x, 3) for x in norms])
    if not min(norms) < OPTIMIZER["grad_clip"] < max(norms):
        raise SystemExit("adamw: some steps should clip and some should not")
    refuse_insensitive("adamw", wrong, "max_parameter_difference", 1e-5)
    write(FIXTURES / "golden_adamw.json", {
        "about": "written by scripts/make_golden.py; losses and gradient norms (before clipping) are those of each step",
        "encoding": ENCODING, "model": model, "optimizer": OPTIMIZER, "B": ADAMW_SEQUENCES, "T": T,
        "ids": [ids.tolist() for ids, _ in batches], "targets": [targets.tolist() for _, targets in batches],
        "losses": losses, "grad_norms": norms, "wrong": wrong, "params": encode_all(params, "F32"),
        "final_params": encode_all(final, "F64")})


def check_file(path):
    """The largest difference between what the file says and what its own weights give."""
    fixture = json.loads(path.read_text())
    model = fixture["model"]
    params = {name: decode(entry).requires_grad_(learned(model, name)) for name, entry in fixture["params"].items()}
    if {name: tuple(p.shape) for name, p in params.items()} != shapes(model):
        raise SystemExit(f"{path.name}: tensors are not those of its model")
    ids, targets = torch.tensor(fixture["ids"]), torch.tensor(fixture["targets"])
    differences = []
    if "final_params" in fixture:
        losses, norms, final, wrong = evaluate_adamw(model, params, list(zip(ids, targets)))
        differences += [abs(a - b) for a, b in zip(losses + norms, fixture["losses"] + fixture["grad_norms"])]
        differences += [(decode(fixture["final_params"][k]) - v).abs().max().item() for k, v in final.items()]
    else:
        logits, loss, gradients, wrong = evaluate(model, params, ids, targets)
        differences += [abs(loss - fixture["loss"]), (decode(fixture["logits"]) - logits).abs().max().item()]
        if gradients.keys() != fixture["gradients"].keys():
            raise SystemExit(f"{path.name}: gradients are not those of its model")
        differences += [(decode(fixture["gradients"][k]) - v).abs().max().item() for k, v in gradients.items()]
    if wrong.keys() != fixture["wrong"].keys():
        raise SystemExit(f"{path.name}: other mistakes than this script knows")
    differences += [abs(wrong[k][part] - fixture["wrong"][k][part]) for k in wrong for part in wrong[k]]
    return max(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*MODELS, "adamw"], help="make one fixture")
    parser.add_argument("--steps", type=int, default=600, help="training steps before the values are taken")
    parser.add_argument("--check", action="store_true", help="recompute the values in the files; write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.check:
        for path in sorted(FIXTURES.glob("golden_*.json")):
            difference = check_file(path)
            print(f"{path.name}: largest difference {difference:.1e}")
            if not difference < 1e-9:
                raise SystemExit(f"{path.name}: the file and this script disagree")
        return
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name, (model, T) in MODELS.items():
        if arguments.only in (None, name) or (arguments.only == "adamw" and name == "llama_ssmax"):
            params, generator = make_model(name, model, T, arguments.steps)
            if name == "llama_ssmax":
                make_adamw(model, params, generator)


if __name__ == "__main__":
    main()
