//! Plans that hold every kernel in every variant and storage format.

use super::{CONTEXT, SIZES, VOCAB, WIDE, WIDTH};
use crate::{
    architecture::{Activation, NormKind, Rope, RopeScaling},
    buffers::{Buffers, Content, Per, Rows},
    capabilities::Capabilities,
    kernels::{
        By, Cache, CachePart, Candidates, Partials, RopeTable, activate, adjust, attention,
        attention_weights, embed, hadamard, head_norm, kv_write, matmul, norm, normed, rope, sample,
        scale_adapter, score, splice,
    },
    kv_format::KvFormat,
    plan::{Plan, Plans, Ports},
    weights::{Format, Matrix, NormWeights, Order, Random, StoredRows, Tensor, Values, Vector},
    workload::Phase,
};
use std::sync::Arc;

/// What the plans are made with: the device's capabilities, the buffers so far, and random numbers.
struct Writer<'a> {
    can: &'a Capabilities,
    buffers: Buffers,
    random: Random,
}

impl Writer<'_> {
    fn matrix(&mut self, format: Format, rows: u32, columns: u32, bias: Option<Vector>) -> Matrix {
        let seed = self.random.word();
        let tensor = Tensor::random("verify", format, rows as usize, columns as usize, seed);
        let rows = StoredRows::new(tensor, format, false, Order::AsStored);
        Matrix::declare(&mut self.buffers, format.name(), vec![rows], &self.can.layout, bias)
    }
    /// A new buffer of `values`, followed by a vector of `len` random values near 1. A layer's buffer starts
    /// with the scale and the window of its attention.
    fn vector(&mut self, mut values: Vec<f32>, len: u32) -> Vector {
        let at = values.len() as u32;
        values.extend((0..len).map(|_| 1.0 + 0.1 * self.random.value()));
        let buffer = self.buffers.declare("vector", Content::Loaded(Arc::new(Values(values))));
        Vector { buffer, at, len }
    }
    fn row(&mut self, width: u32) -> Rows {
        self.buffers.activation("y", Per::Row, width)
    }
}

