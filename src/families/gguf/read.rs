//! GGUF metadata → an architecture and its tensors.

use super::keys;
use crate::{
    architecture::{
        Activation, Architecture, Attention, Embedding, Layer, Logits, Mlp, Norm, NormKind, Norms, QkNorm,
        Rope, RopeScaling,
    },
    error::{Error, Result},
    families::norm,
    tokenizer::{gguf_ends, gguf_role},
    weights::{AttentionTensors, Gguf, LayerTensors, MlpTensors, ModelTensors, Order, TensorSpec},
};
use std::{cell::RefCell, collections::BTreeSet};

pub(super) type Family = fn(&Fields) -> Result<(Architecture, ModelTensors)>;

/// `general.architecture` → the function that reads that family.
pub(super) const ARCHITECTURES: [(&str, Family); 5] =
    [("gpt2", gpt2), ("llama", llama), ("qwen2", qwen2), ("qwen3", qwen3), ("smollm3", smollm3)];

/// Reads the architecture and the tensors' names from a GGUF file's metadata.
///
/// # Errors
/// Of the kind Model where the architecture is unknown, or a key is missing, wrong or not supported.
pub fn read(gguf: &Gguf) -> Result<(Architecture, ModelTensors)> {
    let key = "general.architecture";
    let known = || ARCHITECTURES.map(|(name, _)| name).join(", ");
    let name = gguf
        .string(key)?
        .ok_or_else(|| gguf.wrong(key, format!("one of these belongs there: {}", known())))?;
    match ARCHITECTURES.iter().find(|(family, _)| *family == name) {
        Some((family, read)) => {
            let fields = Fields::of(gguf, family);
            let model = read(&fields)?;
            keys::judge(gguf, family, &fields.read.borrow())?;
            Ok(model)
        }
        None => Err(gguf.wrong(key, format!("the architectures there are: {}", known()))),
    }
}

