//! Whether a device computes right: every kernel, variant and storage format, each against its plain definition.
//!
//! A plan is only a list of passes, so that one can be written which holds each of them once; it runs pass by pass
//! on the device and by the definitions, and what each pass wrote is compared.

use crate::{
    architecture::{NormKind, Rope, RopeScaling},
    backend::{Backend, CpuBackend, Device},
    capabilities::Capabilities,
    engine,
    error::Result,
    kernels::{
        Activation, By, Cache, CachePart, Candidates, Kernel, Partials, RopeTable, adjust, attention,
        attention_weights, embed, head_norm, kv_write, matmul, norm, normed, rope, sample, score, splice,
    },
    model::Model,
    plan::{Buffers, Content, Per, Plan, Plans, Rows, Shape, Sizes, Use},
    sampling::{Dry, Mirostat, Penalties, Sampling, Xtc, divergence, greedy},
    simd::Math,
    step::{BLOCK, Pick, Row, Step},
    weights::{Format, Matrix, NormWeights, Order, Random, StoredRows, Tensor, Values, Vector},
};
use serde::Serialize;
use std::sync::Arc;

/// What came of one kernel in one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub kernel: &'static str,
    pub variant: String,
    /// The largest difference, in parts of the largest value, or of one where all are smaller.
    pub max_error: f64,
    pub tolerance: f64,
    pub ok: bool,
}

/// Sums are taken in another order than the definition's; nothing else may differ.
const TOLERANCE: f64 = 5e-5;
/// Nats: what rounding activations to eight bits may change of a prediction.
const FAST_TOLERANCE: f64 = 0.01;

const WIDTH: u32 = 512;
const WIDE: u32 = 2304;
const VOCAB: u32 = 391;
/// Beyond two splits of attention's context.
const CONTEXT: u32 = 544;
const SIZES: Sizes =
    Sizes { rows: [128, 8], outputs: 8, sequences: 2, context: CONTEXT, blocks: 2 * CONTEXT.div_ceil(BLOCK) };

/// Checks a device, and, where its programs have a form for devices without subgroups, that form too. `open` opens it.
pub fn verify(open: impl Fn() -> Result<Device>) -> Result<Vec<Check>> {
    let device = open()?;
    let (has_subgroups, has_fast_math) = (device.capabilities().subgroups, device.has_fast_math());
    let mut checks = verify_opened(device)?;
    if has_subgroups {
        let mut device = open()?;
        device.restrict(|can| can.subgroups = false);
        let more = verify_opened(device)?;
        checks.extend(more.into_iter().map(|c| Check { variant: c.variant + ", no subgroups", ..c }));
    }
    if has_fast_math {
        checks.push(fast_math(&open)?);
    }
    Ok(checks)
}

/// The built-in model in q8_0, by `--math fast` and in f32: how far its predictions are from each other.
fn fast_math(open: &impl Fn() -> Result<Device>) -> Result<Check> {
    let (mut model, tokenizer) = Model::built_in()?;
    model.quantize(Format::Q8_0);
    let tokens = tokenizer.encode("Once upon a time there was a little girl who had a red ball.", true)?;
    let devices = [open()?.with_math(Math::F32), open()?.with_math(Math::Fast)];
    let Agreement { kl, top } = agreement(&model, &tokens, devices)?;
    let variant =
        format!("decode, q8_0, mean KL of --math fast ({:.0} % of the top tokens equal)", 100.0 * top);
    Ok(Check { kernel: "model", variant, max_error: kl, tolerance: FAST_TOLERANCE, ok: kl <= FAST_TOLERANCE })
}

fn verify_opened(device: Device) -> Result<Vec<Check>> {
    let can = device.capabilities();
    let mut definition = CpuBackend::prepare(plans(&can), 1, Math::F32, &|_| ())?.plain();
    let mut tested = device.prepare(plans(&can), &|_| ())?;
    let mut checks: Vec<Check> = Vec::new();
    for (shape, step) in steps() {
        for pass in 0..definition.plans().of(shape).passes.len() {
            let check = compare(&mut definition, &mut *tested, shape, pass, &step)?;
            match checks.iter_mut().find(|c| (c.kernel, &c.variant) == (check.kernel, &check.variant)) {
                Some(known) => {
                    known.max_error = worse(known.max_error, check.max_error);
                    known.ok &= check.ok;
                }
                None => checks.push(check),
            }
        }
    }
    Ok(checks)
}

