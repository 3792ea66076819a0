//! LLaMA (Touvron et al. 2023) and models built like it, `llama`; Mistral (Jiang et al. 2023), `mistral`: RMS
//! norm, rotary positions, grouped-query attention, a gated MLP. Other families are read as variants of LLaMA
//! (`Kin`).

use super::{fields, norm};
use crate::{
    architecture::{
        Architecture, Attention, Embedding, Layer, Logits, Mlp, Norm, NormKind, Norms, Rope, RopeScaling,
        Span,
    },
    config::Config,
    error::Result,
    weights::{AttentionTensors, LayerTensors, MlpTensors, ModelTensors, Order, TensorSpec},
};

/// The prefix of all tensor names except the head's.
const PREFIX: &str = "model.";

/// How a family built like LLaMA differs from it, and its defaults for fields that config.json lacks.
pub(super) struct Kin {
    /// The family's `model_type`.
    pub family: &'static str,
    pub intermediate_size: u32,
    pub n_layers: u32,
    /// None: as many as query heads.
    pub n_kv_heads: Option<u32>,
    /// None: `hidden_size / n_heads`.
    pub head_dim: Option<u32>,
    pub max_positions: u32,
    pub theta: f64,
    pub tied: bool,
    pub biases: Biases,
    pub prefix: &'static str,
}

/// Which matrices have a bias.
#[derive(Clone, Copy)]
pub(super) struct Biases {
    pub qkv: bool,
    pub out: bool,
    pub mlp: bool,
}

impl Biases {
    pub const NONE: Self = Self { qkv: false, out: false, mlp: false };

    /// Reads `attention_bias`. Not every family has this field.
    pub fn of_attention(config: &Config) -> Result<Self> {
        let attention = config.bool("attention_bias", false)?;
        Ok(Self { qkv: attention, out: attention, mlp: false })
    }
    /// Reads `attention_bias` and `mlp_bias`.
    pub fn read(config: &Config) -> Result<Self> {
        Ok(Self { mlp: config.bool("mlp_bias", false)?, ..Self::of_attention(config)? })
    }
}

impl Kin {
    pub const LLAMA: Self = Self {
        family: "llama",
        intermediate_size: 11008,
        n_layers: 32,
        n_kv_heads: None,
        head_dim: None,
        max_positions: 2048,
        theta: 10_000.0,
        tied: false,
        biases: Biases::NONE,
        prefix: PREFIX,
    };

    pub fn layers(&self, config: &Config) -> Result<usize> {
        Ok(config.layers(&["num_hidden_layers"], self.n_layers)? as usize)
    }
}

pub fn llama(config: &Config) -> Result<(Architecture, ModelTensors)> {
    llama_named(config, PREFIX)
}

/// LLaMA with another prefix of tensor names, as part of a larger model.
pub fn llama_named(config: &Config, prefix: &'static str) -> Result<(Architecture, ModelTensors)> {
    read(config, Kin { biases: Biases::read(config)?, prefix, ..Kin::LLAMA }, |_, full| full)
}

pub fn mistral(config: &Config) -> Result<(Architecture, ModelTensors)> {
    mistral_named(config, PREFIX)
}

/// Mistral with another prefix of tensor names.
pub fn mistral_named(config: &Config, prefix: &'static str) -> Result<(Architecture, ModelTensors)> {
    let absent = !config.has("sliding_window");
    let window = if absent { Some(4096) } else { config.count("sliding_window", u32::MAX)? };
    let kin = Kin {
        family: "mistral",
        intermediate_size: 14336,
        n_kv_heads: Some(8),
        max_positions: 131_072,
        prefix,
        ..Kin::LLAMA
    };
    read(config, kin, |_, full| Attention { span: Span::window(window), ..full })
}

