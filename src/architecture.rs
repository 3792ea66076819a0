//! Architectures: everything that differs between decoder-only transformers, as data.
//!
//! families/ reads an architecture from a checkpoint's config.json, and decoder.rs writes the plan from it.

/// The shape of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The family's `model_type` in config.json.
    pub family: &'static str,
    pub vocab_size: u32,
    /// The longest context that the model was made for.
    pub max_positions: u32,
    pub hidden_size: u32,
    pub n_heads: u32,
    pub n_kv_heads: u32,
    pub head_dim: u32,
    pub embedding: Embedding,
    pub layers: Vec<Layer>,
    /// The norm before the output head.
    pub final_norm: Option<Norm>,
    pub logits: Logits,
    /// The ids that start a text, as config.json names them.
    pub bos: Vec<u32>,
    /// The ids that end a text, as config.json names them.
    pub eos: Vec<u32>,
    /// The vision encoder, if the model takes images.
    pub vision: Option<Box<Vision>>,
}

/// A vision encoder (Liu et al. 2023, "Visual Instruction Tuning"). It cuts an image into patches, which run
/// through a tower of layers in which each patch attends to all patches. The result, projected to the model's
/// hidden size, takes the place of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Vision {
    /// The tower (Radford et al. 2021, "CLIP"). Its first position is the class token, then there is one for
    /// each patch, row by row.
    pub tower: Architecture,
    /// The side of an image in pixels.
    pub image_size: u32,
    /// The side of a patch in pixels.
    pub patch_size: u32,
    /// How many of the tower's layers run.
    pub layers_run: usize,
    /// Whether the output of the class token takes the place of a token, too.
    pub keeps_class: bool,
    /// The activation between the two matrices that project from the tower's hidden size to the model's.
    pub activation: Activation,
    /// The id of the image token, which an image's features take the place of.
    pub token: u32,
}

impl Vision {
    /// The number of tokens that an image takes the place of.
    pub fn tokens(&self) -> usize {
        self.tower.max_positions as usize - usize::from(!self.keeps_class)
    }

    /// The number of values in a patch: three colours per pixel.
    pub fn patch_values(&self) -> u32 {
        3 * self.patch_size * self.patch_size
    }
}

/// What the first layer reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The factor that a token's vector is multiplied by (√hidden_size in Gemma).
    pub scale: f32,
    /// Whether positions have learned vectors, which are added to the tokens' (GPT); else layers tell
    /// positions apart.
    pub positions: Option<LearnedPositions>,
    /// The norm of the sum (BLOOM).
    pub norm: Option<Norm>,
}

/// A learned vector for each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedPositions {
    /// The row of the first position (2 in OPT).
    pub first: u32,
}

impl Embedding {
    /// The tokens' vectors.
    pub const TOKENS: Self = Self { scale: 1.0, positions: None, norm: None };
    /// The tokens' vectors and those of their positions.
    pub const WITH_POSITIONS: Self = Self { positions: Some(LearnedPositions { first: 0 }), ..Self::TOKENS };
}

/// How the output head's products become logits: they are scaled, then capped.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    pub scale: f32,
    /// c in c · tanh(logit / c), which keeps them between -c and c (Gemma 2).
    pub soft_cap: Option<f32>,
}

impl Logits {
    /// The products as they are.
    pub const PLAIN: Self = Self { scale: 1.0, soft_cap: None };
}

/// A layer: attention and an MLP, each of which adds to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub attention: Attention,
    pub mlp: Mlp,
    /// The factor that the outputs of attention and MLP are multiplied by before they are added (Granite).
    pub residual_scale: f32,
    /// Whether the MLP reads what the attention reads, rather than the sum after it (Wang & Komatsuzaki 2021,
    /// "GPT-J").
    pub parallel: bool,
}

impl Layer {
    /// Attention, then the MLP.
    pub fn new(attention: Attention, mlp: Mlp) -> Self {
        Self { attention, mlp, residual_scale: 1.0, parallel: false }
    }
}

/// The norms around one half of a layer (attention or MLP). T is a [`Norm`], the tensors of its weights, or
/// the loaded weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms<T> {
    /// Of what the half reads (GPT-2 and later). The residual stream itself stays as it is.
    pub before: Option<T>,
    /// Of the half's output, before it is added to the residual stream (OLMo 2, Gemma 2).
    pub of_output: Option<T>,
    /// Of the residual stream after the sum (GPT-1).
    pub of_sum: Option<T>,
}

impl<T> Norms<T> {
    const NONE: Self = Self { before: None, of_output: None, of_sum: None };

    pub fn before(norm: T) -> Self {
        Self { before: Some(norm), ..Self::NONE }
    }
    pub fn of_sum(norm: T) -> Self {
        Self { of_sum: Some(norm), ..Self::NONE }
    }
    /// All that there are.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.before.iter().chain(&self.of_output).chain(&self.of_sum)
    }
    /// Applies `change` to each norm and its counterpart in `other`. A norm without counterpart is left out.
    pub fn zip<O, U>(&self, other: &Norms<O>, mut change: impl FnMut(&T, &O) -> U) -> Norms<U> {
        let mut both = |a: &Option<T>, b: &Option<O>| a.as_ref().zip(b.as_ref()).map(|(a, b)| change(a, b));
        Norms {
            before: both(&self.before, &other.before),
            of_output: both(&self.of_output, &other.of_output),
            of_sum: both(&self.of_sum, &other.of_sum),
        }
    }
}

