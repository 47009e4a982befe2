#!/usr/bin/env python3
"""Golden values beyond the training context: attention of the last row, and the loss at every position.

    scripts/make_needle_golden.py            writes tests/fixtures/golden_needle.json
    scripts/make_needle_golden.py --check    recomputes every number in the file; writes nothing

The models are those of scripts/make_golden.py (their trained weights are read from its fixtures), written once more in
NumPy and float64 from the definition alone, one sequence and one head at a time. Models with RoPE read sequences three
times as long as they were trained on, with theta 50 times as large. It needs numpy; the C++ tests only read the file.

The needle score of a head is the attention that the last row pays to the tokens [number_begin, number_end) together.
"""

import argparse
import base64
import json
import math
import pathlib

import numpy as np

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures"
MODELS = ["llama_softmax", "llama_ssmax", "llama_mixed", "unplaced_ssmax_bias", "gpt2_ssmax"]
SEQUENCES = 2
SMALLEST_MOVE = 1e-2  # by how much a score must move when the row scale is left out


def decode(entry):
    kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
    return np.frombuffer(base64.b64decode(entry["data"]), kind).astype(np.float64).reshape(entry["shape"])


def encode(array):
    data = base64.b64encode(np.asarray(array, "<f8").tobytes()).decode()
    return {"shape": list(np.shape(array)), "dtype": "F64", "data": data}


def normalized(model, x, weight, bias=None, kind=None):
    if (kind or model["norm"]) == "layernorm":
        x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + model["norm_eps"]) * weight
    return x if bias is None else x + bias