/// Plans that hold every kernel once in every variant and storage format, for a device of these capabilities.
pub fn plans(can: &Capabilities) -> Plans {
    let mut w = Writer { can, buffers: Buffers::default(), random: Random(1) };
    let ids = w.buffers.declare("ids", Content::Ids);
    let [mut prefill, mut decode] = Phase::ALL.map(Plan::new);
    macro_rules! push {
        ($kernel:expr) => {{
            prefill.push($kernel);
            decode.push($kernel);
        }};
    }
    let x = w.row(WIDTH);
    let positions = w.matrix(Format::F32, CONTEXT, WIDTH, None);
    for format in Format::ALL {
        let tokens = w.matrix(format, VOCAB, WIDTH, None);
        push!(embed(&tokens, By::Token, ids, x));
    }
    push!(embed(&positions, By::Position, ids, x).add());
    let h = w.row(WIDTH);
    prefill.push(splice(h, x));
    for kind in [NormKind::Layer, NormKind::Rms] {
        let both = w.vector(Vec::new(), 2 * WIDTH);
        let weight = Vector { len: WIDTH, ..both };
        let bias = (kind == NormKind::Layer).then_some(Vector { at: WIDTH, ..weight });
        let by = NormWeights { weight, bias, kind, epsilon: 1e-5 };
        push!(norm(x, &by).to(h));
        // For few rows, the norm is part of the matmul that reads it.
        let matrix = w.matrix(Format::F16, 94, WIDTH, None);
        let (plain, gated) = (w.row(94), w.row(47));
        decode.push(matmul(normed(x, &by), &matrix).to(plain));
        decode.push(matmul(normed(x, &by), &matrix).activation(Activation::Silu).gated(true).to(gated));
    }
    for format in Format::ALL {
        let matrix = w.matrix(format, 203, WIDTH, None);
        let y = w.row(203);
        push!(matmul(h, &matrix).to(y));
    }
    // Wide enough that each thread of a matmul in decode takes whole blocks.
    let wide = w.row(WIDE);
    let widening = w.matrix(Format::F16, WIDE, WIDTH, None);
    decode.push(matmul(h, &widening).to(wide));
    for format in Format::ALL {
        let matrix = w.matrix(format, 41, WIDE, None);
        let y = w.row(41);
        decode.push(matmul(wide, &matrix).to(y));
    }
    // The ends of these rows are within a vector that the shader reads at once.
    for format in [Format::F32, Format::F16, Format::BF16] {
        let odd = w.row(61);
        let (narrow, back) = (w.matrix(format, 61, WIDTH, None), w.matrix(format, WIDTH, 61, None));
        push!(matmul(h, &narrow).to(odd));
        push!(matmul(odd, &back).add_to(x));
    }
    for activation in Activation::ALL {
        let bias = w.vector(Vec::new(), 94);
        let matrix = w.matrix(Format::F16, 94, WIDTH, Some(bias));
        let y = w.row(94);
        push!(matmul(h, &matrix).activation(activation).to(y));
        let y = w.row(47);
        push!(matmul(h, &matrix).activation(activation).gated(true).to(y));
        let (up, alone) = (w.row(94), w.row(94));
        push!(matmul(h, &matrix).to(up));
        push!(activate(up, activation, y));
        push!(activate(up, activation, alone));
    }
    // Between the factors of adapters' changes.
    let (narrow, low_rank) = (w.matrix(Format::F32, 70, WIDTH, None), w.row(70));
    push!(matmul(h, &narrow).to(low_rank));
    push!(scale_adapter(low_rank, 0..5, 0));
    push!(scale_adapter(low_rank, 5..70, 1));
    for (n_heads, n_kv_heads, head_dim, window, format) in [
        (4, 4, 64, 0.0, KvFormat::F32),
        (6, 2, 48, 0.0, KvFormat::F32),
        (4, 1, 128, 20.0, KvFormat::F16),
        (2, 1, 256, 0.0, KvFormat::F32),
        (2, 1, 64, 0.0, KvFormat::Q8_0),
        (1, 1, 96, 0.0, KvFormat::Q4_0),
    ] {
        let (q, kv) = (n_heads * head_dim, n_kv_heads * head_dim);
        let matrix = w.matrix(Format::F16, q + 2 * kv, WIDTH, None);
        let (qkv, y) = (w.row(q + 2 * kv), w.row(q));
        let table = RopeTable::new(
            &Rope { theta: 10_000.0, scaling: RopeScaling::None, dims: None },
            head_dim,
            CONTEXT,
        );
        let rope_table = w.buffers.declare("rope_table", Content::Loaded(Arc::new(table)));
        let content = Content::Cache { stride: format.slot_words(kv), format };
        let buffer = w.buffers.declare("cache", content);
        let part = CachePart { buffer, format, heads: 0..n_kv_heads, head_dim };
        let cache = Cache { parts: vec![part], n_kv_heads, head_dim };
        let scalars =
            Vector { at: 0, len: 2, ..w.vector(vec![1.0 / (head_dim as f32).sqrt(), window, 0.0, 0.0], 4) };
        push!(matmul(h, &matrix).to(qkv));
        let both = w.vector(Vec::new(), 2 * head_dim);
        let of_heads = [0, head_dim].map(|at| {
            let weight = Vector { at, len: head_dim, ..both };
            NormWeights { weight, bias: None, kind: NormKind::Rms, epsilon: 1e-5 }
        });
        push!(head_norm(qkv, &of_heads, n_heads, n_kv_heads));
        push!(rope(qkv, rope_table, n_heads + n_kv_heads, head_dim));
        push!(hadamard(qkv, head_dim));
        push!(kv_write(qkv, &cache));
        let fused = [None, Some(rope_table)].into_iter().filter(|_| !format.is_quantised());
        for rope_table in fused {
            decode.push(matmul(h, &matrix).rope_and_cache(qkv, rope_table, &cache));
        }
        let partials = Partials::declare(&mut w.buffers, n_heads, head_dim, can, &SIZES);
        push!(attention(qkv, &cache, scalars, partials, y));
        let seen = w.row(n_heads * CONTEXT);
        push!(attention_weights(qkv, &cache, scalars, n_heads, seen));
    }
    let mut logits = x;
    for vocab in [5 * VOCAB, VOCAB] {
        logits = w.buffers.activation("logits", Per::Output, vocab);
        let head = w.matrix(Format::Q8_0, vocab, WIDTH, None);
        push!(matmul(h, &head).to(logits));
        let candidates = Candidates::declare(&mut w.buffers, vocab);
        push!(adjust(logits));
        push!(sample(logits, candidates, ids));
    }
    let scores = w.buffers.activation("scores", Per::Target, 1);
    prefill.push(score(logits, scores));
    let [logits, scores] = [logits, scores].map(Some);
    let ports = Ports { logits, scores, ids: Some(ids), ..Ports::default() };
    Plans { buffers: w.buffers, sizes: SIZES, plans: vec![prefill, decode], ports }
}