/// Reads a model built like LLaMA. `attention` takes a layer's number and full attention, and returns that
/// layer's attention.
pub(super) fn read(
    config: &Config,
    kin: Kin,
    attention: impl Fn(usize, Attention) -> Attention,
) -> Result<(Architecture, ModelTensors)> {
    let hidden_size = config.size("hidden_size", 4096)?;
    let intermediate_size = config.size("intermediate_size", kin.intermediate_size)?;
    let n_layers = kin.layers(config)?;
    let n_heads = config.size("num_attention_heads", 32)?;
    // A null means as many KV heads as query heads, whatever the family's default is.
    let usual = kin.n_kv_heads.filter(|_| !config.has("num_key_value_heads"));
    let n_kv_heads = config.size("num_key_value_heads", usual.unwrap_or(n_heads))?;
    let head_dim = match config.count("head_dim", 1 << 16)?.or(kin.head_dim) {
        Some(own) => own,
        None => config.head_dim("num_attention_heads", n_heads, hidden_size)?,
    };
    if u64::from(n_heads) * u64::from(head_dim) > 1 << 24 {
        return Err(config.wrong("head_dim", format!("{n_heads} heads of it are more than any model has")));
    }
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(config.wrong("num_key_value_heads", format!("it must divide the {n_heads} heads")));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(config.wrong("head_dim", format!("rotary positions need an even one, not {head_dim}")));
    }
    let vocab_size = config.size("vocab_size", 32000)?;
    let max_positions = config.size("max_position_embeddings", kin.max_positions)?;
    let tied = config.bool("tie_word_embeddings", kin.tied)?;
    let rope = Some(rope(config, kin.theta, max_positions)?);
    let by = Norm::new(NormKind::Rms, config.epsilon("rms_norm_eps", 1e-6)?);
    let full = Attention { rope, ..Attention::full(head_dim, Norms::before(by)) };
    let activation = config.activation("hidden_act", "silu")?;
    let layers: Vec<_> = (0..n_layers)
        .map(|number| {
            let norms = Norms::before(by);
            let mlp = Mlp { norms, intermediate_size, activation, gated: true, experts: None };
            Layer::new(attention(number, full.clone()), mlp)
        })
        .collect();
    let architecture = Architecture {
        family: kin.family,
        vocab_size,
        max_positions,
        hidden_size,
        n_heads,
        n_kv_heads,
        head_dim,
        embedding: Embedding::TOKENS,
        layers: layers.clone(),
        final_norm: Some(by),
        logits: Logits::PLAIN,
        bos: config.ids("bos_token_id"),
        eos: config.ids("eos_token_id"),
        vision: None,
    };
    let (q, kv) = (n_heads * head_dim, n_kv_heads * head_dim);
    let Kin { prefix, biases, .. } = kin;
    let layer = |(number, layer): (usize, &Layer)| {
        let at = |name: &str| format!("{prefix}layers.{number}.{name}");
        let weight =
            |name: &str, rows, columns| TensorSpec::matrix(at(&format!("{name}.weight")), rows, columns);
        let bias =
            |on: bool, name: &str, len| on.then(|| TensorSpec::vector(at(&format!("{name}.bias")), len));
        let turned = |spec: TensorSpec| spec.order(Order::RopePairs(head_dim));
        let qkv_bias = [
            bias(biases.qkv, "self_attn.q_proj", q).map(turned),
            bias(biases.qkv, "self_attn.k_proj", kv).map(turned),
            bias(biases.qkv, "self_attn.v_proj", kv),
        ];
        let up_bias = ["mlp.gate_proj", "mlp.up_proj"].map(|n| bias(biases.mlp, n, intermediate_size));
        LayerTensors {
            attention: AttentionTensors {
                norms: Norms::before(norm(at("input_layernorm"), hidden_size, false)),
                qkv: vec![
                    turned(weight("self_attn.q_proj", q, hidden_size)),
                    turned(weight("self_attn.k_proj", kv, hidden_size)),
                    weight("self_attn.v_proj", kv, hidden_size),
                ],
                qkv_bias: qkv_bias.into_iter().flatten().collect(),
                qk_norm: layer.attention.qk_norm.as_ref().map(|_| {
                    ["self_attn.q_norm", "self_attn.k_norm"]
                        .map(|name| turned(TensorSpec::vector(at(&format!("{name}.weight")), head_dim)))
                }),
                out: weight("self_attn.o_proj", hidden_size, q),
                out_bias: bias(biases.out, "self_attn.o_proj", hidden_size),
            },
            mlp: MlpTensors {
                norms: Norms::before(norm(at("post_attention_layernorm"), hidden_size, false)),
                up: ["mlp.gate_proj", "mlp.up_proj"]
                    .map(|n| weight(n, intermediate_size, hidden_size))
                    .to_vec(),
                up_bias: up_bias.into_iter().flatten().collect(),
                down: weight("mlp.down_proj", hidden_size, intermediate_size),
                down_bias: bias(biases.mlp, "mlp.down_proj", hidden_size),
            },
        }
    };
    let tensors = ModelTensors {
        spellings: &[(PREFIX, "")],
        tokens: TensorSpec::matrix(format!("{prefix}embed_tokens.weight"), vocab_size, hidden_size),
        positions: None,
        layers: layers.iter().enumerate().map(layer).collect(),
        final_norm: Some(norm(format!("{prefix}norm"), hidden_size, false)),
        head: (!tied).then(|| TensorSpec::matrix("lm_head.weight", vocab_size, hidden_size)),
        ignored: vec!["lm_head.weight".to_owned()],
        vision: None,
    };
    Ok((architecture, tensors))
}

