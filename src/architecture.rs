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
    /// Whether a learned vector a position is added to the token's (GPT); else layers tell positions apart.
    pub learned_positions: bool,
    pub norm: NormKind,
    pub norm_epsilon: f32,
    pub layers: Vec<Layer>,
    /// The ids that start and end a text, as config.json names them.
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

/// A layer: attention, then the MLP, each added to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub attention: Attention,
    pub mlp: Mlp,
    pub norm_order: NormOrder,
}

/// How a layer attends.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// The factor that q·k is multiplied by.
    pub scale: f32,
    /// How many positions a token attends to, including its own. `None`: all up to its own.
    pub window: Option<u32>,
    /// How q and k are rotated by their positions (Su et al. 2021, "RoFormer"). A layer without rotation and
    /// learned positions (Kazemnejad et al. 2023, "NoPE") tells positions apart by what it attends to alone.
    pub rope: Option<Rope>,
    /// Whether each head of q and of k is normalized, with weights of its own, before it is rotated (Henry et
    /// al. 2020, "Query-Key Normalization"; an RMS norm in Qwen3).
    pub qk_norm: bool,
}

impl Attention {
    /// All heads attend to all positions before them, without rotation, q·k scaled by 1/√head_dim (Vaswani et
    /// al. 2017).
    pub fn full(head_dim: u32) -> Self {
        Self { scale: 1.0 / (head_dim as f32).sqrt(), window: None, rope: None, qk_norm: false }
    }
}

/// A layer's MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    pub intermediate_size: u32,
    pub activation: Activation,
    /// Whether it is `down(activation(gate x) * up x)` (Shazeer 2020) rather than `down(activation(up x))`.
    pub gated: bool,
}

impl Architecture {
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

/// How each norm is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// (x − mean) / √(variance + ε) · weight + bias (Ba et al. 2016)
    Layer,
    /// x / √(mean of squares + ε) · weight (Zhang & Sennrich 2019)
    Rms,
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

/// Where the norms of a layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOrder {
    /// Before the attention and before the MLP (GPT-2 and later). A final norm precedes the output head.
    Before,
    /// After the residual sum of the attention and of the MLP (GPT-1). There is no final norm.
    After,
}

/// The parameters of rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
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
        let plain = Self { theta: self.theta, scaling: RopeScaling::None }.frequencies(head_dim).0;
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