/// How near two ways of computing a model come to each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Agreement {
    /// The mean over tokens of Σ p ln(p / q), p by the first way, q by the second.
    pub kl: f64,
    /// The share of tokens after which both find the same one most probable.
    pub top: f64,
}

/// Feeds tokens to a model on two devices, one after the other as if each had been generated.
pub fn agreement(model: &Model, tokens: &[u32], devices: [Device; 2]) -> Result<Agreement> {
    let context = tokens.len() as u32;
    let blocks = context.div_ceil(BLOCK);
    let sizes = Sizes { rows: [1, 1], outputs: 1, sequences: 1, context, blocks };
    let mut backends = Vec::new();
    for device in devices {
        let plans = engine::plans(model, &device.capabilities(), sizes)?;
        backends.push(device.prepare(plans, &|_| ())?);
    }
    let (mut kl, mut same) = (0.0, 0);
    for (position, token) in (0..).zip(tokens) {
        let step = Step {
            rows: vec![Row { token: *token, position, sequence: 0 }],
            outputs: vec![0],
            tables: vec![(0..blocks).collect()],
            ..Step::default()
        };
        let mut found = Vec::new();
        for backend in &mut backends {
            backend.run(Shape::Decode, &step)?;
            found.push(backend.read(backend.plans().logits, 1)?);
        }
        same += u32::from(greedy(&found[0]) == greedy(&found[1]));
        kl += divergence(&found[0], &found[1]);
    }
    let n = tokens.len() as f64;
    Ok(Agreement { kl: kl / n, top: f64::from(same) / n })
}

/// Runs one pass on both and compares what it wrote.
pub fn compare(
    definition: &mut CpuBackend,
    tested: &mut dyn Backend,
    shape: Shape,
    pass: usize,
    step: &Step,
) -> Result<Check> {
    definition.run_passes(shape, pass..pass + 1, step)?;
    tested.run_passes(shape, pass..pass + 1, step)?;
    let mut max_error = 0.0f64;
    let kernel = &definition.plans().of(shape).passes[pass].kernel;
    let (name, note) = (kernel.name(), kernel.note());
    for written in written(definition.plans(), &**kernel, step) {
        match written {
            Written::Rows(rows, count) => {
                let (expected, got) = (definition.read(rows, count)?, tested.read(rows, count)?);
                let scale = expected.iter().fold(1.0f32, |top, v| top.max(v.abs()));
                for (got, expected) in got.iter().zip(&expected) {
                    max_error = worse(max_error, f64::from((got - expected).abs() / scale));
                }
            }
            Written::Picked => {
                for (got, expected) in tested.picked()?.into_iter().zip(definition.picked()?) {
                    let error =
                        if got.id == expected.id { got.probability - expected.probability } else { 1.0 };
                    max_error = worse(max_error, f64::from(error.abs()));
                }
            }
        }
    }
    let shape = format!("{shape:?}").to_lowercase();
    let variant = if note.is_empty() { shape } else { format!("{shape}, {note}") };
    // A comparison that NaN fails, too.
    Ok(Check { kernel: name, variant, max_error, tolerance: TOLERANCE, ok: max_error <= TOLERANCE })
}

/// The larger error; NaN is the largest, and what f64::max would forget.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

enum Written {
    Rows(Rows, usize),
    Picked,
}

/// What a pass writes.
fn written(plans: &Plans, kernel: &dyn Kernel, step: &Step) -> Vec<Written> {
    let load = step.load();
    let one = |u: Use| {
        let Use::Write(buffer) = u else { return None };
        Some(match *plans.buffers.content(buffer) {
            Content::Activation { per, stride } => {
                Written::Rows(Rows { buffer, width: stride, per }, per.count(&load) as usize)
            }
            Content::Cache { stride } => {
                let slots = plans.buffers.bytes(buffer, &plans.sizes) / 4 / u64::from(stride);
                Written::Rows(Rows { buffer, width: stride * slots as u32, per: Per::Row }, 1)
            }
            Content::Ids => Written::Picked,
            // Loaded, or nobody's business but the pass's own.
            Content::Loaded(_) | Content::Partials { .. } => return None,
        })
    };
    kernel.uses().into_iter().filter_map(one).collect()
}