/// The metadata of one architecture. Its keys begin with the architecture's name.
pub(super) struct Fields<'a> {
    gguf: &'a Gguf,
    family: &'static str,
    /// The keys that were asked for.
    pub read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub fn of(gguf: &'a Gguf, family: &'static str) -> Self {
        Self { gguf, family, read: RefCell::default() }
    }
    fn key(&self, field: &str) -> String {
        let key = format!("{}.{field}", self.family);
        self.read.borrow_mut().insert(key.clone());
        key
    }
    fn size_or(&self, field: &str, default: u32) -> Result<u32> {
        Ok(self.gguf.count(&self.key(field), 1 << 24)?.unwrap_or(default))
    }
    fn size(&self, field: &str) -> Result<u32> {
        let size = self.gguf.count(&self.key(field), 1 << 24)?;
        size.ok_or_else(|| self.wrong(field, "a size belongs there"))
    }
    fn positive_or(&self, field: &str, default: f64) -> Result<f64> {
        match self.gguf.number(&self.key(field))? {
            None => Ok(default),
            Some(n) if (1e-15..=1e15).contains(&n) => Ok(n),
            Some(_) => Err(self.wrong(field, "a number above zero belongs there")),
        }
    }
    fn epsilon(&self, field: &str) -> Result<f32> {
        match self.gguf.number(&self.key(field))? {
            Some(n) if (0.0..=1.0).contains(&n) => Ok(n as f32),
            _ => Err(self.wrong(field, "a number from 0 to 1 belongs there")),
        }
    }
    fn wrong(&self, field: &str, why: impl std::fmt::Display) -> Error {
        self.gguf.wrong(&self.key(field), why)
    }

    /// The fields that all families share. Each family then changes what differs.
    fn architecture(&self, by: Norm) -> Result<Architecture> {
        let hidden_size = self.size("embedding_length")?;
        let n_heads = self.size("attention.head_count")?;
        let n_kv_heads = self.size_or("attention.head_count_kv", n_heads)?;
        let head_dim = match self.gguf.count(&self.key("attention.key_length"), 1 << 16)? {
            Some(own) => own,
            None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => {
                return Err(
                    self.wrong("attention.head_count", format!("it must divide the width {hidden_size}"))
                );
            }
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(self.wrong("attention.head_count_kv", format!("it must divide the {n_heads} heads")));
        }
        if u64::from(n_heads) * u64::from(head_dim) > 1 << 24 {
            return Err(self.wrong("attention.key_length", "so many heads of it are more than any model has"));
        }
        if self.size_or("attention.value_length", head_dim)? != head_dim {
            return Err(self.wrong(
                "attention.value_length",
                format!("keys are {head_dim} wide, and so must values be"),
            ));
        }
        let n_layers = self.size("block_count")?;
        if n_layers > 10_000 {
            return Err(self.wrong("block_count", "no model has as many layers"));
        }
        let tokens = self.gguf.checkpoint.get("token_embd.weight").and_then(|entry| entry.shape.first());
        let vocab_size = tokens.and_then(|n| u32::try_from(*n).ok()).filter(|n| (1..=1 << 24).contains(n));
        if let (Some(rows), Some(said)) = (vocab_size, self.gguf.count(&self.key("vocab_size"), 1 << 24)?)
            && rows != said
        {
            return Err(self.wrong("vocab_size", format!("token_embd.weight has {rows} rows")));
        }
        let mlp = Mlp {
            norms: Norms::before(by),
            intermediate_size: self.size_or("feed_forward_length", 4 * hidden_size)?,
            activation: Activation::GeluTanh,
            gated: false,
            experts: None,
        };
        let layer = Layer::new(Attention::full(head_dim, Norms::before(by)), mlp);
        Ok(Architecture {
            family: self.family,
            vocab_size: vocab_size.ok_or_else(|| {
                Error::model(format!(
                    "{} holds no token_embd.weight: it is not a whole model",
                    self.gguf.name
                ))
            })?,
            max_positions: self.size("context_length")?,
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            embedding: Embedding::WITH_POSITIONS,
            layers: vec![layer; n_layers as usize],
            final_norm: Some(by),
            logits: Logits::PLAIN,
            bos: gguf_role(self.gguf, "bos")?.into_iter().collect(),
            eos: gguf_ends(self.gguf)?,
            vision: None,
        })
    }

    fn has(&self, tensor: &str) -> bool {
        self.gguf.checkpoint.get(tensor).is_some()
    }
    /// Tensors that form one vector, if the file has any of them.
    fn optional<const N: usize>(&self, parts: [TensorSpec; N]) -> Vec<TensorSpec> {
        if parts.iter().any(|part| self.has(&part.name)) { parts.into() } else { Vec::new() }
    }

    fn model(&self, a: &Architecture, layers: Vec<LayerTensors>) -> ModelTensors {
        let width = a.hidden_size;
        let positions = a.embedding.positions.map(|learned| {
            TensorSpec::matrix("position_embd.weight", learned.first + a.max_positions, width)
        });
        let turns = a.layers.iter().any(|layer| layer.attention.rope.is_some());
        ModelTensors {
            spellings: &[],
            vision: None,
            tokens: TensorSpec::matrix("token_embd.weight", a.vocab_size, width),
            positions,
            layers,
            final_norm: a.final_norm.map(|by| norm("output_norm", width, by.kind == NormKind::Layer)),
            head: self.has("output.weight").then(|| TensorSpec::matrix("output.weight", a.vocab_size, width)),
            // Its values are in the architecture.
            ignored: turns.then(|| "rope_freqs.weight".to_owned()).into_iter().collect(),
        }
    }
}

fn gpt2(fields: &Fields) -> Result<(Architecture, ModelTensors)> {
    let by = Norm::new(NormKind::Layer, fields.epsilon("attention.layer_norm_epsilon")?);
    let a = fields.architecture(by)?;
    let (width, inner) = (a.hidden_size, a.intermediate_size());
    let layer = |number: usize| {
        let at = |name: &str| format!("blk.{number}.{name}");
        let bias = |name: &str, len| TensorSpec::vector(at(name), len);
        LayerTensors {
            attention: AttentionTensors {
                norms: Norms::before(norm(at("attn_norm"), width, true)),
                qkv: vec![TensorSpec::matrix(at("attn_qkv.weight"), 3 * width, width)],
                qkv_bias: vec![bias("attn_qkv.bias", 3 * width)],
                qk_norm: None,
                out: TensorSpec::matrix(at("attn_output.weight"), width, width),
                out_bias: Some(bias("attn_output.bias", width)),
            },
            mlp: MlpTensors {
                norms: Norms::before(norm(at("ffn_norm"), width, true)),
                up: vec![TensorSpec::matrix(at("ffn_up.weight"), inner, width)],
                up_bias: vec![bias("ffn_up.bias", inner)],
                down: TensorSpec::matrix(at("ffn_down.weight"), width, inner),
                down_bias: Some(bias("ffn_down.bias", width)),
            },
        }
    };
    let layers = (0..a.layers.len()).map(layer).collect();
    let tensors = fields.model(&a, layers);
    Ok((a, tensors))
}

