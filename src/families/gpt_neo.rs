//! GPT-Neo (Black et al. 2021), `gpt_neo`: GPT-3's architecture (Brown et al. 2020), in which dense and
//! banded local attention alternate. Attention scores are not scaled; q, k and v have no bias.

use super::{masks_and_head, norm};
use crate::{
    architecture::{Architecture, Attention, Embedding, Layer, Logits, Mlp, Norm, NormKind, Norms, Span},
    config::Config,
    error::Result,
    weights::{AttentionTensors, LayerTensors, MlpTensors, ModelTensors, TensorSpec},
};
use serde_json::Value;

pub fn read(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let hidden_size = config.size("hidden_size", 2048)?;
    let n_heads = config.size_of(&["num_heads", "num_attention_heads"], 16)?;
    let n_layers = config.layers(&["num_layers", "num_hidden_layers"], 24)?;
    let head_dim = config.head_dim("num_heads", n_heads, hidden_size)?;
    let vocab_size = config.size("vocab_size", 50257)?;
    let max_positions = config.size("max_position_embeddings", 2048)?;
    let intermediate_size = config.size("intermediate_size", 4 * hidden_size)?;
    let window = config.size("window_size", 256)?;
    let tied = config.bool("tie_word_embeddings", true)?;
    let locals = locals(config, n_layers as usize)?;
    let by = Norm::new(NormKind::Layer, config.epsilon("layer_norm_epsilon", 1e-5)?);
    let attention = |is_local: bool| Attention {
        scale: 1.0,
        span: if is_local { Span::Sliding(window) } else { Span::Full },
        ..Attention::full(head_dim, Norms::before(by))
    };
    let mlp = Mlp {
        norms: Norms::before(by),
        intermediate_size,
        activation: config.activation("activation_function", "gelu_new")?,
        gated: false,
        experts: None,
    };
    let layer = |is_local| Layer::new(attention(is_local), mlp.clone());
    let architecture = Architecture {
        family: "gpt_neo",
        vocab_size,
        max_positions,
        hidden_size,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        embedding: Embedding::WITH_POSITIONS,
        layers: locals.into_iter().map(layer).collect(),
        final_norm: Some(by),
        logits: Logits::PLAIN,
        bos: config.ids("bos_token_id"),
        eos: config.ids("eos_token_id"),
        vision: None,
    };
    let layer = |number: u32| {
        let at = |name: &str| format!("transformer.h.{number}.{name}");
        let projection = |name: &str| {
            TensorSpec::matrix(at(&format!("attn.attention.{name}.weight")), hidden_size, hidden_size)
        };
        let bias = |name: &str, len| TensorSpec::vector(at(name), len);
        LayerTensors {
            attention: AttentionTensors {
                norms: Norms::before(norm(at("ln_1"), hidden_size, true)),
                qkv: ["q_proj", "k_proj", "v_proj"].map(projection).to_vec(),
                qkv_bias: Vec::new(),
                qk_norm: None,
                out: projection("out_proj"),
                out_bias: Some(bias("attn.attention.out_proj.bias", hidden_size)),
            },
            mlp: MlpTensors {
                norms: Norms::before(norm(at("ln_2"), hidden_size, true)),
                up: vec![TensorSpec::matrix(at("mlp.c_fc.weight"), intermediate_size, hidden_size)],
                up_bias: vec![bias("mlp.c_fc.bias", intermediate_size)],
                down: TensorSpec::matrix(at("mlp.c_proj.weight"), hidden_size, intermediate_size),
                down_bias: Some(bias("mlp.c_proj.bias", hidden_size)),
            },
        }
    };
    let tensors = ModelTensors {
        spellings: &[("transformer.", "")],
        vision: None,
        tokens: TensorSpec::matrix("transformer.wte.weight", vocab_size, hidden_size),
        positions: Some(TensorSpec::matrix("transformer.wpe.weight", max_positions, hidden_size)),
        layers: (0..n_layers).map(layer).collect(),
        final_norm: Some(norm("transformer.ln_f", hidden_size, true)),
        head: (!tied).then(|| TensorSpec::matrix("lm_head.weight", vocab_size, hidden_size)),
        ignored: masks_and_head(n_layers, "attn.attention.bias"),
    };
    Ok((architecture, tensors))
}

/// Whether each layer's attention is local, read from `attention_layers` (`["global", "local", …]`) or else
/// from `attention_types` (`[[["global", "local"], 12]]`). Without either, every second layer is local.
fn locals(config: &Config, n_layers: usize) -> Result<Vec<bool>> {
    config.know(&["attention_types"]);
    let locals = if let Some(value) = config.get("attention_layers") {
        kinds(config, "attention_layers", value)?
    } else if let Some(value) = config.get("attention_types") {
        let field = "attention_types";
        let shape = || config.wrong(field, "a list like [[[\"global\", \"local\"], 12]] belongs there");
        let mut locals = Vec::new();
        for group in value.as_array().ok_or_else(shape)? {
            let [pattern, times] = group.as_array().ok_or_else(shape)?.as_slice() else {
                return Err(shape());
            };
            let pattern = kinds(config, field, pattern)?;
            let times = times.as_u64().ok_or_else(shape)?.min(n_layers as u64 + 1);
            locals.extend(std::iter::repeat_n(pattern, times as usize).flatten().take(n_layers + 1));
        }
        locals
    } else {
        (0..n_layers).map(|layer| layer % 2 == 1).collect()
    };
    if locals.len() != n_layers {
        return Err(
            config.wrong("attention_types", format!("it must speak of num_layers, {n_layers}, layers"))
        );
    }
    Ok(locals)
}

fn kinds(config: &Config, field: &str, value: &Value) -> Result<Vec<bool>> {
    let wrong = || config.wrong(field, "the kinds of attention there are: global, local");
    let kind = |kind: &Value| match kind.as_str() {
        Some("global") => Ok(false),
        Some("local") => Ok(true),
        _ => Err(wrong()),
    };
    value.as_array().ok_or_else(wrong)?.iter().map(kind).collect()
}