/// Prompts of two sequences, the one with gaps, past two splits of the context; then a token of each; then more rows than
/// a decode takes at once; then one of one, whose id the device sampled.
fn steps() -> Vec<(Shape, Step)> {
    // The first's blocks from the last on, the second's from the first on.
    let blocks = CONTEXT.div_ceil(BLOCK);
    let tables = vec![(blocks..2 * blocks).rev().collect(), (0..blocks).collect::<Vec<_>>()];
    // Tokens are drawn through all filters and through each, also where those reach beyond what is likely.
    let plain = Sampling { temperature: 0.9, seed: 7, ..Sampling::GREEDY };
    let drawn = Sampling {
        top_k: 50,
        top_p: 0.9,
        min_p: 0.01,
        penalties: Penalties { repetition: 1.3, frequency: 0.1, presence: -0.2, last: 90 },
        dry: Dry { multiplier: 0.8, ..Dry::NONE },
        biases: vec![(3, 1.5), (VOCAB - 1, f32::NEG_INFINITY)],
        ..plain.clone()
    };
    let seen: Vec<u32> = (0..100).map(|i| i * i % VOCAB).collect();
    let flat = Sampling { temperature: 50.0, ..plain.clone() };
    let sharp = Sampling { temperature: 0.02, ..plain.clone() };
    let typical = |typical_p, of: &Sampling| Sampling { typical_p, ..of.clone() };
    let without_top =
        |threshold, of: &Sampling| Sampling { xtc: Xtc { probability: 1.0, threshold }, ..of.clone() };
    let mirostat =
        |target, of: &Sampling| Sampling { mirostat: Some(Mirostat { target, rate: 0.1 }), ..of.clone() };
    let row = |sequence: u32, position: u32| Row {
        token: (position * 37 + sequence * 11) % VOCAB,
        position,
        sequence,
    };
    let pick = |of: &Sampling, seen: &[u32]| Pick {
        draw: of.draw(of.mirostat.map_or(0.0, |mirostat| mirostat.first())),
        penalties: of.penalties,
        adjusted: of.adjusted(seen),
    };
    let step = |rows: Vec<Row>, outputs: &[u32], sampling: [Sampling; 2]| Step {
        rows,
        outputs: outputs.to_vec(),
        targets: outputs.iter().map(|output| output * 17 % VOCAB).collect(),
        tables: tables.clone(),
        picks: sampling.iter().map(|of| pick(of, &seen)).collect(),
        ..Step::default()
    };
    let two = || vec![row(1, 7), row(0, 520)];
    let prompt = (0..20).chain(250..262).chain(505..510).map(|p| row(0, p)).chain((0..7).map(|p| row(1, p)));
    let many = (8..14).map(|p| row(1, p)).chain([row(0, 521)]);
    let mut steps =
        vec![(Shape::Prefill, step(prompt.collect(), &[3, 36, 43], [drawn.clone(), Sampling::GREEDY]))];
    for pair in [
        [Sampling { top_p: 0.8, ..flat.clone() }, Sampling { top_k: 300, ..flat.clone() }],
        [Sampling { top_p: 0.999, ..sharp.clone() }, Sampling { top_k: 2, ..sharp.clone() }],
        [Sampling { top_k: 300, ..sharp.clone() }, Sampling { min_p: 0.2, ..plain.clone() }],
        [
            Sampling { top_p: 0.999, min_p: 0.5, ..plain.clone() },
            Sampling { top_k: 60, min_p: 0.3, ..drawn.clone() },
        ],
        [typical(0.3, &plain), typical(0.9, &flat)],
        [typical(0.5, &sharp), typical(0.7, &Sampling { top_k: 40, top_p: 0.9, ..plain.clone() })],
        [without_top(0.001, &flat), without_top(0.05, &plain)],
        [
            without_top(0.0, &sharp),
            without_top(0.02, &typical(0.6, &Sampling { top_p: 0.95, ..plain.clone() })),
        ],
        [mirostat(2.0, &flat), mirostat(1.0, &plain)],
        [mirostat(20.0, &flat), mirostat(5.0, &sharp)],
    ] {
        steps.push((Shape::Decode, step(two(), &[0, 1], pair)));
    }
    steps.push((Shape::Decode, step(many.collect(), &[0, 2, 3, 5, 6], [plain.clone(), drawn.clone()])));
    // More rows than a tile has.
    let mut image: Vec<Row> = (0..101).map(|position| row(0, position)).collect();
    image[3].token = crate::step::FEATURE;
    steps.push((Shape::Prefill, Step { whole: true, ..step(image, &[100], [plain.clone(), drawn.clone()]) }));
    let sampled = vec![Row { token: crate::step::SAMPLED, ..row(1, 14) }];
    steps.push((Shape::Decode, step(sampled, &[0], [plain, drawn])));
    steps
}

