#!/usr/bin/env python3
"""Training steps of keen's models in PyTorch, for a comparison side by side on one machine.

    scripts/bench_pytorch.py --model gpt2-124m --sequences 4 --tokens 64 --precision fp32,bf16 --mode eager,compile
    scripts/bench_pytorch.py --model gpt2-124m --sequences 1 --tokens 1024
    scripts/bench_pytorch.py --model llama-4x128 --sequences 16 --attention ssmax
    scripts/bench_pytorch.py --config CONFIG.json --threads 2
    scripts/bench_pytorch.py --device cuda --model gpt2-1558m --sequences 16 --precision bf16 --mode compile

The models are written the way that is fast in PyTorch: scaled_dot_product_attention, fused AdamW, cross_entropy over the
whole (B*T, V) logits, bf16 by autocast over float32 weights, optionally torch.compile. SSMax multiplies the queries by
its row scale s ln n + b before attention. A step is forward, backward, clipping by the global norm, AdamW and zeroing; it
trains on random tokens. Every combination of --precision and --mode runs in a process of its own, so peak memory is its
own (resident memory of the process on the CPU, compilation included; allocated memory on CUDA). Rates are medians over
the timed steps. --backend chooses the kernel behind scaled_dot_product_attention; --vocab-size may round the vocabulary
up to what suits the GPU's matrix products, as many do (50304).
"""

import argparse
import json
import math
import pathlib
import resource
import statistics
import subprocess
import sys
import time

GPT2 = {"norm": "layernorm", "mlp": "gelu", "position": "learned", "bias": True, "tie_embeddings": True}
# "model" objects as in keen's configs; keys left out have keen's defaults.
MODELS = {
    "gpt2-124m": GPT2 | {"vocab_size": 50257, "context": 1024, "layers": 12, "width": 768, "heads": 12, "mlp_width": 3072},
    "gpt2-1558m": GPT2 | {"vocab_size": 50257, "context": 1024, "layers": 48, "width": 1600, "heads": 25, "mlp_width": 6400},
    "llama-162m": {  # the set-up of the SSMax paper
        "vocab_size": 50257, "context": 1024, "layers": 12, "width": 768, "heads": 12, "mlp_width": 2048,
    },
    # As tests/bench/shapes.h has them.
    "llama-4x128": {"vocab_size": 2048, "context": 256, "layers": 4, "width": 128, "heads": 4, "mlp_width": 384},
    "gpt2-6x256": GPT2 | {"vocab_size": 8192, "context": 256, "layers": 6, "width": 256, "heads": 8, "mlp_width": 1024},
    "gpt2-6x384": GPT2 | {"vocab_size": 8192, "context": 256, "layers": 6, "width": 384, "heads": 6, "mlp_width": 1536},
}
DEFAULTS = {
    "norm": "rmsnorm", "mlp": "swiglu", "position": "rope", "rope_theta": 10000, "rope_fraction": 1.0, "bias": False,
    "tie_embeddings": False, "qk_norm": False, "norm_eps": 1e-5, "attention": "softmax",
}


def strip_comments(text):
    """JSON with // comments to JSON: a comment begins outside of strings alone."""
    lines = []
    for line in text.splitlines():
        inside = escaped = False
        for i, c in enumerate(line):
            if not inside and line.startswith("//", i):
                line = line[:i]
                break
            if c == '"' and not escaped:
                inside = not inside
            escaped = inside and c == "\\" and not escaped
        lines.append(line)
    return "\n".join(lines)


def layers_of(text):
    """"0-1,4" to {0, 1, 4}."""
    layers = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        layers.update(range(int(first), int(last or first) + 1))
    return layers


def attention_of(model):
    """One {"kind", "s", "b", "learn_s", "learn_b"} for each layer, from any form that keen's configs allow."""
    attention, layers = model["attention"], model["layers"]
    if not isinstance(attention, list):
        attention = [attention]
    if isinstance(attention[0], dict) and "layers" in attention[0]:
        entries = [next(e for e in attention if layer in layers_of(e["layers"])) for layer in range(layers)]
    else:
        entries = [attention[layer % len(attention)] for layer in range(layers)]
    auto = 1 / statistics.fmean(math.log(n) for n in range(1, model["context"] + 1))
    found = []
    for entry in entries:
        entry = {"kind": entry} if isinstance(entry, str) else entry
        kind = entry["kind"]
        s = entry.get("s", 1.0 if kind == "ssmax_fixed" else "auto")
        found.append({"kind": kind, "s": auto if s == "auto" else s, "b": entry.get("b", 0.0),
                      "learn_s": entry.get("learn_s", kind != "ssmax_fixed"),
                      "learn_b": entry.get("learn_b", kind == "ssmax_bias")})
    return found