/// Reads `rope_scaling` with `rope_theta`, or the newer `rope_parameters`, which holds both. The kind of
/// scaling is in `rope_type` or `type`. Where several fields are present, precedence follows transformers.
fn rope(config: &Config, theta: f64, max_positions: u32) -> Result<Rope> {
    config.know(&["rope_parameters", "original_max_position_embeddings"]);
    let theta = config.positive_or("rope_theta", theta)?;
    let is_filled =
        |field: &&str| config.get(field).is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty()));
    let Some(field) = ["rope_scaling", "rope_parameters"].into_iter().find(is_filled) else {
        return Ok(Rope { theta, scaling: RopeScaling::None, dims: None });
    };
    let name = format!("{}'s {field}", config.name());
    let rope = Config::new(&name, config.get(field).expect("it was found"))?;
    let theta = if rope.has("rope_theta") { rope.positive("rope_theta")? } else { theta };
    for config in [config, &rope] {
        if config.f64("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(config.wrong("partial_rotary_factor", "only whole heads are turned here: 1.0"));
        }
    }
    let kind_field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    let original = || match config.get("original_max_position_embeddings") {
        Some(_) => config.positive("original_max_position_embeddings"),
        None if rope.get("original_max_position_embeddings").is_some() => {
            rope.positive("original_max_position_embeddings")
        }
        None => Ok(f64::from(max_positions)),
    };
    let scaling = match rope.str(kind_field)?.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: rope.positive("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: rope.positive("factor")?,
            low_freq_factor: rope.positive("low_freq_factor")?,
            high_freq_factor: rope.positive("high_freq_factor")?,
            original: original()?,
        },
        "yarn" => yarn(&rope, max_positions, original()?)?,
        _ => return Err(rope.wrong(kind_field, "the scalings there are: default, linear, llama3, yarn")),
    };
    // Fields of other scalings change nothing.
    rope.know(&SCALING_FIELDS);
    fields::judge(&rope, "rotary")?;
    Ok(Rope { theta, scaling, dims: None })
}

/// The fields of all scalings that are known.
const SCALING_FIELDS: [&str; 14] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
];

fn yarn(rope: &Config, max_positions: u32, original: f64) -> Result<RopeScaling> {
    let factor = match rope.get("factor") {
        None if rope.has("factor") => f64::from(max_positions) / original,
        _ => rope.positive("factor")?,
    };
    let magnitude = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let (some, all) = (rope.f64("mscale", 0.0)?, rope.f64("mscale_all_dim", 0.0)?);
    let derived = if some != 0.0 && all != 0.0 { magnitude(some) / magnitude(all) } else { magnitude(1.0) };
    // transformers treats a zero as absent.
    let beta = |field: &str, default: f64| match rope.f64(field, 0.0)? {
        0.0 => Ok(default),
        _ => rope.positive(field),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: beta("beta_fast", 32.0)?,
        beta_slow: beta("beta_slow", 1.0)?,
        original,
        attention_factor: rope.positive_or("attention_factor", derived)?,
        truncate: rope.bool("truncate", true)?,
    })
}