/// The buffers and passes of a plan that holds each kernel once in every variant.
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
    /// A buffer of one vector. The first values of a layer's say the scale and the window of its attention.
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

/// Plans that hold every kernel once in every variant and storage format, for a device that can do so much.
pub fn plans(can: &Capabilities) -> Plans {
    let mut w = Writer { can, buffers: Buffers::default(), random: Random(1) };
    let ids = w.buffers.declare("ids", Content::Ids);
    let [mut prefill, mut decode] = Shape::ALL.map(Plan::new);
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
        // Folded into the matmul that reads it, where rows are few.
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
    // Wide enough for a decode's threads to take whole blocks.
    let wide = w.row(WIDE);
    let widening = w.matrix(Format::F16, WIDE, WIDTH, None);
    decode.push(matmul(h, &widening).to(wide));
    for format in Format::ALL {
        let matrix = w.matrix(format, 41, WIDE, None);
        let y = w.row(41);
        decode.push(matmul(wide, &matrix).to(y));
    }
    // Where rows end within what a shader reads at a time.
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
    }
    for (n_heads, n_kv_heads, head_dim, window) in
        [(4, 4, 64, 0.0), (6, 2, 48, 0.0), (4, 1, 128, 20.0), (2, 1, 256, 0.0)]
    {
        let (q, kv) = (n_heads * head_dim, n_kv_heads * head_dim);
        let matrix = w.matrix(Format::F16, q + 2 * kv, WIDTH, None);
        let (qkv, y) = (w.row(q + 2 * kv), w.row(q));
        let table = RopeTable::new(&Rope { theta: 10_000.0, scaling: RopeScaling::None }, head_dim, CONTEXT);
        let turns = w.buffers.declare("turns", Content::Loaded(Arc::new(table)));
        let stride = 2 * kv;
        let buffer = w.buffers.declare("cache", Content::Cache { stride });
        let cache = Cache { parts: vec![CachePart { buffer, heads: 0..n_kv_heads }], n_kv_heads, head_dim };
        let scalars =
            Vector { at: 0, len: 2, ..w.vector(vec![1.0 / (head_dim as f32).sqrt(), window, 0.0, 0.0], 4) };
        push!(matmul(h, &matrix).to(qkv));
        let both = w.vector(Vec::new(), 2 * head_dim);
        let of_heads = [0, head_dim].map(|at| {
            let weight = Vector { at, len: head_dim, ..both };
            NormWeights { weight, bias: None, kind: NormKind::Rms, epsilon: 1e-5 }
        });
        push!(head_norm(qkv, &of_heads, n_heads, n_kv_heads));
        push!(rope(qkv, turns, n_heads + n_kv_heads, head_dim));
        push!(kv_write(qkv, &cache));
        for turns in [None, Some(turns)] {
            decode.push(matmul(h, &matrix).cached(qkv, turns, &cache));
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
    let (attention_weights, features) = (None, None);
    Plans {
        buffers: w.buffers,
        sizes: SIZES,
        prefill,
        decode,
        logits,
        scores,
        ids,
        attention_weights,
        features,
    }
}

#[cfg(test)]
mod tests {
    use super::worse;

    #[test]
    fn an_error_that_is_no_number_is_not_forgotten() {
        let all = |errors: &[f64]| errors.iter().fold(0.0, |a, b| worse(a, *b));
        assert!(all(&[0.1, f64::NAN, 0.2]).is_nan());
        assert_eq!(all(&[0.1, 0.3, 0.2]), 0.3);
    }
}