def dense(p, name, x):
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def rotated(model, x):
    """RoPE of one head (T, D)."""
    if model["position"] != "rope":
        return x
    T, D = x.shape
    y = x.copy()
    for i in range(D // 2):
        if i >= model["rope_fraction"] * D / 2:
            break
        angle = np.arange(T) * model["rope_theta"] ** (-2 * i / D)
        y[:, i] = x[:, i] * np.cos(angle) - x[:, i + D // 2] * np.sin(angle)
        y[:, i + D // 2] = x[:, i] * np.sin(angle) + x[:, i + D // 2] * np.cos(angle)
    return y


def attention(model, p, layer, x, scaled):
    """The output (T, C) of a layer, and the weights of every head (H, T, T)."""
    at = f"blocks.{layer}.attn."
    T, C = x.shape
    H, K = model["heads"], model["kv_heads"]
    D = C // H
    columns = np.split(dense(p, at + "qkv", x), H + 2 * K, axis=1)
    outputs, weights = [], []
    for h in range(H):
        group = h // (H // K)
        q, k, v = columns[h], columns[H + group], columns[H + K + group]
        if model["qk_norm"]:
            q = normalized(model, q, p[at + "q_norm.weight"], kind="rmsnorm")
            k = normalized(model, k, p[at + "k_norm.weight"], kind="rmsnorm")
        q, k = rotated(model, q), rotated(model, k)
        head = np.zeros((T, T))
        for row in range(T):
            n = row + 1
            logits = k[:n] @ q[row] / math.sqrt(D)
            if scaled and at + "s" in p:
                bias = p[at + "b"][h] if at + "b" in p else 0
                logits = logits * (p[at + "s"][h] * math.log(n) + bias)
            powers = np.exp(logits - logits.max())
            head[row, :n] = powers / powers.sum()
        outputs.append(head @ v)
        weights.append(head)
    return dense(p, at + "proj", np.concatenate(outputs, axis=1)), np.stack(weights)


def mlp(model, p, layer, x):
    at = f"blocks.{layer}.mlp."
    if model["mlp"] == "swiglu":
        gate, up = np.split(dense(p, at + "gate_up", x), 2, axis=1)
        hidden = gate / (1 + np.exp(-gate)) * up
    else:
        up = dense(p, at + "up", x)
        hidden = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return dense(p, at + "down", hidden)


def forward(model, p, ids, scaled=True):
    """Log-probabilities (T, V), and the weights of every layer (L, H, T, T)."""
    def norm(name, x):
        return normalized(model, x, p[name + ".weight"], p.get(name + ".bias"))

    x = p["embed.tokens.weight"][ids]
    if model["position"] == "learned":
        x = x + p["embed.positions.weight"][: len(ids)]
    weights = []
    for layer in range(model["layers"]):
        out, of_layer = attention(model, p, layer, norm(f"blocks.{layer}.norm1", x), scaled)
        weights.append(of_layer)
        x = x + out
        x = x + mlp(model, p, layer, norm(f"blocks.{layer}.norm2", x))
    head = p["embed.tokens.weight" if model["tie_embeddings"] else "head.weight"]
    logits = norm("norm", x) @ head.T
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)), np.stack(weights)


def phrases(generator, vocab_size, tokens):
    """A random phrase of 3 to 6 tokens, repeated: the task that the models were trained on."""
    phrase = generator.integers(vocab_size, size=generator.integers(3, 7))
    return np.tile(phrase, tokens // len(phrase) + 1)[:tokens]


def evaluate(model, p, ids, begin, end):
    losses, last_rows, moves = [], [], []
    for row in ids:
        log_p, weights = forward(model, p, row[:-1])
        losses.append(-log_p[np.arange(len(row) - 1), row[1:]])
        last_rows.append(weights[:, :, -1])
        if any(name.endswith("attn.s") for name in p):
            unscaled = forward(model, p, row[:-1], scaled=False)[1][:, :, -1]
            moves.append(np.abs(unscaled - last_rows[-1])[:, :, begin:end].sum(axis=-1).max())
    last_rows = np.stack(last_rows)
    return np.stack(losses), last_rows, last_rows[..., begin:end].sum(axis=-1), moves


def make():
    models = {}
    for name in MODELS:
        source = json.loads((FIXTURES / f"golden_{name}.json").read_text())
        p = {key: decode(entry) for key, entry in source["params"].items()}
        model = source["model"]
        T = model["context"] if model["position"] == "learned" else 3 * model["context"]
        if model["position"] == "rope":
            model["rope_theta"] *= 50
        generator = np.random.default_rng(len(name))
        ids = np.stack([phrases(generator, model["vocab_size"], T + 1) for _ in range(SEQUENCES)])
        begin, end = T // 3, T // 3 + 5
        losses, last_rows, scores, moves = evaluate(model, p, ids, begin, end)
        print(f"{name}: T {T}, mean loss {losses.mean():.4f}, scores {scores.min():.2e} to {scores.max():.4f}, "
              f"without the row scale they move by {max(moves, default=0):.2e}")
        if moves and min(moves) < SMALLEST_MOVE:
            raise SystemExit(f"{name}: a missing row scale would hardly be noticed")
        models[name] = {"rope_theta": model["rope_theta"], "T": T, "ids": ids.tolist(), "number_begin": begin,
                        "number_end": end, "losses": encode(losses), "last_rows": encode(last_rows),
                        "scores": encode(scores)}
    return models


def differences(old, new):
    for name, entry in new.items():
        for key, value in entry.items():
            if isinstance(value, dict):
                yield np.abs(decode(value) - decode(old[name][key])).max()
            elif value != old[name][key]:
                yield math.inf


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="recompute the values in the file; write nothing")
    arguments = parser.parse_args()
    path = FIXTURES / "golden_needle.json"
    models = make()
    if arguments.check:
        largest = max(differences(json.loads(path.read_text())["models"], models))
        print(f"{path.name}: largest difference {largest:.1e}")
        raise SystemExit(0 if largest < 1e-9 else f"{path.name}: the file and this script disagree")
    lines = ",\n".join(f"  {json.dumps(name)}: {{\n" + ",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}"
                       for k, v in entry.items()) + "\n  }" for name, entry in models.items())
    about = ("written by scripts/make_needle_golden.py; ids (B, T + 1), losses (B, T) in nats, last_rows (B, L, H, T), "
             "scores (B, L, H); weights are those of golden_NAME.json")
    path.write_text(f'{{\n "about": {json.dumps(about)},\n "models": {{\n{lines}\n }}\n}}\n')
    print(f"wrote {path.name}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