def model_from(arguments):
    if arguments.config:
        model = json.loads(strip_comments(pathlib.Path(arguments.config).read_text())).get("model", {})
        model = {"vocab_size": 50257, "context": 1024, "layers": 12, "width": 768, "heads": 12, "mlp_width": 2048} | model
    else:
        model = MODELS[arguments.model]
    model = DEFAULTS | {"kv_heads": model["heads"]} | model
    if arguments.attention:
        model["attention"] = arguments.attention
    if arguments.context:
        model["context"] = arguments.context
    if arguments.vocab_size:
        model["vocab_size"] = arguments.vocab_size
    return model


def build(model, T):
    """The network as an nn.Module that maps ids and targets to the loss. Imports torch, which the parent never does."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    C, H, K = model["width"], model["heads"], model["kv_heads"]
    D = C // H

    def norm(width):
        if model["norm"] == "rmsnorm":
            return nn.RMSNorm(width, eps=model["norm_eps"])
        return nn.LayerNorm(width, eps=model["norm_eps"], bias=model["bias"])

    class Attention(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.qkv = nn.Linear(C, (H + 2 * K) * D, bias=model["bias"])
            self.proj = nn.Linear(H * D, C, bias=model["bias"])
            self.scaled = kind["kind"] != "softmax"
            if model["qk_norm"]:
                self.q_norm, self.k_norm = (nn.RMSNorm(D, eps=model["norm_eps"]) for _ in range(2))
            if self.scaled:
                self.s = nn.Parameter(torch.full((H,), float(kind["s"])), requires_grad=kind["learn_s"])
                self.b = nn.Parameter(torch.full((H,), float(kind["b"])), requires_grad=kind["learn_b"])

        def forward(self, x, cos, sin, log_n):
            B, T, _ = x.shape
            q, k, v = self.qkv(x).view(B, T, H + 2 * K, D).transpose(1, 2).split((H, K, K), dim=1)
            if model["qk_norm"]:
                # The weight takes the type of x, or PyTorch leaves its fused norm under autocast.
                q, k = (F.rms_norm(x, (D,), w.weight.to(x.dtype), model["norm_eps"])
                        for x, w in ((q, self.q_norm), (k, self.k_norm)))
            if model["position"] == "rope":
                q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if self.scaled:
                q = (q * (self.s[:, None] * log_n + self.b[:, None])[:, :, None]).to(v.dtype)
            y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, enable_gqa=K != H)
            return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def rotate(x, cos, sin):
        first, second = x.chunk(2, -1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            width = model["mlp_width"]
            self.up = nn.Linear(C, 2 * width if model["mlp"] == "swiglu" else width, bias=model["bias"])
            self.down = nn.Linear(width, C, bias=model["bias"])

        def forward(self, x):
            if model["mlp"] == "gelu":
                return self.down(F.gelu(self.up(x), approximate="tanh"))
            gate, up = self.up(x).chunk(2, -1)
            return self.down(F.silu(gate) * up)

    class Block(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.norm1, self.attn, self.norm2, self.mlp = norm(C), Attention(kind), norm(C), Mlp()

        def forward(self, x, *tables):
            x = x + self.attn(self.norm1(x), *tables)
            return x + self.mlp(self.norm2(x))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(model["vocab_size"], C)
            if model["position"] == "learned":
                self.positions = nn.Embedding(model["context"], C)
            self.blocks = nn.ModuleList(Block(kind) for kind in attention_of(model))
            self.norm = norm(C)
            self.head = nn.Linear(C, model["vocab_size"], bias=False)
            for p in self.parameters():
                if p.dim() >= 2:
                    nn.init.normal_(p, std=0.02)
            if model["tie_embeddings"]:
                self.head.weight = self.tokens.weight
            i = torch.arange(D // 2)
            turns = i < model["rope_fraction"] * D / 2
            angle = torch.arange(T)[:, None] * float(model["rope_theta"]) ** (-2 * i / D) * turns
            self.register_buffer("cos", angle.cos())
            self.register_buffer("sin", angle.sin())
            self.register_buffer("log_n", torch.arange(1, T + 1, dtype=torch.float64).log().float())

        def forward(self, ids, targets):
            x = self.tokens(ids)
            if model["position"] == "learned":
                x = x + self.positions.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x, self.cos, self.sin, self.log_n)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    return Gpt()


def measure(arguments, model, precision, mode):
    """Times one combination in this process."""
    import contextlib
    import torch
    from torch.nn import attention

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(1337)
    if arguments.device == "cuda":
        torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    B, T = arguments.sequences, arguments.tokens or model["context"]
    network = build(model, T).to(arguments.device)
    moving = [p for p in network.parameters() if p.requires_grad]
    groups = [{"params": [p for p in moving if p.dim() >= 2], "weight_decay": 0.1},
              {"params": [p for p in moving if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward = torch.compile(network) if mode == "compile" else network
    tokens = torch.randint(model["vocab_size"], (B, T + 1), device=arguments.device)
    ids, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    backends = {"flash": attention.SDPBackend.FLASH_ATTENTION, "cudnn": attention.SDPBackend.CUDNN_ATTENTION}
    chosen = backends.get(arguments.backend)

    def step():
        with contextlib.ExitStack() as stack:
            if chosen is not None:
                stack.enter_context(attention.sdpa_kernel([chosen]))
            return plain_step()

    def plain_step():
        with torch.autocast(arguments.device, torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()  # waits for the device

    first = step()
    for _ in range(arguments.warmup - 1):
        step()
    times_ms = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        last = step()
        times_ms.append(1e3 * (time.perf_counter() - start))
    median_ms = statistics.median(times_ms)
    if arguments.device == "cuda":
        peak_bytes = torch.cuda.max_memory_allocated()
    else:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "model": arguments.config or arguments.model, "parameters": sum(p.numel() for p in network.parameters()),
        "vocab_size": model["vocab_size"], "backend": arguments.backend,
        "sequences": B, "tokens": T, "attention": model["attention"], "device": arguments.device,
        "precision": precision, "mode": mode, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "steps": arguments.steps, "step_ms": median_ms, "step_ms_min": min(times_ms), "step_ms_max": max(times_ms),
        "tokens_per_s": 1e3 * B * T / median_ms, "peak_memory_bytes": peak_bytes, "first_loss": first, "last_loss": last,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", choices=MODELS, default="gpt2-124m")
    source.add_argument("--config", help="a config of keen, whose model is taken")
    parser.add_argument("--attention", choices=["softmax", "ssmax", "ssmax_fixed", "ssmax_bias"], help="for all layers")
    parser.add_argument("--vocab-size", type=int, help="in the place of the model's")
    parser.add_argument("--context", type=int, help="in the place of the model's")
    parser.add_argument("--backend", choices=["auto", "flash", "cudnn"], default="auto",
                        help="kernel of scaled_dot_product_attention on CUDA (auto: PyTorch's choice)")
    parser.add_argument("--sequences", type=int, default=4, help="sequences a step (4)")
    parser.add_argument("--tokens", type=int, help="tokens a sequence (the model's context)")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or both, separated by a comma (fp32)")
    parser.add_argument("--mode", default="eager", help="eager, compile or both, separated by a comma (eager)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in fp32 on CUDA")
    parser.add_argument("--threads", type=int, default=0, help="threads on the CPU (all)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the timed ones (3)")
    parser.add_argument("--steps", type=int, default=15, help="timed steps (15)")
    parser.add_argument("--json", action="store_true", help="one JSON document a combination and nothing else on stdout")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    combinations = [(p, m) for p in arguments.precision.split(",") for m in arguments.mode.split(",")]
    for precision, mode in combinations:
        if precision not in ("fp32", "bf16") or mode not in ("eager", "compile"):
            parser.error(f"--precision is fp32 or bf16 and --mode is eager or compile, not {precision} and {mode}")
    try:
        model = model_from(arguments)
    except (OSError, json.JSONDecodeError) as error:
        parser.error(f"--config {arguments.config}: {error}")
    if (arguments.tokens or 0) > model["context"]:
        parser.error(f"--tokens {arguments.tokens} exceeds the model's context {model['context']}")
    if min(arguments.warmup, arguments.steps, arguments.sequences) < 1:
        parser.error("--warmup, --steps and --sequences are at least 1")
    if arguments.in_process:
        print(json.dumps(measure(arguments, model, *combinations[0])))
        return 0
    failed = 0
    for precision, mode in combinations:
        # Of repeated options the last one counts.
        child = [sys.executable, __file__, *sys.argv[1:], "--precision", precision, "--mode", mode, "--in-process"]
        done = subprocess.run(child, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            print(f"{precision} {mode}: failed with status {done.returncode}", file=sys.stderr)
            failed = 1
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        if arguments.json:
            print(json.dumps(result), flush=True)
            continue
        print(f"{result['model']} ({result['parameters'] / 1e6:.1f}M) B{result['sequences']} T{result['tokens']} "
              f"{precision} {mode} {result['threads']} threads: {result['tokens_per_s']:.0f} tokens/s, "
              f"{result['step_ms']:.1f} ms/step ({result['step_ms_min']:.1f}-{result['step_ms_max']:.1f}), "
              f"peak {result['peak_memory_bytes'] / 1e9:.2f} GB", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