/// How a layer attends.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub norms: Norms<Norm>,
    /// The factor that q·k is multiplied by.
    pub scale: f32,
    /// c in c · tanh(score / c), which keeps the scores between -c and c (Gemma 2).
    pub soft_cap: Option<f32>,
    pub span: Span,
    /// How q and k are rotated by their positions (Su et al. 2021, "RoFormer"). A layer without rotation and
    /// learned positions (Kazemnejad et al. 2023, "NoPE") tells positions apart by what it attends to alone.
    pub rope: Option<Rope>,
    /// How q and k are normalized (Henry et al. 2020, "Query-Key Normalization").
    pub qk_norm: Option<QkNorm>,
    /// Whether scores fall with the distance, by a slope a head (Press et al. 2022, "ALiBi").
    pub alibi: bool,
    /// Whether each head has a learned score that joins the softmax's denominator alone (gpt-oss).
    pub sinks: bool,
    /// Whether the output is multiplied by sigmoid(gate(x)) before its projection (Qwen3.5).
    pub output_gate: bool,
    pub temperature: Option<Temperature>,
}

impl Attention {
    /// All heads attend to all positions before them, without rotation, q·k scaled by 1/√head_dim (Vaswani et
    /// al. 2017).
    pub fn full(head_dim: u32, norms: Norms<Norm>) -> Self {
        Self {
            norms,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            span: Span::Full,
            rope: None,
            qk_norm: None,
            alibi: false,
            sinks: false,
            output_gate: false,
            temperature: None,
        }
    }
}

/// Which positions a token attends to, up to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Full,
    /// The last so many, its own included (Beltagy et al. 2020, "Longformer").
    Sliding(u32),
    /// Those of its own chunk, if the text is cut into chunks of so many (LLaMA 4).
    Chunked(u32),
}

impl Span {
    /// A window of so many positions; None: all.
    pub fn window(window: Option<u32>) -> Self {
        window.map_or(Self::Full, Self::Sliding)
    }
}

/// How q and k are normalized.
#[derive(Clone, Debug, PartialEq)]
pub struct QkNorm {
    pub norm: Norm,
    /// Whether a norm is over all heads together (OLMo 2), rather than over each (Qwen3).
    pub joins_heads: bool,
    /// Whether it comes after the rotation (LLaMA 4), rather than before it.
    pub after_rope: bool,
}

impl QkNorm {
    /// A norm of each head before the rotation, like the norm before this attention (Qwen3).
    pub fn of_heads(attention: &Attention) -> Option<Self> {
        let norm = attention.norms.before?;
        Some(Self { norm, joins_heads: false, after_rope: false })
    }
}

/// A factor of q that grows with its position p: 1 + scale · ln(1 + ⌊(p + offset) / interval⌋) (LLaMA 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    pub scale: f32,
    pub interval: u32,
    pub offset: u32,
}

/// A layer's MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    pub norms: Norms<Norm>,
    pub intermediate_size: u32,
    pub activation: Activation,
    /// Whether it is `down(activation(gate x) * up x)` (Shazeer 2020) rather than `down(activation(up x))`.
    pub gated: bool,
    /// Some: there are many such MLPs, of which each token takes a few.
    pub experts: Option<Experts>,
}

/// A mixture of experts (Shazeer et al. 2017): MLPs, of which a router chooses a few for each token. Their
/// outputs are added, weighed by the router.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    pub count: u32,
    /// How many a token takes.
    pub chosen: u32,
    pub weighing: Weighing,
    /// An expert that every token takes.
    pub shared: Option<SharedExpert>,
}

/// How a router's logits become the experts' weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighing {
    /// Their softmax over all experts. If `renormalized`, divided by the sum of the chosen weights (Qwen3).
    Softmax { renormalized: bool },
    /// Their softmax over the chosen experts (gpt-oss).
    SoftmaxOfChosen,
    /// The sigmoid of each, which multiplies what the expert reads (LLaMA 4).
    SigmoidOfInput,
}

/// An expert that every token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    pub intermediate_size: u32,
    /// Whether its output is multiplied by sigmoid(gate(x)) (Qwen2-MoE).
    pub gated: bool,
}

impl Architecture {
    /// All norms that work on the residual stream.
    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        let of_layers = self.layers.iter().flat_map(|l| l.attention.norms.all().chain(l.mlp.norms.all()));
        self.embedding.norm.iter().chain(of_layers).chain(&self.final_norm)
    }

    /// The rotary positions of its layers, each kind once.
    pub fn ropes(&self) -> Vec<&Rope> {
        let mut ropes: Vec<&Rope> = Vec::new();
        for rope in self.layers.iter().filter_map(|layer| layer.attention.rope.as_ref()) {
            if !ropes.contains(&rope) {
                ropes.push(rope);
            }
        }
        ropes
    }

    /// The widest of its MLPs.
    pub fn intermediate_size(&self) -> u32 {
        self.layers.iter().map(|layer| layer.mlp.intermediate_size).max().unwrap_or(0)
    }
}