fn llama(fields: &Fields) -> Result<(Architecture, ModelTensors)> {
    kin(fields, PAIRS, |_, full| full)
}

fn qwen2(fields: &Fields) -> Result<(Architecture, ModelTensors)> {
    kin(fields, HALVES, |_, full| full)
}

fn qwen3(fields: &Fields) -> Result<(Architecture, ModelTensors)> {
    kin(fields, HALVES, |_, full| Attention { qk_norm: QkNorm::of_heads(&full), ..full })
}

/// The GGUF file does not say which layers have no rotary positions; llama.cpp always takes every fourth.
fn smollm3(fields: &Fields) -> Result<(Architecture, ModelTensors)> {
    kin(fields, PAIRS, |layer, full| Attention {
        rope: full.rope.clone().filter(|_| (layer + 1) % 4 != 0),
        ..full
    })
}

/// The order of the rows of q and k in the file, given the width of a head: the two values of a rotary pair
/// are adjacent, as the shaders expect, or half a head apart, as Hugging Face stores them.
type PairOrder = fn(u32) -> Order;
const PAIRS: PairOrder = |_| Order::AsStored;
const HALVES: PairOrder = Order::RopePairs;

/// A model built like LLaMA. `attention` takes a layer's number and full attention, and returns that layer's
/// attention.
fn kin(
    fields: &Fields,
    order: PairOrder,
    attention: impl Fn(usize, Attention) -> Attention,
) -> Result<(Architecture, ModelTensors)> {
    let by = Norm::new(NormKind::Rms, fields.epsilon("attention.layer_norm_rms_epsilon")?);
    let shared = fields.architecture(by)?;
    if !shared.head_dim.is_multiple_of(2) {
        return Err(fields.wrong("attention.key_length", "rotary positions need an even one"));
    }
    if fields.size_or("rope.dimension_count", shared.head_dim)? != shared.head_dim {
        return Err(
            fields.wrong("rope.dimension_count", format!("whole heads are turned here: {}", shared.head_dim))
        );
    }
    let rope = Some(rope(fields, shared.max_positions, shared.head_dim)?);
    let layer = |(number, layer): (usize, &Layer)| {
        Layer::new(
            attention(number, Attention { rope: rope.clone(), ..layer.attention.clone() }),
            Mlp { activation: Activation::Silu, gated: true, ..layer.mlp.clone() },
        )
    };
    let a = Architecture {
        layers: shared.layers.iter().enumerate().map(layer).collect(),
        embedding: Embedding::TOKENS,
        ..shared
    };
    let (width, inner) = (a.hidden_size, a.intermediate_size());
    let (q, kv) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
    let layer = |number: usize| {
        let at = |name: &str| format!("blk.{number}.{name}");
        let weight =
            |name: &str, rows, columns| TensorSpec::matrix(at(&format!("{name}.weight")), rows, columns);
        let bias = |name: &str, len| TensorSpec::vector(at(&format!("{name}.bias")), len);
        let turned = |spec: TensorSpec| spec.order(order(a.head_dim));
        let norms = |_: &QkNorm| {
            ["attn_q_norm", "attn_k_norm"]
                .map(|name| turned(TensorSpec::vector(at(&format!("{name}.weight")), a.head_dim)))
        };
        LayerTensors {
            attention: AttentionTensors {
                norms: Norms::before(norm(at("attn_norm"), width, false)),
                qkv: vec![
                    turned(weight("attn_q", q, width)),
                    turned(weight("attn_k", kv, width)),
                    weight("attn_v", kv, width),
                ],
                qkv_bias: fields.optional([
                    turned(bias("attn_q", q)),
                    turned(bias("attn_k", kv)),
                    bias("attn_v", kv),
                ]),
                qk_norm: a.layers[number].attention.qk_norm.as_ref().map(norms),
                out: weight("attn_output", width, q),
                out_bias: fields.optional([bias("attn_output", width)]).pop(),
            },
            mlp: MlpTensors {
                norms: Norms::before(norm(at("ffn_norm"), width, false)),
                up: vec![weight("ffn_gate", inner, width), weight("ffn_up", inner, width)],
                up_bias: fields.optional([bias("ffn_gate", inner), bias("ffn_up", inner)]),
                down: weight("ffn_down", width, inner),
                down_bias: fields.optional([bias("ffn_down", width)]).pop(),
            },
        }
    };
    let layers = (0..a.layers.len()).map(layer).collect();
    let tensors = fields.model(&a, layers);
    Ok((a, tensors))
}

fn rope(fields: &Fields, max_positions: u32, head_dim: u32) -> Result<Rope> {
    let theta = fields.positive_or("rope.freq_base", 10_000.0)?;
    let kind = fields.gguf.string(&fields.key("rope.scaling.type"))?;
    // Older files have this key instead of `rope.scaling.factor`.
    let linear = fields.positive_or("rope.scale_linear", 1.0)?;
    let factor = match fields.gguf.number(&fields.key("rope.scaling.factor"))? {
        // llama.cpp writes 0 where there is no scaling.
        Some(0.0) => 1.0,
        _ => fields.positive_or("rope.scaling.factor", linear)?,
    };
    let magnitude = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let original = fields.positive_or("rope.scaling.original_context_length", f64::from(max_positions))?;
    let scaling = match kind {
        // LLaMA 3.1's scaling: the file holds one factor for each rotary pair.
        None | Some("none" | "linear") if fields.has("rope_freqs.weight") => {
            let linear = if kind == Some("none") { 1.0 } else { factor };
            let factors = factors(fields, head_dim)?;
            RopeScaling::Factors(factors.into_iter().map(|one| one * linear as f32).collect())
        }
        Some(_) if fields.has("rope_freqs.weight") => {
            return Err(fields.wrong(
                "rope.scaling.type",
                "rope_freqs.weight is another scaling: with it, none or linear belongs there",
            ));
        }
        None if factor == 1.0 => RopeScaling::None,
        None | Some("linear") => RopeScaling::Linear { factor },
        Some("none") => RopeScaling::None,
        Some("yarn") => RopeScaling::Yarn {
            factor,
            beta_fast: fields.positive_or("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: fields.positive_or("rope.scaling.yarn_beta_slow", 1.0)?,
            original,
            attention_factor: fields.positive_or("rope.scaling.attn_factor", 1.0)? * magnitude(1.0)
                / magnitude(fields.positive_or("rope.scaling.yarn_log_multiplier", 0.0)?),
            truncate: true,
        },
        Some(_) => {
            return Err(fields.wrong("rope.scaling.type", "the scalings there are: none, linear, yarn"));
        }
    };
    Ok(Rope { theta, scaling, dims: None })
}

/// The divisor of each rotary pair's frequency: `[head_dim / 2]`.
fn factors(fields: &Fields, head_dim: u32) -> Result<Vec<f32>> {
    let tensor = fields.gguf.checkpoint.get("rope_freqs.weight").and_then(|entry| entry.tensor.as_ref());
    let pairs = TensorSpec::vector("rope_freqs.weight", head_dim / 2);
    let fits = tensor.filter(|tensor| pairs.fits(&tensor.shape));
    let tensor = fits.ok_or_else(|| {
        let pairs = head_dim / 2;
        Error::model(format!("{}: rope_freqs.weight must hold {pairs} numbers, one a pair", fields.gguf.name))
    })?;
    let mut factors = vec![0.0; head_dim as usize / 2];
    tensor.format.unpack(tensor.bytes(), &mut factors);
    Ok(factors)
}