/// A norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    pub kind: NormKind,
    pub epsilon: f32,
    pub weight: NormWeight,
}

impl Norm {
    /// A norm that is multiplied by its weights.
    pub fn new(kind: NormKind, epsilon: f32) -> Self {
        Self { kind, epsilon, weight: NormWeight::Plain }
    }
}

/// How a norm is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// (x − mean) / √(variance + ε) · weight + bias (Ba et al. 2016)
    Layer,
    /// x / √(mean of squares + ε) · weight (Zhang & Sennrich 2019)
    Rms,
}

/// What a norm is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormWeight {
    /// Nothing (nanochat).
    None,
    Plain,
    /// 1 + weight (Gemma).
    OnePlus,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Silu,
    Tanh,
    /// v Φ(v), with Φ from the error function.
    Gelu,
    /// The tanh approximation of GELU (Hendrycks & Gimpel 2016).
    GeluTanh,
    /// The sigmoid approximation of GELU, v · sigmoid(1.702 v).
    QuickGelu,
}

impl Activation {
    pub const ALL: [Self; 7] =
        [Self::None, Self::Relu, Self::Silu, Self::Tanh, Self::Gelu, Self::GeluTanh, Self::QuickGelu];

    /// The names of activation functions in config.json files, as transformers interprets them.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("gelu", Self::Gelu),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("quick_gelu", Self::QuickGelu),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
    ];
}

/// The parameters of rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
    /// How many of a head's values are rotated, the first ones; None: all (Black et al. 2022, "GPT-NeoX", a
    /// quarter of them). Which two make a pair is a matter of the order of the tensors' rows
    /// ([`crate::weights::Order`]).
    pub dims: Option<u32>,
}

/// How rotary frequencies are scaled for contexts longer than those of the training. The fields are named
/// after those in config.json.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every frequency is divided by `factor` (Chen et al. 2023, "position interpolation").
    Linear {
        factor: f64,
    },
    /// Every frequency is divided by a factor of its own (GGUF's `rope_freqs.weight`).
    Factors(Vec<f32>),
    /// Low frequencies are divided by `factor`, high ones are kept, and those between are interpolated (LLaMA
    /// 3.1's reference code).
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original: f64,
    },
    /// High frequencies are kept and low ones divided by `factor`, with a linear ramp between the pairs that
    /// make `beta_fast` and `beta_slow` turns over the original context. The rotated vectors are scaled by
    /// `attention_factor` (Peng et al. 2023, "YaRN").
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original: f64,
        attention_factor: f64,
        truncate: bool,
    },
}

impl Rope {
    /// What the scaling divides the frequency of each pair by, `[head_dim / 2]`.
    pub fn stretches(&self, head_dim: u32) -> Vec<f32> {
        let plain = Self { scaling: RopeScaling::None, ..self.clone() }.frequencies(head_dim).0;
        plain.iter().zip(self.frequencies(head_dim).0).map(|(plain, stretched)| plain / stretched).collect()
    }

    /// The frequencies, `[head_dim / 2]`, which are the angle in radians per position by which each pair of a
    /// head is rotated, and the factor by which the rotated pairs are scaled. Computed in f32 and in
    /// transformers' order of operations, because the last bit of a frequency matters at thousands of
    /// positions.
    pub fn frequencies(&self, head_dim: u32) -> (Vec<f32>, f64) {
        let dim = f64::from(head_dim);
        // theta^(2i/head_dim), with the exponent rounded to f32, and the result, too.
        let periods = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            self.theta.powf(f64::from(exponent)) as f32
        });
        let plain = periods.clone().map(|period| 1.0 / period);
        match &self.scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Linear { factor } => (plain.map(|f| f / *factor as f32).collect(), 1.0),
            RopeScaling::Factors(factors) => (plain.zip(factors).map(|(f, by)| f / by).collect(), 1.0),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let (longest, shortest) =
                    ((original / low_freq_factor) as f32, (original / high_freq_factor) as f32);
                let stretch = |f: f32| {
                    let wavelength = std::f32::consts::TAU / f;
                    let smooth = (original as f32 / wavelength - low_freq_factor as f32)
                        / (high_freq_factor - low_freq_factor) as f32;
                    if wavelength > longest {
                        f / factor as f32
                    } else if wavelength < shortest {
                        f
                    } else {
                        (1.0 - smooth) * (f / factor as f32) + smooth * f
                    }
                };
                (plain.map(stretch).collect(), 1.0)
            }
            &RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor, truncate } => {
                // The index of the pair that makes `turns` turns over the original context (not a whole
                // number).
                let pair = |turns: f64| {
                    dim * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stretch = |(i, period): (usize, f32)| {
                    let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    1.0 / (factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
                };
                (periods.enumerate().map(stretch).collect(), attention_factor)
            }
        }
    }
}
